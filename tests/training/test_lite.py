"""The conversion with the real MindSpore Lite, if it is installed; options for Ascend are in deploy/test_lite.py."""

import sys

import pytest

from models.store import open_bundle
from training import lite


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(bundle, out, python, *flags):
    return lite.main(["--bundle", str(bundle), "--out", str(out), "--lite-python", str(python), *flags])


def test_the_new_bundle_keeps_everything_in_the_old_one(tiny_bundle, lite_python, tmp_path, capsys):
    before = files_of(tiny_bundle)
    assert run(tiny_bundle, tmp_path / "tiny" / "2", lite_python, "--batch", "8,1,4") == 0
    assert "lite-mindir fp32 by MindSpore Lite 2.0.0, model.lite.mindir" in capsys.readouterr().out
    assert files_of(tiny_bundle) == before
    after = files_of(tmp_path / "tiny" / "2")
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    old, new = open_bundle(tiny_bundle).manifest, open_bundle(tmp_path / "tiny" / "2").manifest
    assert (new.name, new.version, new.created_at > old.created_at) == ("tiny", "2", True)
    *kept, added = new.artifacts
    assert kept == old.artifacts
    assert (added.format, added.precision, added.batch) == ("lite-mindir", "fp32", [1, 4, 8])
    assert (added.input, added.output) == ("image", "logits")
    assert new.model_copy(update=dict.fromkeys(("version", "created_at", "artifacts"))) == old.model_copy(
        update=dict.fromkeys(("version", "created_at", "artifacts"))
    )


def test_a_model_with_other_logits_than_the_golden_ones_is_not_written(wrong_bundle, lite_python, tmp_path, capsys):
    assert run(wrong_bundle, tmp_path / "wrong" / "2", lite_python) == 1
    assert "from the golden logits" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


def test_a_second_artifact_of_the_same_kind_replaces_the_first(lite_bundle, lite_python, tmp_path):
    assert run(lite_bundle, tmp_path / "tiny" / "3", lite_python) == 0
    formats = [artifact.format for artifact in open_bundle(tmp_path / "tiny" / "3").manifest.artifacts]
    assert sorted(formats) == ["lite-mindir", "onnx"]


def test_the_error_without_cann_says_what_ascend_needs(tiny_bundle, lite_python, tmp_path, capfd):
    assert run(tiny_bundle, tmp_path / "tiny" / "2", lite_python, "--target", "ascend310", "--batch", "1,4") == 1
    err = capfd.readouterr().err
    assert "CANN's set_env.sh" in err
    assert "libgraph.so: cannot open shared object file" in err  # Lite's own words


@pytest.mark.parametrize(
    ("python", "flags", "code", "message"),
    [
        (sys.executable, [], 1, "it must be a Python with MindSpore Lite; scripts/setup.py lite installs one"),
        ("/no/python", [], 78, "cannot run --lite-python /no/python: No such file"),
        (sys.executable, ["--target", "ascend310p"], 78, "give them, such as --batch 1,4,8"),
    ],
)
def test_errors_name_the_cause(tiny_bundle, tmp_path, capsys, python, flags, code, message):
    assert run(tiny_bundle, tmp_path / "tiny" / "2", python, *flags) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


def test_invalid_batch_sizes_are_a_usage_error(tiny_bundle, tmp_path, capsys):
    for text in ("0,4", "one", "4,"):
        with pytest.raises(SystemExit) as left:
            run(tiny_bundle, tmp_path / "tiny" / "2", sys.executable, "--batch", text)
        assert left.value.code == 2
        assert f"'{text}' is not a list of positive integers such as 1,4,8" in capsys.readouterr().err


def test_a_missing_bundle_is_named(tmp_path, capsys):
    assert run(tmp_path / "nothing", tmp_path / "x" / "1", sys.executable) == 66
    assert "no model bundle at" in capsys.readouterr().err
