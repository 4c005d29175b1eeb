"""`training.quantize` as a user runs it, on a real bundle; MindSpore is not needed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.manifest import MIN_LARGE_PHOTOS
from models.preprocess import preprocess
from models.store import open_bundle
from training.deploy.offline.onnx_engine import open_engine
from training.quantize import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, tiny_bundle):
    return open_bundle(tiny_bundle)


@pytest.fixture
def data(bundle, draw_image, tmp_path):
    """40 pictures in folders named after the fp32 network's answers, and one in each class that it never answers."""
    import onnxruntime

    path = bundle.path(bundle.artifact(["onnx"], "fp32"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for seed in range(40):
        encoded = draw_image(seed)
        logits = session.run(None, {"image": preprocess(encoded, bundle.manifest.preprocess)[None]})[0]
        folder = tmp_path / "data" / bundle.labels[int(logits.argmax())]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}.jpg").write_bytes(encoded)
    for label in bundle.labels:
        folder = tmp_path / "data" / label
        if not folder.exists():
            folder.mkdir()
            (folder / "wrong.jpg").write_bytes(draw_image(99))
    return tmp_path / "data"


def arguments(bundle, data, out, *more, calibration=None):
    paths = {"--bundle": bundle.folder, "--calibration": calibration or data, "--data": data, "--out": out}
    return [str(part) for pair in paths.items() for part in pair] + list(more)


def test_the_new_bundle_has_every_precision_and_its_measured_loss(bundle, data, tmp_path, capsys):
    before = {path: path.read_bytes() for path in bundle.folder.rglob("*") if path.is_file()}
    out = tmp_path / "small" / "7"
    assert main(arguments(bundle, data, out, "--precisions", "int8", "bf16", "fp16", "--max_top1_drop", "0.1")) == 0
    new = open_bundle(out)
    manifest = new.manifest
    assert (manifest.name, manifest.version) == ("small", "7")
    kinds = [(artifact.format, artifact.precision) for artifact in manifest.artifacts]
    assert sorted(kinds) == [("onnx", "fp16"), ("onnx", "fp32"), ("onnx", "int8")]
    assert set(manifest.golden.tolerance) == {"fp32", "int8", "bf16", "fp16"}
    assert manifest.golden.tolerance["fp32"] == bundle.manifest.golden.tolerance["fp32"]
    assert set(manifest.accuracy.top1) == {"fp32", "int8", "bf16", "fp16"}
    count = sum(1 for _ in data.rglob("*.jpg"))
    assert manifest.accuracy.top1["fp32"] == pytest.approx(40 / count)
    assert manifest.accuracy.max_top1_drop == 0.1
    assert [manifest.doubt(precision) for precision in ("fp32", "bf16", "fp16", "int8")] == [None] * 4
    out = capsys.readouterr().out
    for precision in ("fp32", "int8", "bf16", "fp16"):
        assert f"\n{precision}" in out
    assert {path: path.read_bytes() for path in before} == before, "a published bundle is never changed"


def test_earlier_measurements_on_the_same_images_are_kept(bundle, data, tmp_path):
    first, second = tmp_path / "small" / "7", tmp_path / "small" / "8"
    assert main(arguments(bundle, data, first, "--precisions", "int8", "--max_top1_drop", "0.1")) == 0
    assert main(arguments(open_bundle(first), data, second, "--precisions", "bf16", "--max_top1_drop", "0.1")) == 0
    manifest = open_bundle(second).manifest
    assert set(manifest.accuracy.top1) == {"fp32", "int8", "bf16"}
    assert manifest.doubt("int8") is None


@pytest.mark.parametrize(
    ("engine", "precision"), [("onnxruntime", "int8"), ("onnxruntime", "fp16"), ("openvino", "int8")]
)
def test_the_service_can_serve_the_new_precisions(bundle, data, tmp_path, engine, precision):
    from service.cli import main as repvgg

    out = tmp_path / "small" / "7"
    assert main(arguments(bundle, data, out, "--precisions", "int8", "fp16", "--force")) == 0
    command = ["evaluate", "--model", str(out), "--data", str(data), "--engine", engine, "--precision", precision]
    figures = tmp_path / "figures.json"
    with figures.open("w") as file:
        assert repvgg([*command, "--json"], {}, file) == 0
    found = json.loads(figures.read_text())
    assert (found["engine"], found["precision"]) == (engine, precision)
    assert found["top1"] == pytest.approx(open_bundle(out).manifest.accuracy.top1[precision], abs=0.05)


@pytest.fixture
def black(tmp_path):
    """Calibration images that are nothing like real ones."""
    folder = tmp_path / "black"
    folder.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "black.png")
    return folder


