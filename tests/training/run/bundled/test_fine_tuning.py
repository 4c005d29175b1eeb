"""Fine-tuning from a bundle: real bundles of the smallest network, real runs."""

import json
import shutil
from functools import cache

import numpy as np
import pytest

from models.manifest import Preprocess, Training
from training import train

pytestmark = pytest.mark.usefixtures("cpu")

ARCH = "RepVGG-Smoke"
SPEC = {"interpolation": "bilinear", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}


@pytest.fixture(scope="module")
def published(cpu, tmp_path_factory):
    """Labels -> a bundle of random weights with 16 pixels, written once."""

    @cache
    def publish(labels):
        from training.deploy import bundle
        from training.network import repvgg

        network = repvgg.build(ARCH, len(labels), deploy=True).set_train(False)
        folder = tmp_path_factory.mktemp("store") / "start" / "1"
        training = Training(dataset="", evaluated_on="", recipe="", epochs=0, framework="", git_commit="")
        spec = Preprocess(input_size=16, crop_pct=1.0, **SPEC)
        bundle.publish(network, ARCH, folder, spec, list(labels), training, golden=None)
        return folder

    return publish


@pytest.fixture
def write_bundle(published, tmp_path):
    """Labels -> a copy of their bundle."""
    return lambda labels: shutil.copytree(published(tuple(labels)), tmp_path / "store" / "start" / "1")


@pytest.fixture
def start(image_folder, tmp_path):
    """(bundle, more flags) -> the exit code of a run without a step of learning."""

    def start(bundle, *flags):
        keys = ["--set", "ImageFolder", "--data_url", image_folder, "--pretrained", bundle, "--device_target", "CPU"]
        fixed = [
            "--epochs",
            "1",
            "--batch_size",
            "16",
            "--save_dir",
            tmp_path,
            "--name",
            "run",
            "--base_lr",
            "0",
            *flags,
        ]
        return train.main([str(word) for word in [*keys, *fixed]])

    return start


def best(tmp_path):
    return checkpoint_of(tmp_path / "run" / "best.ckpt")


def read(path):
    from training.run.checkpoints import checkpoint

    return checkpoint.read(path)


def checkpoint_of(path):
    from training.run.checkpoints import checkpoint

    return checkpoint.network_weights(read(path))


def test_the_run_starts_where_serving_stood_in_any_order_of_the_classes(write_bundle, start, tmp_path, capsys):
    from models import golden
    from models.store import open_bundle
    from weights.forward import logits
    from weights.variants import VARIANTS

    folder = write_bundle(["down", "across"])
    assert start(folder) == 0
    told = capsys.readouterr().out
    assert "its classifier is kept: the 2 classes are the same" in told
    assert "arch RepVGG-Smoke, image_size 16, mean [0.4, 0.5, 0.6], std [0.2, 0.25, 0.3]" in told
    assert "crop_pct 1, interpolation bilinear" in told
    tensors, expected = golden.load(open_bundle(folder))
    found = logits(best(tmp_path), VARIANTS["RepVGG-Smoke"], tensors[:1])
    # One epoch of training without a learning rate changes the statistics, and those were of the same images before.
    np.testing.assert_allclose(found, expected[:1, ::-1], atol=0.1 * expected.std())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "its kernels are trained as they are served"),
        (
            ("--kernel_norms", "True", "--fixed_statistics", "True"),
            "its kernels get a batch norm each (logits differ by",
        ),
    ],
)
def test_fused_kernels_are_trained_as_they_are_served(write_bundle, start, tmp_path, capsys, flags, told):
    from models.store import open_bundle
    from training.run.bundled.networks import read_weights

    folder = write_bundle(["across", "down"])
    served = read_weights(open_bundle(folder))
    flags = ("--fused", "True", *flags)
    assert start(folder, *flags, "--with_ema", "True") == 0
    said = capsys.readouterr().out
    assert told in said
    assert "; its classifier is kept" in said
    found = best(tmp_path)
    assert found.keys() == served.keys()
    for name, array in served.items():
        np.testing.assert_allclose(found[name], array, atol=2e-6)
    assert ("stages.0.0.bn.moving_mean" in read(tmp_path / "run" / "best.ckpt")) == ("--kernel_norms" in flags)

    assert start(folder, *flags, "--base_lr", "0.01", "--freeze", "1", "--name", "learnt") == 0
    learnt = checkpoint_of(tmp_path / "learnt" / "best.ckpt")
    folded = 2e-6 if "--kernel_norms" in flags else 0  # which rounds
    changed = {name for name in served if not np.allclose(learnt[name], served[name], rtol=0, atol=folded)}
    assert not any(name.startswith("stages.0.") for name in changed)
    assert {"stages.1.0.conv.weight", "stages.1.0.conv.bias", "classifier.weight"} <= changed


