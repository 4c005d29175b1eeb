"""Training hands the network the tensor that the service makes of the same file, bit for bit.

Compared with all augmentation off (`crop: padded`, `crop_padding: 0`, `hflip: 0`), for every format, EXIF orientation
and pixel mode that the service reads. Where the crop is random, the pixels that it is taken from are the service's.
"""

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.preprocess import decode, preprocess
from training.config import build

pytestmark = pytest.mark.usefixtures("cpu")

ORIENTATION = 0x112
MODES = {
    "JPEG": ("L", "RGB", "RGB with profile", "CMYK"),
    "PNG": (
        "1",
        "L",
        "LA",
        "P",
        "P with tRNS",
        "L with tRNS",
        "RGB",
        "RGB with tRNS",
        "RGB with profile",
        "RGBA",
        "I;16",
    ),
    "WEBP": ("RGB", "RGB with profile", "RGBA"),
    "GIF": ("L", "P", "P with tRNS"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGB with profile", "RGBA", "CMYK", "I;16", "F"),
}
WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF")
OFF = {"crop": "padded", "crop_padding": 0, "hflip": 0, "color_jitter": 0}
GEOMETRIES = {
    "as stored": {"image_size": 48, "crop_pct": 1.0},
    "centre of a larger photo": {"image_size": 32, "crop_pct": 0.875},
    "enlarged": {"image_size": 96, "crop_pct": 0.9, "interpolation": "bilinear"},
}


def picture(mode, size=(64, 48)):
    """Another colour in each corner, and noise; half of it transparent where the mode can say so."""
    width, height = size
    rng, (down, across) = np.random.default_rng(0), np.mgrid[0:height, 0:width]
    pixels = np.dstack([across * 3, down * 4, 255 - across * 2]) + rng.integers(0, 32, (height, width, 1))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray((across * 4).clip(0, 255).astype(np.uint8)))
        return image.convert(mode)
    if mode == "I;16":
        return Image.fromarray((across * 1000 + down).astype(np.uint16))
    if mode == "F":
        return Image.fromarray((across / width).astype(np.float32))
    return image.quantize(64) if mode.startswith("P") else image.convert(mode.partition(" with ")[0])


def swapped_profile():
    """sRGB with red and blue exchanged: nobody can mistake the colours that it makes for those of the file."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")


def save(path, format_, mode, **options):
    image = picture(mode)
    if mode.endswith("with tRNS"):
        options["transparency"] = image.getpixel((3, 3))
    if mode.endswith("with profile"):
        options["icc_profile"] = swapped_profile()
    image.save(path, format_, **options)


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """<folder>/<train|val>/<a|b>: a file for each format, mode and orientation; the two classes hold the same."""
    root = tmp_path_factory.mktemp("matrix")
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (root / name).mkdir(parents=True)
        for format_, modes in MODES.items():
            for mode in modes:
                save(root / name / f"{mode}.{format_.lower()}", format_, mode)
        for format_ in WITH_EXIF:
            for orientation in range(1, 9):
                path = root / name / f"orientation {orientation}.{format_.lower()}"
                save(path, format_, "RGB", exif=exif(orientation))
    return root


def config(root, **keys):
    return build({"data_url": str(root), "set": "ImageFolder", "num_classes": 2, "batch_size": 8} | keys, source="test")


def trained_on(images, settings):
    """-> float32 (N, 3, S, S) of the images that an epoch has, and their indices."""
    from training.data.pipeline import epoch_order, train_batches

    batches = list(train_batches(images, settings, 0))
    return np.concatenate([batch["image"].asnumpy() for batch in batches]), epoch_order(images, settings, 0)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_without_augmentation_training_sees_the_services_tensors(files, geometry):
    from training.data.pipeline import evaluation_spec, open_split

    settings = config(files, **OFF, **GEOMETRIES[geometry])
    images, spec = open_split(settings, "train"), evaluation_spec(settings)
    tensors, order = trained_on(images, settings.model_copy(update={"batch_size": 2}))
    assert sorted(order) == list(range(2 * (sum(map(len, MODES.values())) + 8 * len(WITH_EXIF))))
    for tensor, index in zip(tensors, order, strict=True):
        path, _ = images.images[index]
        np.testing.assert_array_equal(tensor, preprocess(path.read_bytes(), spec), err_msg=str(path))


def test_evaluation_sees_the_services_tensors(files):
    from training.data.pipeline import evaluation_batches, evaluation_spec, open_split

    settings = config(files, image_size=32)
    images, spec = open_split(settings, "val"), evaluation_spec(settings)
    (batch,) = evaluation_batches(images, spec, len(images), 2)
    for tensor, (path, _) in zip(batch.images, images.images, strict=True):
        np.testing.assert_array_equal(tensor, preprocess(path.read_bytes(), spec), err_msg=str(path))


def test_a_colour_profile_is_applied(tmp_path):
    save(tmp_path / "a.png", "PNG", "RGB with profile")
    plain, converted = (np.asarray(picture("RGB")), np.asarray(decode((tmp_path / "a.png").read_bytes())))
    assert np.abs(plain[..., ::-1].astype(int) - converted).mean() < 3 < np.abs(plain.astype(int) - converted).mean()


def test_random_crops_are_taken_from_the_services_pixels(files):
    from training.data.images import in_colours
    from training.data.pipeline import open_split

    images = open_split(config(files), "train")
    for index, (path, _) in enumerate(images.images):
        pixels = in_colours(images.kept_picture(index, "srgb"), "srgb")
        np.testing.assert_array_equal(pixels, np.asarray(decode(path.read_bytes())), err_msg=str(path))


@pytest.mark.parametrize("size", [(64, 64), (97, 64), (64, 301)])
def test_normalisation_is_the_services_for_every_value_and_any_statistics(tmp_path, size):
    from training.data.pipeline import evaluation_spec, open_split

    rng = np.random.default_rng(0)
    for name in ("train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(tmp_path / name / "noise.png")
    for _ in range(5):
        statistics = {"mean": rng.uniform(0, 1, 3).tolist(), "std": rng.uniform(0.05, 1, 3).tolist()}
        settings = config(tmp_path, **OFF, image_size=64, crop_pct=1.0, batch_size=2, **statistics)
        images, spec = open_split(settings, "train"), evaluation_spec(settings)
        for tensor, index in zip(*trained_on(images, settings), strict=True):
            np.testing.assert_array_equal(tensor, preprocess(images.images[index][0].read_bytes(), spec))


def test_published_arrays_pass_the_same_resize_and_crop(tmp_path):
    from models.preprocess import to_tensor
    from training.data.layouts.published import ImageArrays
    from training.data.pipeline import evaluation_spec

    arrays = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    images = ImageArrays(tmp_path, ("a", "b"), arrays, np.array([0, 1, 0, 1], np.int32))
    settings = config(tmp_path, **OFF, image_size=32, batch_size=2)
    for tensor, index in zip(*trained_on(images, settings), strict=True):
        expected = to_tensor(Image.fromarray(arrays[index]).convert("RGB"), evaluation_spec(settings))
        np.testing.assert_array_equal(tensor, expected)
