from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.preprocess import SUFFIXES, decode
from repvgg_client.images import MAX_BATCH_BYTES, batches, encode_all
from repvgg_client.images import SUFFIXES as CLIENT_SUFFIXES


def names(images: Any) -> list[str | None]:
    return [image.name for image in encode_all(images)]


def test_encoded_images_are_sent_unchanged(tmp_path: Path, jpeg_bytes: bytes) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg_bytes)
    found = list(encode_all([jpeg_bytes, file, str(file)]))
    assert [image.content for image in found] == [jpeg_bytes] * 3
    assert [image.name for image in found] == [None, str(file), str(file)]
    assert list(encode_all(jpeg_bytes)) == found[:1]
    assert list(encode_all(file)) == found[1:2]


def test_pixels_are_sent_losslessly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for images in (pixels, [pixels], pixels[None], iter([pixels]), Image.fromarray(pixels)):
        (image,) = encode_all(images)
        assert np.array_equal(np.asarray(decode(image.content)), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_of_pillow_can_be_sent(mode: str) -> None:
    (image,) = encode_all(Image.new(mode, (4, 3)))
    assert decode(image.content).size == (4, 3)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_the_error_for_a_mode_without_a_white_suggests_rgb(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode {mode} does not define which value is white: convert it to RGB"):
        list(encode_all(Image.new(mode, (4, 3))))


def test_the_orientation_is_kept(draw_image: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = BytesIO()
    Image.open(BytesIO(draw_image(0))).save(encoded, "JPEG", exif=exif)
    (image,) = encode_all(Image.open(encoded))
    assert np.array_equal(np.asarray(decode(image.content)), np.asarray(decode(encoded.getvalue())))


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3), np.float32), np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4), np.uint8), 5, None]
)
def test_the_error_for_other_arrays_states_the_right_shape(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"pixels must be uint8 of shape \(H, W, 3\), RGB, not"):
        list(encode_all([wrong]))


def test_a_folder_stands_for_the_images_that_the_servers_tools_would_find(tmp_path: Path) -> None:
    assert CLIENT_SUFFIXES == SUFFIXES
    for name in ("b.PNG", "a.jpg", "sub/c.webp", "notes.txt", ".hidden.jpg", ".cache/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names(tmp_path) == [str(tmp_path / name) for name in ("a.jpg", "b.PNG", "sub/c.webp")]


def test_a_folder_without_images_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no images in the folder"):
        names(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        names(tmp_path / "none.jpg")


def test_a_batch_is_limited_in_number_and_in_bytes() -> None:
    half, whole = bytes(MAX_BATCH_BYTES // 2), bytes(MAX_BATCH_BYTES + 1)
    assert [len(batch) for batch in batches([b"x"] * 7, 3)] == [3, 3, 1]
    assert [len(batch) for batch in batches([half, half, b"x", whole, b"x"], 9)] == [2, 1, 1, 1]
    assert list(batches([], 3)) == []


def test_at_most_one_batch_is_in_memory_at_a_time() -> None:
    taken = []
    stream = batches((taken.append(number) or b"x" for number in range(100)), 4)  # type: ignore[func-returns-value]
    next(stream)
    assert len(taken) == 5
