import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np

from models.manifest import Preprocess
from models.preprocess import preprocess as pixels_of
from training import preprocess

ROOT = Path(__file__).parents[2]
KEYS = ["--num_classes", "2", "--image_size", "24", "--crop_pct", "0.75", "--batch_size", "4", "--mean", "0.5,0.4,0.3"]


def run(data, result, *more):
    return preprocess.main(["--data_url", str(data), "--result_path", str(result), *KEYS, *more])


def test_each_file_holds_the_pixels_that_the_service_feeds_to_the_network(image_folder, tmp_path, capsys):
    result = tmp_path / "deep" / "out"
    assert run(image_folder, result) == 0
    assert "out: 18 images of ImageNet, each float32 (3, 24, 24)" in capsys.readouterr().out
    found = json.loads((result / "label" / "label.json").read_text())
    assert found["num_classes"] == 2
    assert list(found["labels"].values()) == [0] * 9 + [1] * 9
    assert {path.stem for path in (result / "img_data").iterdir()} == set(found["labels"])
    assert stat.S_IMODE(result.stat().st_mode) == 0o755

    std = (0.229, 0.224, 0.225)
    spec = Preprocess(input_size=24, interpolation="bicubic", crop_pct=0.75, mean=(0.5, 0.4, 0.3), std=std)
    photos = sorted((image_folder / "val").rglob("*.jpg"))
    for photo, name in zip(photos, found["labels"], strict=True):
        raw = (result / "img_data" / f"{name}.bin").read_bytes()
        assert raw == pixels_of(photo.read_bytes(), spec).tobytes()


def test_images_of_a_published_data_set_are_written_the_same_way(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (5, 3073), np.uint8)
    records[:, 0] = [3, 1, 4, 1, 5]
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"class{number}" for number in range(10)))
    assert run(tmp_path, tmp_path / "out", "--set", "CIFAR10", "--num_classes", "10") == 0
    labels = json.loads((tmp_path / "out" / "label" / "label.json").read_text())["labels"]
    assert list(labels.items())[:2] == [("CIFAR10_000000", 3), ("CIFAR10_000001", 1)]
    assert {path.stat().st_size for path in (tmp_path / "out" / "img_data").iterdir()} == {3 * 24 * 24 * 4}


def test_a_broken_image_leaves_no_files(image_folder, tmp_path, capsys):
    (image_folder / "val" / "down" / "008.jpg").write_text("no image")
    assert run(image_folder, tmp_path / "out") == 66
    assert "down/008.jpg: not a readable image" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_old_and_new_files_never_mix(image_folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert run(image_folder, tmp_path / "out") == 1
    assert "out exists: remove it or choose another folder" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_pre_and_postprocessing_need_no_framework():
    """An inference host has no MindSpore. This checks what the running program imports from outside Python."""
    program = (
        "import sys\n"
        "for name in ('mindspore', 'onnx', 'onnxruntime', 'fastapi'): sys.modules[name] = None\n"
        "import training.preprocess, training.postprocess\n"
        "print(*{name.partition('.')[0] for name, module in sys.modules.items() if module} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    pydantic = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    outside = {name for name in done.stdout.split() if not name.startswith(("_", "cython"))}
    assert outside == {"models", "weights", "training", "numpy", "PIL", "yaml", "tqdm"} | pydantic