@pytest.mark.parametrize("flags", [(), ("--kernel_norms", "True")])
def test_a_fused_run_is_evaluated_and_exported(write_bundle, start, image_folder, tmp_path, capsys, flags):
    from models.store import open_bundle
    from training import eval as evaluate
    from training import export
    from training.run.bundled.networks import read_weights

    assert start(write_bundle(["across", "down"]), "--fused", "True", "--base_lr", "0.01", *flags) == 0
    trained, out = tmp_path / "run" / "best.ckpt", tmp_path / "store" / "tuned" / "1"
    common = ["--pretrained", str(trained), "--device_target", "CPU"]
    assert evaluate.main([*common, "--data_url", str(image_folder)]) == 0
    assert export.main([*common, "--bundle", str(out)]) == 0
    written = read_weights(open_bundle(out))
    for name, array in checkpoint_of(trained).items():
        np.testing.assert_array_equal(written[name], array)


def test_fused_needs_a_bundle(start, tmp_path, capsys):
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    trained = tmp_path / "trained.ckpt"
    checkpoint.save(trained, repvgg.weights(repvgg.build(ARCH, 2)), {})
    assert start(trained, "--fused", "True", "--arch", ARCH, "--image_size", "16") == 78
    assert f"fused: True trains a bundle's kernels, and {trained} is no bundle" in capsys.readouterr().err


def test_other_classes_get_a_new_classifier_and_are_named(write_bundle, start, tmp_path, capsys):
    assert start(write_bundle(["cat", "dog", "frog"]), "--image_size", "24", "--with_ema", "True") == 0
    told = capsys.readouterr().out
    assert "the classifier is new: 2 classes (across, down) instead of the bundle's 3 (cat, dog, frog)" in told
    assert "input_size is 24 here, the bundle used 16" in told
    assert best(tmp_path)["classifier.weight"].shape == (2, 64)


def test_frozen_stages_keep_their_weights_and_statistics(write_bundle, start, tmp_path, capsys):
    from training.run.checkpoints import checkpoint

    assert start(write_bundle(["across", "down"]), "--freeze", "2", "--base_lr", "0.01", "--epochs", "2") == 0
    last = checkpoint.read(tmp_path / "run/last.ckpt")
    first = checkpoint.read(tmp_path / "run/best.ckpt")
    changed = {name.split(".")[1] for name in first if name.startswith("stages.") and (first[name] != last[name]).any()}
    assert changed <= {"2"}
    assert not any("stages.0." in name or "stages.1." in name for name in last if name.startswith("optimizer."))


def test_a_bundle_of_another_network_is_refused_by_name(write_bundle, start, capsys):
    folder = write_bundle(["across", "down"])
    assert start(folder, "--arch", "RepVGG-Tiny") == 78
    assert f"arch is RepVGG-Tiny, but {folder} is a RepVGG-Smoke: give --arch RepVGG-Smoke" in capsys.readouterr().err
    manifest = json.loads((folder / "manifest.json").read_text())
    for network, code, said in (("resnet50", 78, "is a resnet50; only"), ("RepVGG-A0", 66, "missing: stages.1.1.conv")):
        manifest["network"]["variant"] = network
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert start(folder, "--image_size", "16") == code
        assert said in capsys.readouterr().err


def test_weights_that_do_not_give_the_golden_logits_are_refused(write_bundle, start, capsys):
    folder = write_bundle(["across", "down"])
    path = folder / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    golden["images"][0]["logits"][0] += 0.1
    path.write_text(json.dumps(golden))
    manifest = json.loads((folder / "manifest.json").read_text())
    import hashlib

    manifest["golden"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert start(folder) == 66
    assert "the logits of its weights differ from its golden ones" in capsys.readouterr().err


def test_a_bundle_without_onnx_is_read_from_its_mindir(write_bundle, start, capsys):
    folder = write_bundle(["across", "down"])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artifacts"] = [artifact for artifact in manifest["artifacts"] if artifact["format"] == "mindir"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert start(folder) == 0
    assert "its classifier is kept" in capsys.readouterr().out


def test_what_is_neither_a_bundle_nor_a_checkpoint_is_said(start, tmp_path, capsys):
    assert start(tmp_path / "nowhere") == 66
    assert "no model bundle at" in capsys.readouterr().err
