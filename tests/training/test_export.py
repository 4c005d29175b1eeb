"""Single files from `training.export`; its bundle is tested in test_run.py."""

import stat

import numpy as np
import pytest

from training import export

KEYS = [
    "--arch",
    "RepVGG-Tiny",
    "--num_classes",
    "6",
    "--image_size",
    "32",
    "--crop_pct",
    "1",
    "--device_target",
    "CPU",
]


@pytest.fixture(scope="module")
def train_form(cpu, tmp_path_factory):
    """A checkpoint of random weights, whose batch-norm statistics would reveal a wrong fuse."""
    import mindspore as ms

    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    path = tmp_path_factory.mktemp("weights") / "train.ckpt"
    network = repvgg.build("RepVGG-Tiny", 6)
    rng = np.random.default_rng(0)
    for name, parameter in repvgg.weights(network).items():
        if "moving_" in name:
            parameter.set_data(ms.Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    checkpoint.save(path, repvgg.weights(network), {})
    return path


def test_files_are_named_after_the_architecture_and_give_the_logits_of_the_train_form(train_form, tmp_path, capsys):
    import mindspore as ms
    import onnx
    from onnx.reference import ReferenceEvaluator

    from training.run.checkpoints.checkpoint import load_network

    old = tmp_path / "RepVGG-Tiny.onnx"
    old.write_text("an older file")
    old.chmod(0o400)
    flags = ["--pretrained", str(train_form), "--file_format", "MINDIR", "ONNX", "--output_dir", str(tmp_path)]
    assert export.main([*flags, *KEYS]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RepVGG-Tiny.mindir", "RepVGG-Tiny.onnx"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o644}
    assert "RepVGG-Tiny.mindir: RepVGG-Tiny, fused" in capsys.readouterr().out

    images = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
    expected = load_network(train_form, "RepVGG-Tiny", 6, deploy=False)(ms.Tensor(images)).asnumpy()
    (found,) = ReferenceEvaluator(onnx.load(old)).run(None, {"image": images})
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    loaded = ms.nn.GraphCell(ms.load(str(tmp_path / "RepVGG-Tiny.mindir")))
    np.testing.assert_allclose(loaded(ms.Tensor(images)).asnumpy(), expected, atol=1e-4, rtol=0)


def test_the_default_is_mindir_in_the_current_folder_and_a_deploy_form_is_accepted(train_form, tmp_path, monkeypatch):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    deploy = checkpoint.load_network(train_form, "RepVGG-Tiny", 6, deploy=True)
    checkpoint.save(tmp_path / "deploy.ckpt", repvgg.weights(deploy), {})
    monkeypatch.chdir(tmp_path)
    assert export.main(["--pretrained", "deploy.ckpt", *KEYS]) == 0
    assert (tmp_path / "RepVGG-Tiny.mindir").is_file()


def test_a_bundle_is_exported_as_it_is_served(cpu, tmp_path):
    import mindspore as ms

    from models import golden
    from models.store import open_bundle

    flags = ["--pretrained", "repvgg-tiny-cifar10", "--output_dir", str(tmp_path), "--device_target", "CPU"]
    assert export.main(flags) == 0
    loaded = ms.nn.GraphCell(ms.load(str(tmp_path / "RepVGG-Tiny.mindir")))
    tensors, expected = golden.load(open_bundle("repvgg-tiny-cifar10"))
    np.testing.assert_allclose(loaded(ms.Tensor(tensors)).asnumpy(), expected, atol=1e-3, rtol=0)


def test_a_bundle_that_fails_its_golden_check_is_not_exported(cpu, tmp_path, capsys):
    import json
    import shutil

    from models.store import find_bundle, sha256

    folder = shutil.copytree(find_bundle("repvgg-tiny-cifar10"), tmp_path / "store" / "wrong" / "1")
    listed = json.loads((folder / "golden/golden.json").read_text())
    listed["images"][0]["logits"][0] += 1.0
    (folder / "golden/golden.json").write_text(json.dumps(listed))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["golden"]["sha256"] = sha256(folder / "golden/golden.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    flags = ["--pretrained", str(folder), "--output_dir", str(tmp_path / "out"), "--device_target", "CPU"]
    assert export.main(flags) == 66
    assert "differs from its golden logits by 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--file_format", "AIR"], 78, "AIR can only be exported on Ascend, but device_target is CPU"),
        (["--file_format", "ONNX", "--bundle", "b/x/1"], 78, "use one of them"),
        (["--output_dir", "gone.ckpt"], 66, "gone.ckpt does not exist"),
    ],
)
def test_a_usage_error_is_found_before_any_work(cpu, flags, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export.main(["--pretrained", "gone.ckpt", *flags, *KEYS]) == code
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_write_error_leaves_no_files(train_form, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    flags = ["--pretrained", str(train_form), "--output_dir", str(tmp_path / "file" / "inner")]
    assert export.main([*flags, *KEYS]) == 1
    assert "RepVGG-Tiny.mindir cannot be written: Not a directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_selectable_format_has_an_exporter(cpu):
    from training.deploy.bundle import EXPORTERS

    assert tuple(EXPORTERS) == export.FORMATS


def test_an_unknown_format_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        export.main(["--file_format", "PTH"])
    assert stop.value.code == 2
    assert "MINDIR" in capsys.readouterr().err


def test_the_commit_comes_from_the_environment_then_from_git_and_is_unknown_without_git(cpu, monkeypatch):
    from training.run.checkpoints.commit import git_commit

    monkeypatch.setenv("SOURCE_COMMIT", "0123abc")
    assert git_commit() == "0123abc"
    monkeypatch.delenv("SOURCE_COMMIT")
    monkeypatch.setenv("PATH", "")
    assert git_commit() == "unknown"
