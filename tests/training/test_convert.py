"""`training.convert` as a user runs it; what the weights become is tested in deploy/test_conversion.py."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.published_weights import random_reference, spell
from training import convert
from weights import sources
from weights.variants import VARIANTS

ROOT = Path(__file__).parents[2]
CLASSES = 5


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "training.convert", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_one_command_turns_official_weights_into_a_bundle(write_file, draw_image, tmp_path):
    import onnx
    from onnx.reference import ReferenceEvaluator

    from models import golden
    from models.preprocess import preprocess
    from models.store import open_bundle

    variant = VARIANTS["RepVGG-A0"]
    reference = random_reference(variant, CLASSES)
    path = write_file(spell(reference, "pytorch", "train"), "pytorch")
    (tmp_path / "images").mkdir()
    drawing = draw_image(0, "PNG", (300, 260))
    (tmp_path / "images" / "drawing.png").write_bytes(drawing)
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    out = tmp_path / "store" / "mine" / "1"
    names = ("--from", "pytorch", "--arch", "RepVGG-A0", "--weights", path, "--labels", tmp_path / "labels.txt")
    done = run(*names, "--golden", tmp_path / "images", "--out", out)
    assert done.returncode == 0, done.stderr

    bundle = open_bundle(out)
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, bundle.labels) == ("mine", "1", ("ant", "bee", "cat", "dog", "eel"))
    assert {(a.format, a.precision, a.batch) for a in manifest.artifacts} == {
        ("onnx", "fp32", "dynamic"),
        ("mindir", "fp32", "dynamic"),
    }
    assert manifest.preprocess == sources.published_preprocess(sources.SOURCES["pytorch"], "RepVGG-A0")
    assert (manifest.training.top1, manifest.training.top5) == (None, None)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in manifest.training.recipe

    tensors, logits = golden.load(bundle)
    np.testing.assert_array_equal(tensors, preprocess(drawing, manifest.preprocess)[None])
    np.testing.assert_allclose(logits, reference(tensors), atol=1e-4, rtol=0)
    model = ReferenceEvaluator(onnx.load(bundle.path(bundle.artifact(["onnx"], "fp32"))))
    np.testing.assert_allclose(model.run(None, {"image": tensors})[0], logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--arch", "RepVGG-A9"), 78, "did you mean 'RepVGG-A"),
        (("--arch", "RepVGG-Tiny"), 78, "only its recipe defines its preprocessing"),
        (
            ("--arch", "RepVGGplus-L2pse"),
            78,
            "RepVGGplus-L2pse is not supported: its blocks have squeeze-and-excitation",
        ),
        (("--reset_classifier", "--ema"), 78, "--reset_classifier is for --checkpoint: a bundle needs a classifier"),
        (("--labels", "gone.txt"), 66, "labels gone.txt cannot be read"),
        (("--weights", "gone.pth"), 66, "gone.pth cannot be read"),
        (("--weights", "gone.ckpt"), 66, "checkpoint gone.ckpt does not exist"),
        (("--out", "."), 78, ". exists: a published bundle is never changed"),  # reported before gone.pth is opened
        (("--from", "keras"), 2, "invalid choice: 'keras'"),
        (("--checkpoint", "net.ckpt"), 2, "argument --checkpoint: not allowed with argument --out"),
    ],
)
@pytest.mark.usefixtures("cpu")
def test_a_user_error_is_one_line_and_an_exit_code_and_nothing_is_written(capsys, tmp_path, more, code, words):
    flags = {"--from": "pytorch", "--arch": "RepVGG-A0", "--weights": "gone.pth", "--out": str(tmp_path / "net" / "1")}
    flags |= {more[0]: more[1]}
    try:
        found = convert.main([text for pair in flags.items() for text in pair])
    except SystemExit as leaving:
        found = leaving.code
    assert found == code
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stripes(draw_image_folder, tmp_path):
    """-> common flags of the training verbs: two classes, images of the smallest size for the network."""
    keys = {
        "arch": "RepVGG-A0",
        "num_classes": 2,
        "data_url": draw_image_folder(tmp_path / "data", {"train": 2, "val": 1}),
        "image_size": 32,
        "interpolation": "bilinear",
        "epochs": 1,
        "batch_size": 4,
        "device_target": "CPU",
        "save_dir": tmp_path / "runs",
    }
    return [text for key, value in keys.items() for text in (f"--{key}", str(value))]


def official_weights(write_file, tmp_path, classes):
    """-> the flags of `training.convert` except the one for its result."""
    path = write_file(spell(random_reference(VARIANTS["RepVGG-A0"], classes), "pytorch", "train"), "pytorch")
    (tmp_path / "labels.txt").write_text("".join(f"class {number}\n" for number in range(classes)))
    given = ("--from", "pytorch", "--arch", "RepVGG-A0", "--weights", path, "--labels", tmp_path / "labels.txt")
    return [str(flag) for flag in given]


def test_a_converted_checkpoint_gives_the_same_bundle_as_converting_directly(
    write_file, draw_image, stripes, tmp_path, capsys
):
    from models import golden
    from models.store import open_bundle
    from training import eval as evaluation
    from training import export
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    weights = official_weights(write_file, tmp_path, 2)
    (tmp_path / "labels.txt").write_text("across\ndown\n")  # those of the images
    start, direct, again = (str(tmp_path / name) for name in ("start.ckpt", "direct/1", "again/1"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "drawing.png").write_bytes(draw_image(0, "PNG", (256, 256)))
    images = ("--golden", str(tmp_path / "images"))
    assert convert.main([*weights, "--checkpoint", start]) == 0
    assert "recipe keys of its source: image_size: 224, interpolation: bilinear, crop_pct: 0.875" in (
        capsys.readouterr().out
    )
    assert convert.main([*weights, "--out", direct, *images]) == 0
    pretrained = [*stripes, "--pretrained", start]
    assert export.main([*pretrained, "--image_size", "224", "--bundle", again, *images]) == 0
    assert evaluation.main(pretrained) == 0
    assert "images: 2" in capsys.readouterr().out
    parameters, saved = repvgg.weights(repvgg.build("RepVGG-A0", 2)), checkpoint.read(Path(start))
    del saved["about"]
    assert checkpoint.start_from(parameters, saved, reset_classifier=False, source=Path(start)) == []

    (tensors, logits), (others, expected) = (golden.load(open_bundle(Path(folder))) for folder in (again, direct))
    np.testing.assert_array_equal(tensors, others)
    np.testing.assert_array_equal(logits, expected)


def test_training_for_other_classes_starts_from_a_checkpoint(write_file, stripes, tmp_path, capsys):
    from training import train

    weights, start = official_weights(write_file, tmp_path, CLASSES), str(tmp_path / "start.ckpt")
    assert convert.main([*weights, "--checkpoint", start]) == 0
    pretrained = [*stripes, "--pretrained", start]
    assert train.main(pretrained) == 66
    assert "--reset_classifier True loads all other weights" in capsys.readouterr().err
    assert train.main([*pretrained, "--reset_classifier", "True"]) == 0
    assert f"of {start}; new: classifier.weight, classifier.bias" in capsys.readouterr().out
    assert (tmp_path / "runs" / "RepVGG-A0-ImageNet" / "best.ckpt").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("start.pth", "the name of a checkpoint must end in .ckpt"),
        ("old.ckpt", "old.ckpt exists: choose a new"),
    ],
)
def test_a_checkpoint_is_a_new_file(tmp_path, capsys, name, words):
    (tmp_path / "old.ckpt").write_text("precious")
    flags = ["--from", "mindcv", "--arch", "RepVGG-A0", "--weights", str(tmp_path / "old.ckpt")]
    assert convert.main([*flags, "--checkpoint", str(tmp_path / name)]) == 78
    assert words in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.ckpt", "precious")]


def test_help_needs_no_framework():
    program = (
        "import sys, training.convert\n"
        "try: training.convert.main(['--help'])\n"
        "except SystemExit: print('mindspore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
