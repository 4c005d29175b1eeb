"""Conversion from an embedded ICC profile to sRGB, by LittleCMS.

1. broken profiles, and profiles for another colour model than the picture's, are ignored;
2. profiles that equal sRGB to within SAME levels are ignored, at the cost of a cache look-up;
3. a transform is built once per profile. The last TRANSFORMS are kept, and threads share them: LittleCMS does not
   modify a transform while applying it.

The rendering intent is perceptual, the default of LittleCMS and ImageMagick. Matrix profiles, as cameras, phones and
screens use them, give the same result with every intent.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

TRANSFORMS = 8
# Of 255. Profiles for sRGB differ in how they round its curve.
SAME = 2
_INTENT = ImageCms.Intent.PERCEPTUAL
# ICC.1:2022, 7.2: the profile's class and colour space, and the signature. The other classes are device links
# and named colours.
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_CLASSES = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})
_GREYS = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "F"})
# Modes that an RGB profile applies to.
_COLOURS = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"})
_PROFILE = "icc_profile"


class _Conversion(NamedTuple):
    """Conversion to sRGB: a LittleCMS transform, or a table for grey."""

    transform: ImageCms.ImageCmsTransform | None
    table: list[int]


def keep_matching_profile(image: Image.Image) -> str | None:
    """Remove a profile from `info` unless it applies to images of this mode.

    Returns the mode that it applies to (L, RGB or CMYK), or None.
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
    """RGB or CMYK with a matching profile in `info` -> sRGB; unchanged without a profile. A grey profile applies to a
    grey picture in RGB.

    Blocks; releases the GIL.
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
    """None for sRGB, and for profiles that LittleCMS cannot read."""
    space = _space(profile)
    assert space is not None  # checked by keep_matching_profile
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    # With optimisation, LittleCMS uses a coarse table for grey that halves the lightness of dark pixels.
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
    """Whether it changes none of 9 x 9 x 9 colours by more than SAME."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    converted = np.asarray(transform.apply(Image.fromarray(colours)))
    return bool(np.abs(converted.astype(np.int16) - colours).max() <= SAME)