def test_a_precision_that_loses_too_much_is_rejected_and_nothing_is_written(bundle, data, black, tmp_path, capsys):
    out = tmp_path / "small" / "7"
    wrong = arguments(bundle, data, out, "--precisions", "int8", calibration=black)
    assert main(wrong) == 1
    err = capsys.readouterr().err
    assert "int8 loses" in err
    assert "nothing is written" in err
    assert not out.parent.exists()
    assert main([*wrong, "--force"]) == 0
    assert "int8 loses" in open_bundle(out).manifest.doubt("int8")


@pytest.fixture
def large(bundle, draw_image, tmp_path):
    """Just enough large photos, distributed over the classes, and a small one in each class."""
    for index, label in enumerate(bundle.labels):
        folder = tmp_path / "large" / label
        folder.mkdir(parents=True)
        (folder / "small.jpg").write_bytes(draw_image(0))
        for seed in range(index, MIN_LARGE_PHOTOS, len(bundle.labels)):
            (folder / f"{seed}.jpg").write_bytes(draw_image(seed, "JPEG", (203, 151)))
    return tmp_path / "large"


def test_fast_pixels_are_measured_on_large_photos(bundle, data, large, tmp_path, capsys):
    """The figures are recomputed photo by photo."""
    out = tmp_path / "small" / "7"
    flags = ("--precisions", "bf16", "--fast_pixels", str(large), "--max_top1_drop", "1", "--force")
    assert main(arguments(bundle, data, out, *flags)) == 0
    engine = open_engine(bundle.path(bundle.artifact(["onnx"], "fp32")), "CPU", 0)
    rows = []
    for path in large.rglob("*.jpg"):
        if path.name != "small.jpg":
            pair = [
                preprocess(path.read_bytes(), bundle.manifest.preprocess, pixels=kind) for kind in ("exact", "fast")
            ]
            rows.append((bundle.labels.index(path.parent.name), *engine.infer(np.stack(pair)).argmax(axis=1)))
    truth, exact, fast = np.array(rows).T
    measured = open_bundle(out).manifest.accuracy.fast_pixels
    assert measured.images == MIN_LARGE_PHOTOS == len(rows)
    assert (measured.agreement, measured.exact_top1, measured.fast_top1) == (
        pytest.approx(np.mean(exact == fast)),
        pytest.approx(np.mean(exact == truth)),
        pytest.approx(np.mean(fast == truth)),
    )
    assert f"fast pixels: {measured}" in capsys.readouterr().out
    again = tmp_path / "small" / "8"
    assert main(arguments(open_bundle(out), data, again, "--precisions", "bf16")) == 0
    assert open_bundle(again).manifest.accuracy.fast_pixels == measured, "the new bundle keeps what the old one has"


def test_fast_pixels_that_change_too_much_are_rejected_and_nothing_is_written(bundle, data, large, tmp_path, capsys):
    (large / bundle.labels[0] / "0.jpg").unlink()  # one too few
    out = tmp_path / "small" / "7"
    wrong = arguments(bundle, data, out, "--precisions", "bf16", "--fast_pixels", str(large))
    assert main(wrong) == 1
    assert "measured on 149 large photos; at least 150 are needed: nothing is written" in capsys.readouterr().err
    assert not out.parent.exists()
    assert main([*wrong, "--force"]) == 0
    assert "measured on 149 large photos" in open_bundle(out).manifest.doubt_of_fast_pixels()


