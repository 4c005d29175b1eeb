"""Small folders of drawn images, files of weights, and MindSpore set up for the tests."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.torch_files import TorchFile
from training.run.distributed import device


@pytest.fixture(scope="session")
def cpu():
    """Sets up MindSpore on CPU; every test that imports MindSpore needs this fixture."""
    device.prepare("CPU", 0)


def drawn_jpeg(class_id: int, seed: int, size: int = 32) -> bytes:
    """Stripes in random colours whose direction is the class: a network learns them in seconds."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:size, 0:size]
    wave = np.sin((down if class_id % 2 else across) * rng.uniform(0.8, 1.2) + rng.uniform(0, 6))
    pixels = 127 + 100 * wave[..., None] * rng.uniform(0.3, 1, 3) + rng.normal(0, 10, (size, size, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def draw_jpeg():
    """(class 0 or 1, seed, size) -> the bytes of a JPEG."""
    return drawn_jpeg


@pytest.fixture(scope="session")
def draw_image_folder():
    """(root, {split: images per class}) -> root, filled with <split>/<across|down>/*.jpg."""

    def draw(root: Path, per_class: dict[str, int]) -> Path:
        seeds = itertools.count()
        for split, count in per_class.items():
            for class_id, name in enumerate(("across", "down")):
                folder = root / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    (folder / f"{index:03}.jpg").write_bytes(drawn_jpeg(class_id, next(seeds)))
        return root

    return draw


@pytest.fixture
def image_folder(draw_image_folder, tmp_path):
    """train/ with 2 x 32 and val/ with 2 x 9 images of the classes `across` and `down`."""
    return draw_image_folder(tmp_path / "data", {"train": 32, "val": 9})


@pytest.fixture
def torch_file():
    return TorchFile()


@pytest.fixture
def write_file(cpu, torch_file, tmp_path):
    """(arrays, source) -> a file in the format of this source."""

    def write(arrays, source):
        if source == "pytorch":
            pieces = {f"module.{name}": torch_file.tensor(array) for name, array in arrays.items()}
            return torch_file.zipped(tmp_path / "net.pth", torch_file.dict_of({"model": torch_file.dict_of(pieces)}))
        if source == "timm":
            from safetensors.numpy import save_file

            save_file(arrays, tmp_path / "net.safetensors")
            return tmp_path / "net.safetensors"
        import mindspore as ms

        path = tmp_path / f"{source}.ckpt"
        ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()], str(path))
        return path

    return write
