"""TIFF samples of any layout -> 8-bit pixels.

Pillow and libtiff only decompress: the directory describes the data as 8-bit grey, one byte per pixel. The bytes are
interpreted here, one band of rows at a time. Byte order, predictor, planes, WhiteIsZero, extra samples, and integers
and floats of any size take the same path.

Integers are scaled by their type: the largest value is white, negative values are black. If all 32-bit or 64-bit
integers of a picture fit into 17 bits, they are 16-bit samples in wider words, as Pillow and others write them.

Floats range over 0..1 and are clipped; if more than SHARE_ABOVE of them are above 2, they range over 0..255. NaN and
infinities are black.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.formats.directory import longs, shorts, under_directory
from models.formats.opening import damaged

SHARE_ABOVE = 0.05
_BAND_BYTES = 1 << 20
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_WHITE_IS_0, _PALETTE, _CMYK = 0, 3, 5
_ASSOCIATED, _UNASSOCIATED, _COREL_DRAW = 1, 2, 999
_HORIZONTAL, _FLOATING = 2, 3
_UNCOMPRESSED = 1
_PREDICTED = frozenset({5, 8, 32946, 34925, 50000})
_16_BITS_IN_WIDER = 1 << 17

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How samples are stored in a TIFF. `bits` and `format` are 0 if the samples of a pixel differ. A block is a strip
    or a tile. Of a pixel's `samples`, the first `colours` are colour; `extra` gives the kinds of the others."""

    order: str
    width: int
    height: int
    photometric: int
    compression: int
    bits: int
    format: int
    samples: int
    colours: int
    extra: tuple[int, ...]
    planar: bool
    predictor: int
    fill_order: int
    colour_map: tuple[int, ...]
    tiled: bool
    block_width: int
    block_height: int
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def is_readable(self) -> bool:
        if self.photometric not in (0, 1, 2, 3, 5):
            return False
        if self.format == _FLOAT:
            return self.bits in (16, 32, 64) and self.photometric != _PALETTE
        return self.bits in (*range(1, 17), 32, 64) and (self.photometric != _PALETTE or self.bits <= 16)

    @property
    def alpha(self) -> int | None:
        """Index of the alpha sample."""
        if self.photometric == 2 and self.samples == 4 and not self.extra:
            return 3  # as in Pillow: some programs omit the tag
        kinds = (_ASSOCIATED, _UNASSOCIATED, _COREL_DRAW)
        return next((self.colours + place for place, kind in enumerate(self.extra) if kind in kinds), None)

    @property
    def premultiplied(self) -> bool:
        return self.alpha is not None and _ASSOCIATED in self.extra[self.alpha - self.colours :][:1]

    @property
    def row_samples(self) -> int:
        """Samples of one pixel that are stored together."""
        return 1 if self.planar else self.samples

    @property
    def row_bytes(self) -> int:
        """Bytes per row of a block."""
        return (self.block_width * self.row_samples * self.bits + 7) // 8

    @property
    def block_bytes(self) -> int:
        return self.row_bytes * self.block_height

    @property
    def rows_at_once(self) -> int:
        """Rows per band: whole blocks, but uncompressed strips can be split anywhere."""
        if self.raw:
            return max(1, _BAND_BYTES // self.row_bytes)
        return self.block_height * max(1, _BAND_BYTES // (self.block_bytes * self.across))

    @property
    def band_bytes(self) -> int:
        return self.rows_at_once * self.row_bytes * self.across

    @property
    def sample_bytes(self) -> int:
        """Of all blocks, decompressed."""
        return self.block_bytes * self.across * self.down * (self.samples if self.planar else 1)

    @property
    def raw(self) -> bool:
        return self.compression == _UNCOMPRESSED and not self.tiled

    @property
    def across(self) -> int:
        return -(-self.width // self.block_width)

    @property
    def down(self) -> int:
        return -(-self.height // self.block_height)

    @property
    def dtype(self) -> np.dtype[Any]:
        """For samples of whole bytes."""
        return np.dtype(f"{self.order}{'f' if self.format == _FLOAT else 'u'}{self.bits // 8}")


def picture_mode(layout: Layout) -> str:
    """The mode of the image that `read_samples` returns."""
    if layout.photometric == _CMYK and layout.alpha is None:
        return "CMYK"
    mode = "L" if layout.colours == 1 and layout.photometric != _PALETTE else "RGB"
    return mode + "A" if layout.alpha is not None and not layout.premultiplied else mode


def read_samples(encoded: bytes, layout: Layout) -> Image.Image:
    """-> an image of `picture_mode`. May raise anything."""
    mode, white = picture_mode(layout), _white(encoded, layout)
    picture = np.empty((layout.height, layout.width, len(mode)), np.uint8)
    for top, band in _bands(encoded, layout):
        picture[top : top + len(band)] = _to_8_bits(band, layout, white)
    return Image.frombytes(mode, (layout.width, layout.height), picture.data)


def _bands(encoded: bytes, layout: Layout) -> Iterator[tuple[int, Array]]:
    """(first row, array of (rows, width, samples) in native byte order)"""
    for top in range(0, layout.height, layout.rows_at_once):
        rows = min(layout.rows_at_once, layout.height - top)
        planes = range(layout.samples if layout.planar else 1)
        yield top, np.concatenate([_plane(encoded, layout, plane, top, rows) for plane in planes], axis=2)


def _plane(encoded: bytes, layout: Layout, plane: int, top: int, rows: int) -> Array:
    """(rows, width, samples stored together)"""
    read = _raw_rows if layout.raw else _decompressed_rows
    content = read(encoded, layout, plane, top, rows).reshape(rows, layout.across, layout.row_bytes)
    if layout.bits % 8:
        values = _unpack(content, layout)
    elif layout.predictor == _FLOATING and layout.compression in _PREDICTED:
        values = _undo_floating(content, layout)
    else:
        values = _undo_horizontal(content.view(layout.dtype), layout)
    rows_of_values: Array = values.reshape(rows, layout.across * layout.block_width, layout.row_samples)
    return rows_of_values[:, : layout.width]


def _raw_rows(encoded: bytes, layout: Layout, plane: int, top: int, rows: int) -> Array:
    pieces = []
    for strip in range(top // layout.block_height, (top + rows - 1) // layout.block_height + 1):
        first = max(top - strip * layout.block_height, 0)
        last = min(top + rows - strip * layout.block_height, layout.block_height)
        offset = layout.offsets[plane * layout.down + strip]
        pieces.append(encoded[offset + first * layout.row_bytes : offset + last * layout.row_bytes])
    content: Array = np.frombuffer(b"".join(pieces), np.uint8)
    return content if layout.fill_order == 1 else np.packbits(np.unpackbits(content, bitorder="little"))


def _decompressed_rows(encoded: bytes, layout: Layout, plane: int, top: int, rows: int) -> Array:
    """Decompressed by Pillow, which sees the blocks as a picture of 8-bit grey."""
    first = plane * layout.across * layout.down + top // layout.block_height * layout.across
    count = -(-rows // layout.block_height) * layout.across
    offsets, lengths = layout.offsets[first : first + count], layout.lengths[first : first + count]
    if layout.compression == _UNCOMPRESSED:
        lengths = (layout.block_bytes,) * count
    if not len(offsets) == len(lengths) == count:
        raise damaged("TIFF")
    pieces = [encoded[offset : offset + length] for offset, length in zip(offsets, lengths, strict=True)]
    if layout.compression == _UNCOMPRESSED and any(len(piece) < layout.block_bytes for piece in pieces):
        raise damaged("TIFF")  # otherwise the directory after them would be read as pixels
    file = _grey_file(pieces, layout, rows)
    return np.asarray(Image.open(BytesIO(file), formats=("TIFF",)))


def _grey_file(pieces: list[bytes], layout: Layout, rows: int) -> bytes:
    ends = np.cumsum([8, *map(len, pieces)]).tolist()
    sizes, order = [len(piece) for piece in pieces], layout.order
    tags = {256: longs(order, layout.across * layout.row_bytes), 257: longs(order, rows), 258: shorts(order, 8)}
    tags |= {259: shorts(order, layout.compression), 262: shorts(order, 1), 266: shorts(order, layout.fill_order)}
    tags |= {277: shorts(order, 1)}
    if layout.tiled:
        tags |= {322: longs(order, layout.row_bytes), 323: longs(order, layout.block_height)}
        tags |= {324: longs(order, *ends[:-1]), 325: longs(order, *sizes)}
    else:
        tags |= {273: longs(order, *ends[:-1]), 278: longs(order, layout.block_height), 279: longs(order, *sizes)}
    return under_directory(order, b"".join(pieces), tags)


def _unpack(content: Array, layout: Layout) -> Array:
    """Unpacks samples of any number of bits, most significant bit first."""
    used = layout.block_width * layout.row_samples * layout.bits
    bits = np.unpackbits(content, axis=2)[:, :, :used].reshape(*content.shape[:2], -1, layout.bits)
    values = np.zeros(bits.shape[:3], np.uint32)
    for place in range(layout.bits):
        values = values << np.uint32(1) | bits[..., place]
    if layout.format != _SIGNED:
        return values
    half = 1 << (layout.bits - 1)
    signed: Array = (values.astype(np.int32) ^ half) - half
    return signed


def _undo_horizontal(values: Array, layout: Layout) -> Array:
    """TIFF 6.0, section 14: each sample is the difference from its left neighbour within the block."""
    whole: Array = values.view(layout.dtype.str.replace("f", "u")).astype(f"u{layout.bits // 8}")
    if layout.predictor == _HORIZONTAL and layout.compression in _PREDICTED:
        whole = whole.reshape(*whole.shape[:2], layout.block_width, layout.row_samples)
        whole = np.cumsum(whole, axis=2, dtype=whole.dtype)
    kind = {_SIGNED: "i", _FLOAT: "f"}.get(layout.format, "u")
    return whole.view(f"{kind}{layout.bits // 8}")


def _undo_floating(content: Array, layout: Layout) -> Array:
    """Adobe, TIFF Technical Note 3: differences of bytes, the most significant bytes of a row first."""
    rows, across, _ = content.shape
    size, together = layout.bits // 8, layout.row_samples
    sums = np.cumsum(content.reshape(rows, across, -1, together), axis=2, dtype=np.uint8)
    planes = sums.reshape(rows, across, size, -1).swapaxes(2, 3)
    floats: Array = np.ascontiguousarray(planes).view(f">f{size}")[..., 0]
    return floats.astype(f"f{size}")


def _white(encoded: bytes, layout: Layout) -> float:
    """The value of white. For wide samples and floats, it depends on the whole picture."""
    if layout.format != _FLOAT and layout.bits <= 16:
        return float((1 << (layout.bits - (layout.format == _SIGNED))) - 1)
    greatest, above = 0.0, 0
    for _, band in _bands(encoded, layout):
        colours = band[:, :, : layout.colours]
        greatest = max(greatest, float(colours.max()))
        above += int(np.count_nonzero(np.isfinite(colours) & (colours > 2)))
    if layout.format == _FLOAT:
        return 255.0 if above > SHARE_ABOVE * layout.width * layout.height * layout.colours else 1.0
    return 65535.0 if greatest < _16_BITS_IN_WIDER else float((1 << (layout.bits - (layout.format == _SIGNED))) - 1)


def _to_8_bits(band: Array, layout: Layout, white: float) -> Array:
    """(rows, width, samples) -> uint8 (rows, width, channels of `picture_mode`)"""
    colours = _scale(band[:, :, : layout.colours], white)
    if layout.photometric == _PALETTE:
        table = np.array(layout.colour_map, np.uint32).reshape(3, -1).T
        colours = ((table * 255 + 32767) // 65535).astype(np.uint8)[band[:, :, 0]]
    elif layout.photometric == _WHITE_IS_0:
        colours = 255 - colours
    if layout.alpha is None:
        return colours
    if layout.photometric == _CMYK:
        ink, black = 255 - colours[:, :, :3].astype(np.uint32), 255 - colours[:, :, 3:].astype(np.uint32)
        colours = ((ink * black + 127) // 255).astype(np.uint8)
    alpha = _scale(band[:, :, layout.alpha :][:, :, :1], white)
    if not layout.premultiplied:
        return np.concatenate([colours, alpha], axis=2)
    if layout.photometric in (_WHITE_IS_0, _CMYK):
        return colours  # premultiplied ink over white: this is the result
    over_white: Array = np.minimum(colours.astype(np.uint16) + (255 - alpha), 255)
    return over_white.astype(np.uint8)


def _scale(samples: Array, white: float) -> Array:
    """0..white -> 0..255, rounded."""
    with np.errstate(invalid="ignore"):  # it would warn of signalling NaNs on stderr
        values = samples.astype(np.float64 if samples.dtype.itemsize > 2 else np.float32)
    np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
    np.clip(values, 0.0, white, out=values)
    values *= 255.0 / white
    return np.rint(values, out=values).astype(np.uint8)