def test_fast_pixels_need_photos_large_enough_to_change(bundle, data, tmp_path, capsys):
    assert main(arguments(bundle, data, tmp_path / "b" / "2", "--precisions", "bf16", "--fast_pixels", str(data))) == 66
    assert f"--fast_pixels {data} holds no photo large enough for fast pixels to change it" in capsys.readouterr().err


def test_data_that_the_bundle_was_not_evaluated_on_is_reported(bundle, data, tmp_path, capsys):
    manifest = bundle.manifest
    known = manifest.model_copy(update={"training": manifest.training.model_copy(update={"top1": 0.123})})
    copy = tmp_path / "copy" / "1"
    copy.mkdir(parents=True)
    for path in bundle.folder.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(bundle.folder)).parent.mkdir(exist_ok=True)
            (copy / path.relative_to(bundle.folder)).write_bytes(path.read_bytes())
    (copy / "manifest.json").write_text(known.to_json())
    assert main(arguments(open_bundle(copy), data, tmp_path / "b" / "2", "--precisions", "bf16")) == 0
    assert "the manifest says 12.30% for fp32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--out": "."}, 78, "exists: a published bundle is never changed"),
        ({"--out": "bad name/ü"}, 78, "must end in NAME/VERSION"),
        ({"--bundle": "nowhere"}, 66, "no model bundle at nowhere"),
        ({"--calibration": "nowhere"}, 66, "nowhere holds no images"),
        ({"--data": "nowhere"}, 66, "nowhere is not a folder"),
        ({"--images": "0"}, 78, "at least 1 image"),
    ],
)
def test_a_user_error_is_named(bundle, data, tmp_path, monkeypatch, capsys, change, code, words):
    monkeypatch.chdir(tmp_path)
    flags = arguments(bundle, data, tmp_path / "out" / "2", "--precisions", "int8", "--images", "8")
    for flag, value in change.items():
        flags[flags.index(flag) + 1] = value
    assert main(flags) == code
    assert words in capsys.readouterr().err


def test_a_pipe_among_the_images_is_named_and_does_not_block(bundle, data, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "pipe.png")
    flags = arguments(bundle, data, tmp_path / "out" / "2", "--precisions", "int8", calibration=tmp_path / "images")
    assert main(flags) == 66
    assert "pipe.png cannot be read: not a regular file" in capsys.readouterr().err


def test_labels_need_not_be_in_the_order_of_the_folders(bundle, data, tmp_path):
    names = {label: f"{100 - number} {label}" for number, label in enumerate(bundle.labels)}
    for label, name in names.items():
        (data / label).rename(data / name)
    renamed = Path(shutil.copytree(bundle.folder, tmp_path / "renamed" / "1"))
    text = "".join(f"{name}\n" for name in names.values())
    (renamed / "labels.txt").write_text(text)
    manifest = json.loads((renamed / "manifest.json").read_text())
    manifest["labels"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (renamed / "manifest.json").write_text(json.dumps(manifest))

    out = tmp_path / "small" / "7"
    assert main(arguments(open_bundle(renamed), data, out, "--precisions", "bf16", "--force")) == 0
    assert open_bundle(out).manifest.accuracy.top1["fp32"] == pytest.approx(40 / sum(1 for _ in data.rglob("*.jpg")))


def test_other_classes_than_those_of_the_bundle_are_named(bundle, data, tmp_path, capsys):
    (data / bundle.labels[0]).rename(data / "other")
    assert main(arguments(bundle, data, tmp_path / "small" / "7")) == 66
    assert (
        f"must have the classes of the bundle: it lacks {bundle.labels[0]}; it alone has other"
        in capsys.readouterr().err
    )


def test_quantize_needs_no_mindspore():
    program = "import sys; sys.modules['mindspore'] = None; import training.quantize"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_checksums_are_those_of_the_files(bundle, data, tmp_path):
    out = tmp_path / "small" / "7"
    assert main(arguments(bundle, data, out, "--precisions", "fp16")) == 0
    new = open_bundle(out)
    artifact = new.artifact(["onnx"], "fp16")
    assert hashlib.sha256(new.path(artifact).read_bytes()).hexdigest() == artifact.sha256
