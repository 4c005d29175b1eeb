"""Shared by all formats: opening a file with Pillow, and images that need more than Pillow to decode."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from models.errors import ImageError
from models.formats.bounds import BoundedFile

# Of a colour profile. The largest ones in use, for printing presses, have 2 to 3 MB.
MAX_PROFILE_BYTES = 4 << 20
_BAND_PIXELS = 1 << 20


class Statements(NamedTuple):
    """What metadata states about a picture: its EXIF orientation (1 to 8) and its ICC profile."""

    orientation: int = 1
    profile: bytes | None = None


SILENT = Statements()
# Image.open would try all plugins for each image.
_PLUGINS: dict[str, Callable[[IO[bytes]], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}


def open_with_pillow(encoded: bytes, image_format: str, stated: Statements = SILENT) -> Image.Image:
    """The header only. May raise anything."""
    return with_statements(_PLUGINS[image_format](BoundedFile(encoded)), stated)


def with_statements(image: Image.Image, stated: Statements) -> Image.Image:
    """Leaves only these statements in `info`, and what belongs to the pixels."""
    kept: dict[str, Any] = {key: image.info[key] for key in ("transparency", "interlace") if key in image.info}
    image.info.clear()  # in place: the PNG plugin keeps a second reference
    image.info.update(kept | {"orientation": stated.orientation})
    if stated.profile:
        image.info["icc_profile"] = stated.profile
    return image


class LateImage(Image.Image):
    """An image of known size. `read` decodes its pixels when they are first needed."""

    def __init__(
        self, image_format: str, mode: str, size: tuple[int, int], read: Callable[[], Image.Image], stated: Statements
    ) -> None:
        super().__init__()
        self.format, self._mode, self._size, self._read = image_format, mode, size, read
        with_statements(self, stated)

    def load(self) -> Any:
        if self._im is None:
            self.im = self._read().im
        return super().load()


def inflate(compressed: bytes, most: int) -> bytes | None:
    """At most `most` bytes; None if there are more, or if the zlib stream is broken or incomplete."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(compressed, most)
    except zlib.error:
        return None
    return content if stream.eof else None


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, a few rows). Arrays of the whole picture would take more memory than the picture."""
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


class HeaderError(Exception):
    """The header is damaged. `models.preprocess` turns this into the ImageError for the client."""


def damaged(image_format: str) -> ImageError:
    return ImageError("undecodable_image", f"the {image_format} data is broken or truncated")


def unsupported(kind: str, instead: str = "save it as an ordinary JPEG or PNG") -> ImageError:
    """`kind` includes its article: "a 12-bit JPEG"."""
    return ImageError("undecodable_image", f"this is {kind}, which is not supported: {instead}")
