"""Real files in real processes; the crashes are staged in the reader, since no file is known to crash Pillow."""

import os
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.manifest import Preprocess
from training.data.datasets import scan
from training.data.layouts.published import ImageArrays
from training.data.verification import problems, verify
from training.errors import DataError, TrainingError

SPEC = Preprocess(input_size=32, interpolation="bicubic", crop_pct=1.0, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))

CRASHING = """
import json, os, signal, sys
print("ready", flush=True)
for line in sys.stdin:
    if "crash" in line:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "leave" in line:
        sys.exit(3)
    print(json.dumps("broken" if "broken" in line else None), flush=True)
"""


def splits(root):
    return scan(root / "train", 2), scan(root / "val", 2)


@pytest.mark.parametrize("depth", ["headers", "pixels"])
def test_all_broken_files_of_train_and_val_are_named(image_folder, depth):
    broken = [
        image_folder / name
        for name in ("train/across/003.jpg", "train/down/017.jpg", "val/across/001.jpg", "val/down/008.jpg")
    ]
    broken[0].write_bytes(broken[0].read_bytes()[:300])
    broken[1].write_text("no image")
    broken[2].write_bytes(b"")
    broken[3].unlink()
    broken[3].symlink_to("missing.jpg")
    with pytest.raises(DataError, match=r"^4 broken images; repair or remove:\n") as caught:
        verify(splits(image_folder), SPEC, depth, 2)
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(": ")[0].strip() for line in lines] == [str(path) for path in broken]
    assert lines[3].endswith("cannot be read: No such file or directory")


def test_the_list_of_broken_files_is_bounded(image_folder):
    for number in range(130):
        (image_folder / "val" / "down" / f"broken{number:03}.png").write_text("no image")
    with pytest.raises(DataError, match=r"^130 broken images") as caught:
        verify(splits(image_folder), SPEC, "pixels", 2)
    lines = str(caught.value).splitlines()
    assert lines[100].startswith(f"  {image_folder}/val/down/broken099.png: ")
    assert lines[101:] == ["  and 30 more"]


def test_a_truncated_body_is_found_when_pixels_are_read(image_folder):
    path = image_folder / "train" / "across" / "003.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    verify(splits(image_folder), SPEC, "headers", 2)
    with pytest.raises(DataError, match=r"1 broken image;.*\n.*003\.jpg: the JPEG data is broken or truncated"):
        verify(splits(image_folder), SPEC, "pixels", 2)


def test_a_picture_that_is_too_long_and_thin_to_be_resized_is_broken(image_folder):
    Image.new("RGB", (1, 60_000)).save(image_folder / "val" / "down" / "thin.png")
    with pytest.raises(DataError, match=r"thin\.png: an image of 1 x 60000 pixels is too long and thin"):
        verify(splits(image_folder), SPEC, "headers", 2)


def test_a_pipe_with_an_images_name_does_not_block(image_folder):
    os.mkfifo(image_folder / "val" / "down" / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg: cannot be read: not a regular file"):
        verify(splits(image_folder), SPEC, "pixels", 2)


def test_file_names_of_any_bytes_are_read_and_printed(image_folder):
    folder = os.fsencode(image_folder / "train" / "down")
    for name in (b"\xff good.jpg", b"two\nlines.jpg"):
        with open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118, PTH123  # pathlib takes no bytes
            file.write((image_folder / "train" / "down" / "000.jpg").read_bytes())
    verify(splits(image_folder), SPEC, "pixels", 2)
    with open(os.path.join(folder, b"\xff\nbad.jpg"), "wb"):  # noqa: PTH118, PTH123
        pass
    with pytest.raises(DataError, match=r"down/\\udcff\\nbad\.jpg: the image is empty"):
        verify(splits(image_folder), SPEC, "pixels", 2)


def test_every_format_that_the_service_reads_is_trained_on(image_folder):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    for suffix in ("png", "webp", "gif", "bmp", "tiff"):
        picture.save(image_folder / "train" / "down" / f"picture.{suffix}")
    verify(splits(image_folder), SPEC, "pixels", 2)


def test_shards_share_the_files(image_folder):
    (image_folder / "val" / "across" / "000.jpg").write_text("no image")  # the 65th file
    verify(splits(image_folder), SPEC, "headers", 1, num_shards=3, shard_id=0)
    with pytest.raises(DataError, match="1 broken image"):
        verify(splits(image_folder), SPEC, "headers", 1, num_shards=3, shard_id=1)


def test_published_arrays_need_no_check(tmp_path):
    arrays = ImageArrays(tmp_path, ("a", "b"), np.zeros((2, 4, 4), np.uint8), np.arange(2, dtype=np.int32))
    verify((arrays, arrays), SPEC, "pixels", 2)


@pytest.mark.parametrize("readers", [1, 3])
def test_a_file_whose_decoder_crashes_is_named_and_the_others_are_still_read(tmp_path, readers):
    names = [f"{number}" for number in range(300)]
    names[7], names[8], names[150], names[299] = "crash1", "broken", "leave", "crash2"
    found = list(problems([tmp_path / name for name in names], [sys.executable, "-c", CRASHING], readers))
    assert {name: problem for name, problem in zip(names, found, strict=True) if problem} == {
        "crash1": "its decoder crashed (SIGSEGV)",
        "broken": "broken",
        "leave": "its decoder crashed (exit status 3)",
        "crash2": "its decoder crashed (SIGSEGV)",
    }


def test_a_reader_that_does_not_start_is_an_error_and_not_a_broken_image(tmp_path):
    with pytest.raises(TrainingError, match=r"the process that reads image files does not start: exit status 5"):
        list(problems([tmp_path / "a"], [sys.executable, "-c", "raise SystemExit(5)"], 1))


def test_no_process_is_left_behind(image_folder):
    def children():
        return {pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}

    before = children()
    verify(splits(image_folder), SPEC, "pixels", 2)
    list(problems([image_folder / "crash"], [sys.executable, "-c", CRASHING], 2))
    with closing(problems([image_folder] * 300, [sys.executable, "-c", CRASHING], 2)) as unfinished:
        next(unfinished)
        assert len(children() - before) == 2
    assert children() <= before
