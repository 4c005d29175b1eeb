"""Photos as people have them: drawn ones, and 300 real flowers where they are."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

FLOWERS = Path(__file__).parents[4] / "shared" / "data" / "flowers300.tar"
COLOURS = {"lemon": (230, 220, 60), "lime": (90, 190, 60), "plum": (110, 50, 130)}


def photo_of(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Blobs around a colour before a random ground: easy to tell apart by colour, and no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    ground = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    mask = Image.fromarray((rng.random((6, 8)) > 0.4).astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    ground.paste(Image.new("RGB", size, colour), mask=mask.filter(ImageFilter.GaussianBlur(2)))
    return ground


@pytest.fixture(scope="module", autouse=True)
def no_engine_is_checked():
    """At its end the command opens and times the new bundle with every engine, each in a process, which takes 5 to
    28 s of CPU. A test that asks about that takes `every_engine_is_checked`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.own.command.engines", lambda folder: [])
        yield


@pytest.fixture
def every_engine_is_checked(no_engine_is_checked, monkeypatch):
    from training.own.publishing.bundle import engines

    monkeypatch.setattr("training.own.command.engines", engines)


@pytest.fixture(scope="session")
def draw_photo():
    """(colour, seed, size) -> a Pillow image."""
    return photo_of


@pytest.fixture(scope="session")
def draw_photos():
    """(root, photos per class, classes) -> root, filled with <class>/*.jpg of different photos."""

    def draw(root: Path, count: int = 20, classes: tuple[str, ...] = tuple(COLOURS), first: int = 0) -> Path:
        for number, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            for index in range(count):
                seed = first + 1000 * number + index
                photo_of(COLOURS[name], seed).save(root / name / f"{index:03}.jpg", quality=90)
        return root

    return draw


@pytest.fixture
def photos(draw_photos, tmp_path):
    """20 photos of each of three fruits."""
    return draw_photos(tmp_path / "fruit")


@pytest.fixture(scope="session")
def flowers(tmp_path_factory) -> Path:
    if not FLOWERS.is_file():
        pytest.skip(f"{FLOWERS} is not here: 300 real photos that are not part of the repository")
    root = tmp_path_factory.mktemp("photos")
    with tarfile.open(FLOWERS) as archive:
        archive.extractall(root, filter="data")
    return root / "flowers300"


@pytest.fixture(scope="session")
def encode():
    """(image, quality) -> JPEG bytes."""

    def encoded(image: Image.Image, quality: int = 90) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()

    return encoded
