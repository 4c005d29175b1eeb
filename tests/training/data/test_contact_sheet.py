import numpy as np
import pytest
from PIL import Image

from training.data.__main__ import main
from training.data.contact_sheet import CELL, caption, draw

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def test_a_caption_is_the_class_or_the_shares_of_a_mixture():
    classes = ("cat", "dog", "frog")
    assert caption(np.int32(1), classes) == ["dog"]
    assert caption(np.array([0.3, 0.0, 0.7], np.float32), classes) == ["70% frog", "30% cat"]
    assert caption(np.array([0.0, 1.0, 0.0], np.float32), classes) == ["dog"]


def test_colours_on_the_sheet_are_those_of_the_photo():
    colours = np.array([[255, 0, 0], [0, 128, 255], [10, 200, 30]], np.float32) / 255
    images = ((colours - np.float32(MEAN)) / np.float32(STD))[:, :, None, None] * np.ones((3, 3, 8, 8), np.float32)
    sheet = draw(images.astype(np.float32), [["a"], ["b"], ["c"]], MEAN, STD)
    side = 8 * -(-CELL // 8)
    found = {sheet.getpixel((x, y)) for x in range(sheet.width) for y in range(sheet.height)}
    assert {(255, 0, 0), (0, 128, 255), (10, 200, 30), (0, 0, 0)} <= found
    reds = np.asarray(sheet).reshape(-1, 3)
    assert ((reds == (255, 0, 0)).all(axis=1)).sum() == side * side


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_image_has_its_place_and_a_long_caption_stays_in_its_cell(count):
    images = np.zeros((count, 3, 16, 16), np.float32)
    sheet = draw(images, [["a very long name of a class indeed, too long"]] * count, MEAN, STD)
    grey = np.asarray(sheet) == [128, 102, 76]
    assert grey.all(axis=2).sum() == count * CELL**2
    assert (np.asarray(sheet)[:, -4:] == 255).all()  # nothing reaches the right margin


def test_notes_stand_below_the_pictures_and_inside_the_sheet():
    images = np.zeros((4, 3, 16, 16), np.float32)
    bare = draw(images, [["a"]] * 4, MEAN, STD)
    sheet = draw(images, [["a"]] * 4, MEAN, STD, ["many words " * 12, "and more"])
    assert (np.asarray(sheet)[: bare.height] == np.asarray(bare)).all()
    below = np.asarray(sheet)[bare.height :]
    assert (below < 128).any()
    assert (below[:, -2:] == 255).all()
    assert (below[-4:] == 255).all()


@pytest.mark.usefixtures("cpu")
def test_save_grid_draws_what_training_sees(image_folder, tmp_path, capsys):
    keys = ["--data_url", image_folder, "--num_classes", 2, "--image_size", 32, "--crop", "padded", "--mix_up", 0.8]
    out = tmp_path / "runs" / "out.png"
    assert main([*map(str, keys), "--save-grid", str(out), "--images", "12"]) == 0
    told = capsys.readouterr().out
    assert "12 of 64 images, as the network sees them\nNormal: you can tell the class" in told
    assert "Not normal: many pictures nearly black" in told
    with Image.open(out) as sheet:
        assert sheet.width > 3 * CELL
    wrong = tmp_path / "out.unknown"
    assert main([*map(str, keys), "--save-grid", str(wrong)]) == 1
    assert "out.unknown cannot be written" in capsys.readouterr().err
    assert main([*map(str, keys), "--batch_size", "8", "--measure"]) == 0
    assert "images/s with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "nothing to do: give --save-grid FILE.png, --save-strips FOLDER or --measure"),
        (("--save-grid", "x.png", "--images", "0"), "--images 0"),
        (("--measure", "--auto_augment", "rand-x9"), "'x9' is not understood"),
    ],
)
def test_a_user_error_is_one_line(flags, words, capsys):
    assert main([*flags]) == 78
    assert words in capsys.readouterr().err


def test_a_strip_is_a_photo_and_its_own_augmented_forms(cpu, image_folder, tmp_path, capsys):
    """Without augmentation they are all the same, whatever the order of the epochs."""
    keys = ["--set", "ImageFolder", "--data_url", str(image_folder), "--image_size", "32", "--crop_pct", "1"]
    keys += ["--crop", "padded", "--crop_padding", "0", "--hflip", "0", "--images", "6"]
    assert main([*keys, "--save-strips", str(tmp_path / "strips")]) == 0
    assert "6 images, each as it is served" in capsys.readouterr().out
    strips = sorted((tmp_path / "strips").iterdir())
    assert len(strips) == 6
    photos = []
    for path in strips:
        with Image.open(path) as strip:
            pieces = [np.asarray(strip.crop((left, 0, left + 32, 32)), float) for left in range(0, 5 * 38, 38)]
        assert len(pieces) == 5
        assert all(np.abs(piece - pieces[0]).mean() < 10 for piece in pieces)  # JPEG, across the gaps
        photos.append(pieces[0])
    assert min(np.abs(photos[0] - other).mean() for other in photos[1:]) > 15
