"""Small folders of drawn images, files of weights, and MindSpore set up for the tests."""

import io
import itertools
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.run import device


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


TORCH_STORAGES = {"<f8": "Double", "<f4": "Float", "<f2": "Half", "bfloat16": "BFloat16", "<i8": "Long"}


class TorchFile:
    """Files as `torch.save` writes them, assembled from opcodes of pickle protocol 2, so that PyTorch is not needed.

    `dict_of` and `tensor` give pieces of a pickle; `zipped` and `legacy` make a file of one.
    """

    def __init__(self):
        self.storages = {}

    def text(self, text):
        return b"X" + struct.pack("<I", len(text.encode())) + text.encode()

    def integer(self, number):
        return b"\x8a\x08" + struct.pack("<q", number)

    def integers(self, numbers):
        return b"(" + b"".join(map(self.integer, numbers)) + b"t"

    def dict_of(self, pieces):
        items = b"".join(self.text(name) + piece for name, piece in pieces.items())
        return b"ccollections\nOrderedDict\n)R(" + items + b"u"

    def tensor(self, array):
        """A C-contiguous array as a tensor with a storage of its own."""
        strides = [stride // array.itemsize for stride in array.strides]
        return self.view(array.dtype.str, array.tobytes(), array.size, 0, array.shape, strides)

    def view(self, dtype, content, count, offset, shape, strides):
        key = str(len(self.storages))
        self.storages[key] = (count, content)
        kind = f"ctorch\n{TORCH_STORAGES[dtype]}Storage\n".encode()
        storage = b"(" + self.text("storage") + kind + self.text(key) + self.text("cpu") + self.integer(count) + b"tQ"
        place = self.integer(offset) + self.integers(shape) + self.integers(strides)
        hooks = b"\x89ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + hooks + b"tR"

    def zipped(self, path, piece):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + piece + b".")
            archive.writestr("archive/byteorder", "little")
            for key, (_, content) in self.storages.items():
                archive.writestr(f"archive/data/{key}", content)
            archive.writestr("archive/version", "3\n")
        return path

    def legacy(self, path, piece):
        head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
        parts = [pickle.dumps(value, 2) for value in head]
        # Here an entry for the view of a storage follows its length.
        parts += [b"\x80\x02" + piece.replace(b"tQ", b"NtQ") + b".", pickle.dumps(list(self.storages), 2)]
        parts += [struct.pack("<q", count) + content for count, content in self.storages.values()]
        path.write_bytes(b"".join(parts))
        return path


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
