"""Encoded image bytes -> RGB pixels -> input tensor. The only such code in the product.

1. pixels are counted from the header, before anything is decoded;
2. whatever is wrong with the bytes is an ImageError, never another exception;
3. metadata never decides whether a picture is read: see models.formats, one module per file format;
4. EXIF orientation is applied, and an embedded colour profile is converted to sRGB if the spec says so;
5. grey, palette, alpha (over white), 16-bit, float and CMYK become RGB;
6. the same bytes and spec give the same tensor in training's evaluation and in the service;
7. the same files of a folder count as images in both;
8. a decoder's work for a file is bounded: see models.formats.bounds;
9. no file writes to the log or to stderr;
10. `fast` pixels equal `exact` ones, except for JPEGs far larger than the tensor, where they are nearly equal.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, _imaging

from models.errors import ImageError
from models.formats.bmp import open_bmp
from models.formats.gif import open_gif
from models.formats.jpeg import open_jpeg
from models.formats.png import open_png
from models.formats.tiff import open_tiff
from models.formats.webp import open_webp
from models.manifest import Icc, Pixels, Preprocess
from models.pixels.color import keep_matching_profile, to_srgb
from models.pixels.resizing import resize_part
from models.pixels.signatures import what_it_is

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# How a file begins -> the function that opens it.
_OPENERS: dict[bytes, Callable[[bytes, int], Image.Image]] = {
    rb"\xff\xd8\xff": open_jpeg,
    rb"\x89PNG\r\n\x1a\n": open_png,
    rb"RIFF....WEBP": open_webp,
    rb"GIF8[79]a": open_gif,
    rb"BM": open_bmp,
    rb"II|MM": open_tiff,
}
MAX_IMAGE_PIXELS = 50_000_000
# The decoder leaves at least this many times the spec's short side. Its own scaling is a coarse filter, so the spec's
# filter must still have work to do: at 1 crops are off by 1.98 of 255, at 2 by 0.52. At 3 it is 0.27, but a photo of 12
# megapixels takes nearly twice as long as at 2 (benchmarks/LOG.md).
FAST_MARGIN = 2

# Our own limit (an argument, checked before decoding) replaces Pillow's process-wide one, which warns on
# stderr from 89 megapixels on and raises only at twice that.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about odd metadata of pictures that it reads anyway: a server cannot act on that, and the text has the
# client's bytes in it, so that each warning would be printed and remembered separately.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# libtiff writes a line to stderr for every damaged line of a fax, and Pillow logs what it does not support: a small
# file could fill the disk with its log, or with a pipe that nobody reads stop the threads that decode.
if _set_handler := getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None):
    _set_handler(None)
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# Find all formats now, not in the first threads that meet a rare one.
Image.init()

SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)

_ROUND: dict[str, Callable[[float], int]] = {"floor": math.floor, "round": round}
_FILTER = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# EXIF 2.32, tag 0x0112: what undoes each orientation (1 is upright).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (
    *(Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE),
    *(Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
)

# Left, top, right and bottom, in pixels of an upright photo.
Box = tuple[float, float, float, float]


def images_in(folder: Path) -> Iterator[Path]:
    """Files in `folder` that look like images, at any depth; hidden files and folders are skipped."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        yield from (path for path in paths if path.suffix.lower() in SUFFIXES)


