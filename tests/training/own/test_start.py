"""The whole command: on drawn photos with a random network, and on real ones with the shipped bundle."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from models import golden
from models.preprocess import preprocess
from models.store import open_bundle
from training import start
from training.deploy.offline.onnx_engine import open_engine
from training.own import command


@pytest.fixture
def run(tiny_bundle, tmp_path, capsys, monkeypatch):
    """(photos, further flags) -> exit code, stdout, stderr. The bundle is `store/mine/1` in the test's folder; the time
    given is too short for int8 and for comparing sizes."""
    monkeypatch.chdir(tmp_path)

    def started(photos, *flags, out=("--out", "store/mine/1")):
        code = start.main([str(photos), *out, "--from", str(tiny_bundle), "--minutes", "0.01", *flags])
        return code, *capsys.readouterr()

    return started


@pytest.mark.usefixtures("every_engine_is_checked")
def test_a_folder_of_photos_becomes_a_bundle_that_is_verified_and_knows_its_classes(
    run, photos, tmp_path, draw_photo, encode
):
    code, said, _ = run(photos, "--minutes", "10")
    assert code == 0, said
    bundle = open_bundle(tmp_path / "store/mine/1")
    assert bundle.labels == ("lemon", "lime", "plum")
    engine = open_engine(bundle.path(bundle.artifact(("onnx",), "fp32")), "CPU", 0)
    assert golden.check(bundle, "fp32", engine.infer).ok
    new = [preprocess(encode(draw_photo((110, 50, 130), 9000 + n)), bundle.manifest.preprocess) for n in range(20)]
    assert (engine.infer(np.stack(new)).argmax(axis=1) == 2).mean() > 0.8
    assert "60 photos of 3 classes: lemon 20, lime 20, plum 20" in said
    assert re.search(
        r"accuracy \d+\.\d% \(95 % interval \d+\.\d% to \d+\.\d%; 5-fold cross-validation, 60 photos\)", said
    )
    assert "repvgg serve --model store/mine/1" in said
    assert re.search(r"onnxruntime +fp32 +\S+ +100\.0%", said)
    assert bundle.manifest.training.top1 is not None


def test_the_same_command_gives_the_same_network(run, photos, tmp_path):
    run(photos)
    run(photos, out=("--out", "store/mine/2"))
    assert (tmp_path / "store/mine/1/model.onnx").read_bytes() == (tmp_path / "store/mine/2/model.onnx").read_bytes()


def test_a_val_that_is_there_is_judged_by_and_never_fitted_on(run, draw_photos, tmp_path):
    draw_photos(tmp_path / "data/train", 12)
    draw_photos(tmp_path / "data/val", 5, first=500)
    _, said, _ = run(tmp_path / "data")
    assert "splits: train 36, val 15" in said
    assert "; val split, 15 photos)" in said
    first = (tmp_path / "store/mine/1/model.onnx").read_bytes()
    for photo in (tmp_path / "data/val").rglob("*.jpg"):  # all are lemons now
        if photo.parent.name != "lemon":
            photo.rename(tmp_path / "data/val/lemon" / f"{photo.parent.name}{photo.name}")
    _, said, _ = run(tmp_path / "data", out=("--out", "store/mine/2"))
    assert (tmp_path / "store/mine/2/model.onnx").read_bytes() == first


def test_copies_across_splits_are_said_and_not_fitted_on(run, draw_photos, tmp_path):
    draw_photos(tmp_path / "data/train", 8)
    draw_photos(tmp_path / "data/val", 4, first=500)
    shutil.copy(tmp_path / "data/val/lime/000.jpg", tmp_path / "data/train/lime/copy.jpg")
    _, said, _ = run(tmp_path / "data")
    assert "1 pairs of equal files, 0 of near-duplicates" in said
    assert "1 pairs leak between splits: 1 photos of train are not used" in said


def test_broken_files_are_named_and_left_out(run, photos, tmp_path):
    (photos / "lime/000.jpg").write_bytes((photos / "lime/000.jpg").read_bytes()[:300])
    (photos / "lime/001.jpg").write_bytes(b"\0\0\0\x18ftypheic")
    code, said, _ = run(photos)
    assert code == 0
    assert "2 files cannot be used and are left out" in said
    assert re.search(r"lime/001\.jpg: .*HEIC", said)
    assert "58 photos)" in said


@pytest.mark.parametrize("count", [1, 2])
def test_two_photos_of_a_class_are_enough_and_one_is_not(run, draw_photos, tmp_path, count):
    draw_photos(tmp_path / "data", 10, classes=("lemon", "lime"))
    draw_photos(tmp_path / "data", count, classes=("plum",))
    code, said, error = run(tmp_path / "data")
    assert (code, (tmp_path / "store").exists()) == ((0, True) if count == 2 else (66, False))
    assert ("too few: plum (1)" in error) == (count == 1)
    assert ("say little: lemon, lime, plum" in said) == (count == 2)


def test_photos_that_are_all_the_same_are_refused(run, photos):
    one = (photos / "lime/000.jpg").read_bytes()
    for path in photos.rglob("*.jpg"):
        path.write_bytes(one)
    code, _, error = run(photos)
    assert code == 66
    assert "all 60 photos are copies of one picture" in error


def test_an_out_that_is_taken_and_a_missing_out_are_refused_before_anything_is_read(run, photos, tmp_path):
    (tmp_path / "store/mine/1").mkdir(parents=True)
    assert run(photos)[0] == 78
    code, _, error = run(photos, out=())
    assert code == 78
    assert "--out STORE/NAME/1 is missing" in error
    assert run(photos, out=("--out", "store/mine/2"))[0] == 0


def test_an_unknown_bundle_is_named(run, photos):
    code, _, error = run(photos, "--from", "nothing")
    assert code == 66
    assert "--from nothing: no model bundle" in error


def test_a_bundle_that_fails_its_golden_check_is_no_start(run, photos, wrong_bundle):
    code, _, error = run(photos, "--from", str(wrong_bundle))
    assert code == 66
    assert "fails its golden check" in error


def test_a_classifier_needs_no_mindspore(photos, tiny_bundle, tmp_path):
    program = (
        "import sys; from training import start; "
        f"flags = [{str(photos)!r}, '--out', 'store/mine/1', '--from', {str(tiny_bundle)!r}, '--head-only']; "
        "code = start.main(flags); "
        "sys.exit(code or ('mindspore' in sys.modules) * 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)}, check=False
    )
    assert done.returncode == 0


@pytest.mark.usefixtures("every_engine_is_checked")
def test_real_photos_with_the_shipped_bundle(flowers, tmp_path, capsys):
    """Chance is 20 %; logistic regression on these features at 32 pixels gets about 52."""
    assert start.main([str(flowers), "--out", str(tmp_path / "store/flowers/1"), "--head-only"]) == 0
    bundle = open_bundle(tmp_path / "store/flowers/1")
    assert bundle.manifest.training.top1 > 0.5
    assert bundle.manifest.preprocess.input_size >= 32
    assert "<- chosen" in capsys.readouterr().out


def interrupted(*_args, **_keys):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("moment", "said_then"),
    [
        ("_tune", "interrupted: the classifier alone remains"),
        ("_int8", "interrupted: the bundle is written without what is not ready"),
        ("engines", "interrupted: store/mine/1 is written"),
    ],
)
def test_ctrl_c_keeps_the_best_so_far_and_says_so(run, photos, tmp_path, monkeypatch, moment, said_then):
    monkeypatch.setattr(command, moment, interrupted)
    code, said, _ = run(photos)
    assert code == 0
    assert said_then in said
    assert open_bundle(tmp_path / "store/mine/1").labels == ("lemon", "lime", "plum")
    assert (tmp_path / "runs/mine-1/report.html").is_file()
