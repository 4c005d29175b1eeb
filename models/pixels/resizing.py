"""A part of a resized picture, without computing the rest: for square crops of photos.

1. each pixel equals, bit for bit, that of Pillow's resize of the whole picture.

Pillow resizes in two passes, first along the rows and then along the columns, and rounds to 8 bits in between; so two
calls, one for each pass, give the same result as one. A pass computes an output's weights from the position of its
centre in the picture; a part has the same weights only if it computes exactly the same centres.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

# Pillow's filters -> how far each reaches, in pixels of the smaller of both scales.
REACH = {
    Image.Resampling.BOX: 0.5,
    Image.Resampling.BILINEAR: 1.0,
    Image.Resampling.HAMMING: 1.0,
    Image.Resampling.BICUBIC: 2.0,
    Image.Resampling.LANCZOS: 3.0,
}
# Pillow keeps the edges of a box as float32, of 24 bits.
FLOAT32_EXACT = 1 << 24


@dataclass(frozen=True)
class Axis:
    """`length` pixels become `resized`, of which those from `first` to `end` are kept."""

    length: int
    resized: int
    first: int
    end: int

    @property
    def can_be_boxed(self) -> bool:
        """Are the edges of the kept part, and so its centres, exact in binary?"""
        return self.resized & (self.resized - 1) == 0 and self.length * self.resized <= FLOAT32_EXACT

    def edges(self, offset: int) -> tuple[float, float]:
        """Edges of the kept part, in a picture that begins at pixel `offset`."""
        scale = self.length / self.resized
        return self.first * scale - offset, self.end * scale - offset

    def read(self, reach: float) -> tuple[int, int]:
        """The range of pixels from which the kept part is computed, or a little more."""
        scale = self.length / self.resized
        margin = reach * max(scale, 1.0) + 1
        return max(0, int(self.first * scale - margin)), min(self.length, int(self.end * scale + margin) + 1)


def resize_part(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling, box: tuple[int, int, int, int]
) -> Image.Image:
    """`image.resize(size, resample).crop(box)`, for a box that lies inside; RGB or grey."""
    if size == image.size or resample not in REACH or _columns_first(image.size, size):
        return image.resize(size, resample).crop(box)
    across, down = Axis(image.width, size[0], box[0], box[2]), Axis(image.height, size[1], box[1], box[3])
    top, bottom = down.read(REACH[resample])
    rows = image.crop((0, top, image.width, bottom))
    return _down(_across(rows, across, resample), down, top, resample)


def _columns_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Does Pillow begin with the columns? From 13 on it does for pictures that lose far more rows than columns."""
    return before[1] - after[1] > max(0, 2 * (before[0] - after[0]))


def _across(rows: Image.Image, axis: Axis, resample: Image.Resampling) -> Image.Image:
    if axis.can_be_boxed:
        left, right = axis.edges(0)
        return rows.resize((axis.end - axis.first, rows.height), resample, (left, 0, right, rows.height))
    return rows.resize((axis.resized, rows.height), resample).crop((axis.first, 0, axis.end, rows.height))


def _down(columns: Image.Image, axis: Axis, offset: int, resample: Image.Resampling) -> Image.Image:
    if axis.can_be_boxed:
        top, bottom = axis.edges(offset)
        return columns.resize((columns.width, axis.end - axis.first), resample, (0, top, columns.width, bottom))
    # Back at their place in the picture; the black rows around them are not read for the kept ones.
    whole = columns.crop((0, -offset, columns.width, axis.length - offset))
    return whole.resize((columns.width, axis.resized), resample).crop((0, axis.first, columns.width, axis.end))
