import numpy as np
import pytest
from PIL import Image, ImageEnhance

from models.manifest import Preprocess
from training.own.photos.collection import Photo
from training.own.photos.duplicates import Pair, groups, pairs
from training.own.photos.looking import look

SPEC = Preprocess(input_size=8, interpolation="bicubic", crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def copies_of(tmp_path):
    def found(*contents: bytes) -> set[tuple[int, int, bool]]:
        paths = [tmp_path / f"{number}.jpg" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        looks = look(paths, [SPEC], lambda tensor: tensor.reshape(1, -1), "look")
        return set(pairs(looks))

    return found


def test_equal_files_and_the_same_photo_in_another_size_compression_or_brightness_belong_together(
    copies_of, draw_photo, encode
):
    for seed in range(20):
        image = draw_photo((200, 90, 60), seed, (240, 180))
        again = [image.resize((120, 90)), ImageEnhance.Brightness(image).enhance(1.15)]
        found = copies_of(encode(image), encode(image), encode(image, 40), *map(encode, again))
        assert {pair[:2] for pair in found} == {(a, b) for a in range(5) for b in range(a + 1, 5)}
        assert {pair[:2] for pair in found if pair[2]} == {(0, 1)}


def test_photos_of_the_same_thing_do_not(copies_of, draw_photo, encode):
    assert copies_of(*(encode(draw_photo((200, 90, 60), seed)) for seed in range(60))) == set()


def test_plain_photos_of_other_colours_are_no_copies(copies_of, encode):
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    red.putpixel((10, 10), (0, 0, 0))
    assert copies_of(encode(red), encode(blue), encode(blue)) == {(1, 2, True)}


def test_among_real_photos_few_are_called_copies(flowers):
    looks = look(sorted(flowers.rglob("*.jpg")), [SPEC], lambda tensor: tensor.reshape(1, -1), "look")
    assert len(pairs(looks)) <= 1


def test_groups_and_copies_are_joined():
    photos = [Photo(None, "a", group=group) for group in ("x", None, "x", None, "y")]
    found = groups(photos, [Pair(1, 4, equal=True)])
    assert found[0] == found[2]
    assert found[1] == found[4]
    assert len(np.unique(found)) == 3