def read_file(path: Path) -> bytes:
    """The content of a file of `images_in`. Raises OSError, also for a pipe, which might block forever, or a device."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def open_image(encoded: bytes, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """Read the header only; the pixels stay undecoded. The result's `format` is one of FORMATS.

    Raises ImageError: `undecodable_image` for anything that is not an image of FORMATS, `too_many_pixels` over
    `max_pixels`.
    """
    if not encoded:
        raise ImageError("undecodable_image", "the image is empty (0 bytes)")
    opener = next((opener for begins, opener in _OPENERS.items() if re.match(begins, encoded, re.DOTALL)), None)
    if opener is None:
        raise _no_image(encoded)
    try:
        image = opener(encoded, max_pixels)
    except ImageError:
        raise
    except Exception as error:  # hostile headers raise anything: OSError, SyntaxError, struct.error, ...
        raise _no_image(encoded) from error
    width, height = image.size
    if min(width, height) <= 0:
        raise _no_image(encoded)
    if width * height > max_pixels:
        raise ImageError(
            "too_many_pixels",
            f"the image has {width} x {height} = {width * height} pixels, the limit is {max_pixels}",
        )
    return image


def _no_image(encoded: bytes) -> ImageError:
    hint = what_it_is(encoded)
    detail = f"not a readable image; formats: {', '.join(FORMATS)}" + (f"; {hint}" if hint else "")
    return ImageError("undecodable_image", detail)


def decode(encoded: bytes, max_pixels: int = MAX_IMAGE_PIXELS, icc: Icc = "srgb") -> Image.Image:
    """Encoded image -> upright 8-bit RGB image (first frame), in sRGB unless `icc` is "ignore". Raises ImageError."""
    return to_srgb(read_pixels(open_image(encoded, max_pixels), icc=icc))


def read_pixels(image: Image.Image, fast: Preprocess | None = None, icc: Icc = "srgb") -> Image.Image:
    """An image as `open_image` gives it -> upright 8-bit RGB image (first frame). Raises ImageError.

    With `fast`, a JPEG far larger than that spec needs is resized as it says. A profile for RGB or grey is not applied
    yet but stays in `info` for `to_tensor` or models.pixels.color.to_srgb: after the crop it costs a fraction.
    """
    if icc == "ignore":
        image.info.pop("icc_profile", None)
    turn = _UPRIGHT.get(image.info.get("orientation", 1))
    try:
        if fast:
            image = _reduce(image, fast)
        upright = _on_canvas(image) if image.format == "GIF" else to_rgb(image)
        return upright if turn is None else upright.transpose(turn)
    except ImageError:
        raise
    except MemoryError:  # the pixels were counted: the server is short of memory; the image is not at fault
        raise
    except Exception as error:  # as above: the decoders of hostile bytes raise anything
        raise ImageError("undecodable_image", f"the {image.format} data is broken or truncated") from error


def _reduce(image: Image.Image, spec: Preprocess) -> Image.Image:
    """A JPEG decoded at the smallest of 1/2, 1/4 and 1/8 that leaves FAST_MARGIN times the spec's short side, and
    resized from there; any other image as it is.

    The size is that of the whole picture, and the box where it lies in the reduced one, whose last row and column may
    reach beyond it: sized by the reduced one, crops were off by five times as much.
    """
    size, least = image.size, FAST_MARGIN * spec.resize_size
    drafted = image.draft(None, (least, least))
    if drafted is None or image.size == size:
        return image
    return to_rgb(image).resize(resized_size(size, spec), _FILTER[spec.interpolation], box=drafted[1])


def _on_canvas(image: Image.Image) -> Image.Image:
    """A GIF's first frame -> RGB of the whole canvas, transparent outside the frame. Pillow shows palette entry 0."""
    assert isinstance(image, ImageFile.ImageFile)
    frame = image.tile[0].extents
    rgb = to_rgb(image)
    if frame in (None, (0, 0, *rgb.size)):
        return rgb
    canvas = Image.new("RGB", rgb.size, "white")
    canvas.paste(rgb.crop(frame), frame)
    canvas.info.update(rgb.info)  # a profile
    return canvas


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB. 16-bit grey is scaled by 1/257; transparency is laid over white.

    A matching profile is kept in `info` for models.pixels.color.to_srgb. A profile of CMYK is applied, since RGB has no
    place for its inks, and so is that of semi-transparent pixels.
    """
    image.load()
    if image.mode == "L" and image.format in ("GIF", "BMP") and "icc_profile" in image.info:
        image = image.convert("P")  # as it is in the file: a palette of greys, which the profile tints
    space = keep_matching_profile(image)
    profile = image.info.get("icc_profile")
    if space == "CMYK":
        return to_srgb(image)
    if image.mode.startswith("I"):
        image = _grey_to_8_bit(image)
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        if profile and any(layer.getchannel("A").histogram()[1:255]):
            layer, profile = _in_srgb(layer, profile), None
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if profile:
        rgb.info["icc_profile"] = profile
    return rgb


def _in_srgb(layer: Image.Image, profile: bytes) -> Image.Image:
    """RGBA with semi-transparent pixels, which are blended with white in sRGB, as in browsers. Opaque and clear pixels
    need no conversion first: white is white in both."""
    colours = layer.convert("RGB")
    colours.info["icc_profile"] = profile
    converted = to_srgb(colours)
    converted.putalpha(layer.getchannel("A"))
    return converted


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (I, I;16, I;16B: 0..65535), in place, since 50 megapixels take 200 MB for each float32 copy."""
    grey = np.array(image, np.float32)
    white = 65535.0
    if "transparency" in image.info:
        grey[grey == image.info["transparency"]] = white
    np.clip(grey, 0.0, white, out=grey)
    grey *= 255.0 / white
    return Image.fromarray(np.rint(grey, out=grey).astype(np.uint8))


