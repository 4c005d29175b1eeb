"""Pixels under their embedded ICC profile -> sRGB, by LittleCMS.

1. a profile that is broken, or of other channels than the picture has, changes nothing;
2. nor does one that means sRGB to within SAME levels: it costs a look-up;
3. a transform is built once for each profile, the last TRANSFORMS of them are kept, and threads share them: LittleCMS
   only reads a transform while it applies it.

The intent is perceptual, LittleCMS's and ImageMagick's own choice. Profiles of three matrix columns, as cameras,
phones and screens have, mean the same under all intents.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

TRANSFORMS = 8
# Of 255: makers round the curve of sRGB in their own ways.
SAME = 2
_INTENT = ImageCms.Intent.PERCEPTUAL
# ICC.1:2022, 7.2: the profile's class and colour space, and the signature. The other classes link two devices, or
# name single colours.
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_CLASSES = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})
_GREYS = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "F"})
# The modes of an image with a profile for RGB; the other ones have a space of their own.
_COLOURS = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"})
_PROFILE = "icc_profile"


class _Conversion(NamedTuple):
    """Into sRGB: by LittleCMS, or for greys by a table."""

    transform: ImageCms.ImageCmsTransform | None
    table: list[int]


def keep_matching_profile(image: Image.Image) -> str | None:
    """The profile of `info`, if it is for pictures of this mode, is left there, any other one is taken out.

    The mode in which it takes pixels: L, RGB or CMYK; None without a profile.
    """
    profile = image.info.get(_PROFILE)
    space = _space(profile) if isinstance(profile, bytes) else None
    own = "L" if image.mode in _GREYS else "RGB" if image.mode in _COLOURS else image.mode
    if space != own:
        image.info.pop(_PROFILE, None)
        return None
    return space


def _space(profile: bytes) -> str | None:
    known = profile[12:16] in _CLASSES and profile[36:40] == b"acsp"
    return _SPACES.get(profile[16:20]) if known else None


def to_srgb(image: Image.Image) -> Image.Image:
    """RGB or CMYK with a matching profile in `info` -> RGB in sRGB; as it is without one. A profile for greys converts
    a grey picture in RGB.

    Blocks, without the interpreter's lock.
    """
    profile = image.info.pop(_PROFILE, None)
    conversion = _conversion(profile) if profile else None
    if conversion is None:
        return image
    if conversion.transform is None:
        return image.point(conversion.table * 3)
    converted = conversion.transform.apply(image)
    converted.info.pop(_PROFILE, None)
    return converted


@lru_cache(TRANSFORMS)
def _conversion(profile: bytes) -> _Conversion | None:
    """None for sRGB, and for what LittleCMS does not understand."""
    space = _space(profile)
    assert space is not None  # as keep_matching_profile has left it
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    # LittleCMS shortens the way of greys by a coarse table, which costs dark ones half of their lightness.
    flags = ImageCms.Flags.NOOPTIMIZE if space == "L" else ImageCms.Flags.NONE
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.ImageCmsTransform(source, srgb, space, "RGB", _INTENT, flags=flags)
        if space == "L":
            greys = np.arange(256, dtype=np.uint8)[None]
            return _Conversion(None, np.asarray(transform.apply(Image.fromarray(greys)))[0, :, 1].tolist())
        return None if space == "RGB" and _is_srgb(transform) else _Conversion(transform, [])
    except (OSError, ValueError, ImageCms.PyCMSError):
        return None


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Does it change none of 9 x 9 x 9 colours by more than SAME?"""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    converted = np.asarray(transform.apply(Image.fromarray(colours)))
    return bool(np.abs(converted.astype(np.int16) - colours).max() <= SAME)
