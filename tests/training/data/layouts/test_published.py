"""Tiny files in the publishers' formats."""

import gzip
import struct

import numpy as np
import pytest

from training.data.layouts.published import cifar10, cifar100, fashion_mnist
from training.errors import DataError

TEN = [f"class{number}" for number in range(10)]


def cifar_file(path, labels, seed=0):
    """Records as published: the bytes of `labels`, then 1024 red, 1024 green, 1024 blue pixels. -> RGB pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    path.write_bytes(b"".join(bytes(label) + image.tobytes() for label, image in zip(labels, pixels, strict=True)))
    return pixels.transpose(0, 2, 3, 1)


def idx_file(path, array, magic=None):
    content = magic or bytes([0, 0, 8, array.ndim])
    content += struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def cifar10_folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    for number in range(1, 6):
        cifar_file(folder / f"data_batch_{number}.bin", [[number], [9]], seed=number)
    cifar_file(folder / "test_batch.bin", [[3]], seed=6)
    return folder


@pytest.fixture
def fashion_folder(tmp_path):
    rng = np.random.default_rng(0)
    for prefix, count, suffix in (("train", 5, ".gz"), ("t10k", 3, "")):
        idx_file(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 28, 28), np.uint8))
        idx_file(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count, dtype=np.uint8))
    return tmp_path


def test_cifar10_is_read_from_its_binary_files(cifar10_folder):
    expected = cifar_file(cifar10_folder / "data_batch_5.bin", [[5], [9]], seed=5)
    train, val = cifar10(cifar10_folder, "train"), cifar10(cifar10_folder.parent, "val")
    assert train.classes == tuple(TEN)
    assert train.labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    np.testing.assert_array_equal(train.arrays[-2:], expected)
    np.testing.assert_array_equal(np.asarray(train.picture(9, "srgb")), expected[1])
    assert (len(val), val.labels.tolist()) == (1, [3])


def test_cifar100_takes_the_fine_label(tmp_path):
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine{number}" for number in range(100)))
    expected = cifar_file(tmp_path / "train.bin", [[7, 99], [1, 0]])
    images = cifar100(tmp_path, "train")
    assert (images.labels.tolist(), len(images.classes)) == ([99, 0], 100)
    np.testing.assert_array_equal(np.asarray(images.picture(0, "srgb")), expected[0])


@pytest.mark.parametrize(("split", "count"), [("train", 5), ("val", 3)])
def test_fashion_mnist_is_read_gzipped_or_not(fashion_folder, split, count):
    images = fashion_mnist(fashion_folder, split)
    assert images.labels.tolist() == list(range(count))
    assert images.kept_picture(0, "srgb").size == (28, 28)
    assert images.picture(0, "srgb").mode == "RGB"
    np.testing.assert_array_equal(np.asarray(images.picture(1, "srgb"))[..., 2], images.arrays[1])
    assert images.classes[-1] == "Ankle boot"


def test_a_missing_file_is_named(cifar10_folder, tmp_path):
    (cifar10_folder / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin cannot be read: No such file"):
        cifar10(cifar10_folder, "train")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte cannot be read"):
        fashion_mnist(tmp_path, "train")


def test_a_short_file_is_named(cifar10_folder):
    path = cifar10_folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_batch\.bin has 3072 bytes, .* record size of 3073 bytes"):
        cifar10(cifar10_folder, "val")


def test_a_label_without_a_class_is_named(cifar10_folder):
    cifar_file(cifar10_folder / "test_batch.bin", [[10]])
    with pytest.raises(DataError, match=r"test_batch\.bin has the label 10, but there are 10 classes"):
        cifar10(cifar10_folder, "val")


def spoil(change):
    def apply(path):
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("t10k-images-idx3-ubyte", lambda b: b"\0\0\x09\x03" + b[4:], r"magic 00000903 instead of 00000803"),
        ("t10k-labels-idx1-ubyte", lambda b: b"", r"labels-idx1-ubyte is not the expected idx file"),
        (
            "t10k-images-idx3-ubyte",
            lambda b: b[:-5],
            r"has 2363 bytes, but its header promises 2368 \(shape \(3, 28, 28",
        ),
        ("t10k-labels-idx1-ubyte", lambda b: b"\0\0\x08\x01\0\0\0\x02\1\1", "3 t10k images but 2 labels"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0b", "has the label 11, but there are 10 classes"),
    ],
)
def test_a_foreign_idx_file_is_named(fashion_folder, file, change, words):
    spoil(change)(fashion_folder / file)
    with pytest.raises(DataError, match=words):
        fashion_mnist(fashion_folder, "val")


def test_a_truncated_gzip_file_is_named(fashion_folder):
    spoil(lambda content: content[:-9])(fashion_folder / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match=r"idx3-ubyte\.gz is not a complete gzip file"):
        fashion_mnist(fashion_folder, "train")