def at_size(spec: Preprocess, size: int) -> Preprocess:
    """The same preprocessing for another image size: the same part of a photo, with more pixels."""
    resize_to = spec.resize_to and round(spec.resize_to * size / spec.input_size)
    return spec.model_copy(update={"input_size": size, "resize_to": resize_to})


def resized_size(size: tuple[int, int], spec: Preprocess) -> tuple[int, int]:
    """Width and height of an image of `size` after the resize, pixels.

    Raises ImageError for a side ratio at which the resized image, cut only afterwards, would fill the memory.
    """
    short = spec.resize_size
    if spec.resize == "squash":
        return short, short
    width, height = size
    long_side = _ROUND[spec.long_side_rounding](short * max(width, height) / min(width, height))
    if short * long_side > MAX_IMAGE_PIXELS:
        raise ImageError("too_many_pixels", f"an image of {width} x {height} pixels is too long and thin to be resized")
    return (short, long_side) if width <= height else (long_side, short)


def resize_and_crop(image: Image.Image, spec: Preprocess) -> Image.Image:
    """RGB image of any size -> centred square of `spec.input_size` pixels (see Preprocess for the geometry).

    Raises ImageError as `resized_size`.
    """
    size = resized_size(image.size, spec)
    return resize_part(image, size, _FILTER[spec.interpolation], _crop(size, spec))


def _crop(size: tuple[int, int], spec: Preprocess) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part that is kept of a resized image of `size`."""
    offset = _ROUND[spec.crop_offset_rounding]
    left, top = offset((size[0] - spec.input_size) / 2), offset((size[1] - spec.input_size) / 2)
    return left, top, left + spec.input_size, top + spec.input_size


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image as `open_image` gives it, once its orientation is applied."""
    turned = _UPRIGHT.get(image.info.get("orientation", 1)) in _SIDEWAYS
    return (image.height, image.width) if turned else image.size


def seen_box(size: tuple[int, int], spec: Preprocess) -> Box:
    """The part of an upright image of `size` that becomes the tensor. Raises ImageError as `resized_size`."""
    resized = resized_size(size, spec)
    left, top, right, bottom = _crop(resized, spec)
    across, down = size[0] / resized[0], size[1] / resized[1]
    return left * across, top * down, right * across, bottom * down


def to_tensor(image: Image.Image, spec: Preprocess) -> NDArray[np.float32]:
    """RGB image -> float32 (3, S, S): resized, cropped, in sRGB if the spec says so, `(pixel / 255 - mean) / std`.

    It is resized in the colours of the file, since converting 12 megapixels takes longer than all the rest. On photos
    in Display P3 that moves the crop by 0.24 of 255 on average, where the conversion itself moves it by 2.6.
    """
    crop = resize_and_crop(image, spec)
    bands = (to_srgb(crop) if spec.icc == "srgb" else crop).split()
    tensor = np.empty((3, spec.input_size, spec.input_size), np.float32)
    # In place and channel by channel, which stays in the cache: a fifth of the time.
    for channel, band, mean, std in zip(tensor, bands, spec.mean, spec.std, strict=True):
        channel[:] = np.asarray(band)
        channel -= np.float32(mean) * np.float32(255)
        channel /= np.float32(std) * np.float32(255)
    return tensor


def read_tensor(image: Image.Image, spec: Preprocess, pixels: Pixels = "exact") -> NDArray[np.float32]:
    """An image as `open_image` gives it -> float32 (3, S, S). Raises ImageError."""
    return to_tensor(read_pixels(image, spec if pixels == "fast" else None, spec.icc), spec)


def preprocess(
    encoded: bytes, spec: Preprocess, max_pixels: int = MAX_IMAGE_PIXELS, pixels: Pixels = "exact"
) -> NDArray[np.float32]:
    """Encoded image -> float32 (3, S, S). Raises ImageError."""
    return read_tensor(open_image(encoded, max_pixels), spec, pixels)
