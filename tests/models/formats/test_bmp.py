"""The promises of models.formats.bmp."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from models.errors import ImageError
from models.preprocess import decode, open_image
from tests.models.formats.pictures import WHITE, bmp, info_header, pixels

# Blue, green, red, and one byte that means nothing.
RED_4, GREEN_4, BLACK_4, WHITE_4 = b"\0\0\xff\0", b"\0\xff\0\0", bytes(4), b"\xff\xff\xff\0"
RED, GREEN, BLACK = [255, 0, 0], [0, 255, 0], [0, 0, 0]
TWO_24 = bytes([30, 20, 10, 60, 50, 40, 0, 0])
TWO = [[[10, 20, 30], [40, 50, 60]]]


def masks(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def core_header(width: int, height: int, bits: int) -> bytes:
    """OS/2 1."""
    return struct.pack("<IHHHH", 12, width, height, 1, bits)


def short_os2_header(width: int, height: int, bits: int, *more: int) -> bytes:
    """OS/2 2, which may end after any field; `more` are compression, size and so on."""
    fields = struct.pack(f"<iiHH{len(more)}I", width, height, 1, bits, *more)
    return struct.pack("<I", 4 + len(fields)) + fields


RIGHT = bmp(info_header(2, 1, 24), TWO_24)
HEADERS = {
    "40 bytes": RIGHT,
    "OS/2 1": bmp(core_header(2, 1, 24), TWO_24),
    "OS/2 2": bmp(info_header(2, 1, 24, length=64), TWO_24),
    "OS/2 2 in 16 bytes": bmp(short_os2_header(2, 1, 24), TWO_24),
    "OS/2 2 in 24 bytes": bmp(short_os2_header(2, 1, 24, 0, 0), TWO_24),
    "OS/2 2 in 36 bytes": bmp(short_os2_header(2, 1, 24, 0, 0, 0, 0, 0), TWO_24),
    "OS/2 2 in 48 bytes": bmp(info_header(2, 1, 24, length=48), TWO_24),
    "52 bytes": bmp(info_header(2, 1, 24, length=52), TWO_24),
    "56 bytes": bmp(info_header(2, 1, 24, length=56), TWO_24),
    "108 bytes": bmp(info_header(2, 1, 24, length=108), TWO_24),
    "124 bytes": bmp(info_header(2, 1, 24, length=124), TWO_24),
    "top-down": bmp(info_header(2, -1, 24), TWO_24),
    "a size of 0": bmp(info_header(2, 1, 24), TWO_24, size=0),
    "a size of all ones": bmp(info_header(2, 1, 24), TWO_24, size=0xFFFFFFFF),
    "no offset of the pixels": bmp(info_header(2, 1, 24), TWO_24, offset=0),
    "an offset within the header": bmp(info_header(2, 1, 24), TWO_24, offset=14),
    "an offset behind the file": bmp(info_header(2, 1, 24), TWO_24, offset=1 << 30),
    "a gap before the pixels": bmp(info_header(2, 1, 24), b"gap!" + TWO_24, offset=58),
    "bytes behind": RIGHT + b"trailing",
    "32 bits without alpha": bmp(info_header(2, 1, 32), bytes([30, 20, 10, 0, 60, 50, 40, 7])),
}


@pytest.mark.parametrize("name", HEADERS)
def test_every_header_states_the_same_picture(name: str) -> None:
    assert pixels(HEADERS[name]) == TWO


def test_rows_come_from_the_bottom_unless_the_height_is_negative() -> None:
    rows = b"\0\0\xff\0" + b"\0\xff\0\0"
    assert pixels(bmp(info_header(1, 2, 24), rows)) == [[GREEN], [RED]]
    assert pixels(bmp(info_header(1, -2, 24), rows)) == [[RED], [GREEN]]


MASKED = [
    # bits, masks, header's length, pixels, expected
    (16, (0xF800, 0x7E0, 0x1F), 40, (0xF800, 0x07E0), [RED, GREEN]),
    (16, (0xF800, 0x7E0, 0x1F), 40, (0x8410, 0x0001), [[132, 130, 132], [0, 0, 8]]),
    (16, (0x7C00, 0x3E0, 0x1F), 40, (0x7C00, 0x03E0), [RED, GREEN]),
    (16, (0xF00, 0xF0, 0xF), 40, (0x0F80, 0x0123), [[255, 136, 0], [17, 34, 51]]),
    (16, (0xF00, 0xF0, 0xF, 0xF000), 56, (0xFF00, 0x0F00), [RED, WHITE]),
    (16, (0x7C00, 0x3E0, 0x1F, 0x8000), 108, (0xFC00, 0x7C00), [RED, WHITE]),
    (32, (0xFF0000, 0xFF00, 0xFF), 40, (0x0A141E, 0xFF28323C), [[10, 20, 30], [40, 50, 60]]),
    (32, (0xFF, 0xFF00, 0xFF0000), 52, (0x1E140A, 0x3C3228), [[10, 20, 30], [40, 50, 60]]),
    (32, (0xFF000000, 0xFF0000, 0xFF00), 108, (0x0A141E00, 0x28323CFF), [[10, 20, 30], [40, 50, 60]]),
    (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 124, (0xFF0A141E, 0x330A141E), [[10, 20, 30], [206, 208, 210]]),
    (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF), 108, (0x0A141EFF, 0x0A141E00), [[10, 20, 30], WHITE]),
    (32, (0x3FF00000, 0xFFC00, 0x3FF), 40, (0x3FF00000, 0x200), [RED, [0, 0, 128]]),
    (32, (0xFF0000, 0, 0xFF), 40, (0xFFFFFF, 0xFF00), [[255, 0, 255], BLACK]),
]


@pytest.mark.parametrize(("bits", "layout", "length", "values", "expected"), MASKED)
def test_colours_under_masks_are_scaled_to_8_bits(
    bits: int, layout: tuple[int, ...], length: int, values: tuple[int, ...], expected: list[list[int]]
) -> None:
    samples = struct.pack("<2H" if bits == 16 else "<2I", *values)
    inside = length > 40
    header = info_header(2, 1, bits, 3, length=length, more=masks(*layout) if inside else b"")
    assert pixels(bmp(header, samples, between=b"" if inside else masks(*layout))) == [expected]


@pytest.mark.parametrize(
    ("bits", "layout"), [(16, (0x7C00, 0x3E0, 0x1F, 0x8000)), (32, (0xFF0000, 0xFF00, 0xFF, 255 << 24))]
)
@pytest.mark.parametrize("length", [56, 108, 124])
def test_a_picture_that_would_be_wholly_transparent_is_opaque(bits: int, layout: tuple[int, ...], length: int) -> None:
    """With one opaque pixel, the others are transparent."""
    header = info_header(2, 1, bits, 3, length=length, more=masks(*layout))
    number = "<2H" if bits == 16 else "<2I"
    assert pixels(bmp(header, struct.pack(number, layout[0], layout[1]))) == [[RED, GREEN]]
    assert pixels(bmp(header, struct.pack(number, layout[0], layout[1] | layout[3]))) == [[WHITE, GREEN]]


def test_masks_with_alpha_stand_behind_a_short_header_too() -> None:
    """Windows CE's compression 6."""
    layout = masks(0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    found = pixels(bmp(info_header(2, 1, 32, 6), struct.pack("<2I", 0xFF0A141E, 0x000A141E), between=layout))
    assert found == [[[10, 20, 30], WHITE]]


def test_16_bits_without_masks_are_5_a_colour() -> None:
    assert pixels(bmp(info_header(2, 1, 16), struct.pack("<2H", 0x7C00, 0x83E0))) == [[RED, GREEN]]


PALETTES = [
    # bits, colours stated, palette, pixels, expected
    (1, 2, RED_4 + GREEN_4, b"\x40", [RED, GREEN]),
    (1, 0, RED_4 + GREEN_4, b"\x40", [RED, GREEN]),
    (1, 2, BLACK_4 + WHITE_4, b"\x40", [BLACK, WHITE]),
    (1, 2, WHITE_4 + BLACK_4, b"\x40", [WHITE, BLACK]),
    (2, 4, RED_4 + GREEN_4 + BLACK_4 + WHITE_4, b"\x60", [GREEN, BLACK]),
    (2, 0, RED_4 + GREEN_4 + BLACK_4 + WHITE_4, b"\xb0", [BLACK, WHITE]),
    (2, 2, RED_4 + GREEN_4, b"\x10", [RED, GREEN]),
    (4, 2, BLACK_4 + WHITE_4, b"\x01", [BLACK, WHITE]),
    (4, 3, RED_4 + GREEN_4 + WHITE_4, b"\x12", [GREEN, WHITE]),
    (4, 16, b"".join(bytes([n, n, n, 0]) for n in range(16)), b"\x5a", [[5] * 3, [10] * 3]),
    (4, 0, b"".join(bytes([n, n, n, 0]) for n in range(16)), b"\x5a", [[5] * 3, [10] * 3]),
    (8, 2, BLACK_4 + WHITE_4, b"\0\1", [BLACK, WHITE]),
    (8, 3, RED_4 + GREEN_4 + WHITE_4, b"\1\2", [GREEN, WHITE]),
    (8, 1, RED_4, b"\0\7", [RED, BLACK]),
    (8, 256, b"".join(bytes([n, n, n, 0]) for n in range(256)), b"\x07\xfe", [[7] * 3, [254] * 3]),
    (8, 300, b"".join(bytes([n, 0, 0, 0]) for n in range(256)), b"\x07\xfe", [[0, 0, 7], [0, 0, 254]]),
]


@pytest.mark.parametrize(("bits", "colours", "palette", "row", "expected"), PALETTES)
def test_palettes_of_any_length_name_their_colours(
    bits: int, colours: int, palette: bytes, row: bytes, expected: list[list[int]]
) -> None:
    header = info_header(2, 1, bits, colours=colours)
    assert pixels(bmp(header, row.ljust(4, b"\0"), between=palette)) == [expected]


def test_2_bits_a_pixel_are_four_pixels_a_byte() -> None:
    palette = RED_4 + GREEN_4 + BLACK_4 + WHITE_4
    rows = b"\x1b\x40\0\0" + b"\xe4\x80\0\0"  # 0 1 2 3 1 and 3 2 1 0 2
    expected = [[WHITE, BLACK, GREEN, RED, BLACK], [RED, GREEN, BLACK, WHITE, GREEN]]
    assert pixels(bmp(info_header(5, 2, 2), rows, between=palette)) == expected
    assert pixels(bmp(info_header(5, -2, 2), rows, between=palette)) == expected[::-1]
    wide = np.random.default_rng(5).integers(0, 256, (3, 28), np.uint8)  # 110 pixels, and two that are none
    bits = np.unpackbits(wide, axis=1).reshape(3, 112, 2) @ [2, 1]
    colours = np.array([[255, 0, 0], [0, 255, 0], BLACK, WHITE])
    assert pixels(bmp(info_header(110, 3, 2), wide.tobytes(), between=palette)) == colours[bits[::-1, :110]].tolist()
    with pytest.raises(ImageError, match="the BMP data is broken or truncated"):
        decode(bmp(info_header(110, 3, 2), wide.tobytes()[:-1], between=palette))


def test_palettes_of_a_short_os_2_2_header_have_four_bytes_a_colour() -> None:
    assert pixels(bmp(short_os2_header(2, 1, 1), b"\x40\0\0\0", between=RED_4 + GREEN_4)) == [[RED, GREEN]]


def test_palettes_of_os_2_have_three_bytes_a_colour() -> None:
    found = pixels(bmp(core_header(2, 1, 1), b"\x40\0\0\0", between=b"\0\0\xff\0\xff\0"))
    assert found == [[RED, GREEN]]


@pytest.mark.parametrize(
    ("bits", "compression", "runs"),
    [
        (8, 1, b"\1\0\2\1\1\0\0\0\0\1"),
        (8, 1, b"\0\4\0\1\1\0\0\1"),
        (8, 1, b"\1\0\0\3\1\1\0\0\0\1"),
        (4, 2, b"\1\0\2\x11\1\0\0\0\0\1"),
        (4, 2, b"\4\x01\0\0\0\1"),
        (4, 2, b"\0\4\x01\x10\0\1"),
    ],
)
def test_run_lengths_are_read(bits: int, compression: int, runs: bytes) -> None:
    found = pixels(bmp(info_header(4, 1, bits, compression, colours=2), runs, between=RED_4 + GREEN_4))
    expected = [RED, GREEN, RED, GREEN] if runs[0] == 4 else [RED, GREEN, GREEN, RED]
    assert found == [expected]


RUNS = [
    # of three rows of two pixels, from the bottom; colour 0 is red, all others are green
    (b"\2\x11\0\0\0\0\2\x11\0\1", [[GREEN] * 2, [RED] * 2, [GREEN] * 2]),
    (b"\2\x11\0\1", [[RED] * 2, [RED] * 2, [GREEN] * 2]),
    (b"\0\1", [[RED] * 2] * 3),
    (b"\0\2\1\1\1\x11\0\1", [[RED] * 2, [RED, GREEN], [RED] * 2]),
    (b"\1\x11\0\2\0\2\1\x11\0\1", [[RED, GREEN], [RED] * 2, [GREEN, RED]]),
    (b"\2\x11\0\0\2\x11\0\0\2\x11", [[GREEN] * 2] * 3),
    (b"\7\x11\0\0\1\0\1\x11\0\0\2\x11\0\0\0\1", [[GREEN] * 2, [RED, GREEN], [GREEN] * 2]),
]


@pytest.mark.parametrize(("runs", "expected"), RUNS)
@pytest.mark.parametrize(("bits", "compression", "colours"), [(4, 2, 16), (8, 1, 18)])
def test_rows_and_pixels_that_runs_leave_out_have_the_first_colour(
    bits: int, compression: int, colours: int, runs: bytes, expected: list[list[list[int]]]
) -> None:
    header = info_header(2, 3, bits, compression, colours=colours)
    for gap in (b"", b"x"):  # runs are aligned to themselves, not to the file
        assert pixels(bmp(header, runs, between=RED_4 + GREEN_4 * (colours - 1) + gap)) == expected


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (bmp(info_header(2, 1, 0, 4), b"\xff\xd8\xff"), "a BMP that holds a JPEG"),
        (bmp(info_header(2, 1, 0, 5), b"\x89PNG"), "a BMP that holds a PNG"),
        (bmp(info_header(2, 1, 24, 11), TWO_24), "a BMP of compression 11"),
        (bmp(info_header(2, 1, 2, 2), bytes(8)), "a compressed BMP of 2 bits per pixel"),
        (bmp(info_header(2, 1, 64), bytes(16)), "a BMP of 64 bits per pixel"),
        (bmp(info_header(2, 1, 24, 4, length=64), bytes(8)), "an OS/2 BMP with its own compression"),
        (bmp(struct.pack("<III", 90, 2, 1) + bytes(78), TWO_24), "a BMP with a header of 90 bytes"),
        (
            bmp(info_header(2, 1, 16, 3), bytes(4), between=masks(0xF0F0, 0xF, 0xF00)),
            "a BMP with masks of separate bits",
        ),
        (bmp(info_header(2, 1, 24, 3), TWO_24, between=masks(255, 1, 2)), "a 24-bit BMP with masks of its own"),
    ],
)
def test_kinds_that_are_not_supported_are_named(encoded: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=f"^this is {kind}, which is not supported"):
        decode(encoded)


@pytest.mark.parametrize(("width", "height"), [(-2, 1), (0, 1), (2, 0)])
def test_sides_that_are_none_are_damage_and_no_great_number(width: int, height: int) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        decode(bmp(info_header(width, height, 24), TWO_24))


@pytest.mark.parametrize(
    "encoded",
    [
        RIGHT[:-4],
        bmp(info_header(9, 9, 24), bytes(50)),
        bmp(info_header(2, 2, 16, 3), bytes(4), between=masks(0xF800, 0x7E0, 0x1F)),
        bmp(info_header(4, 2, 8, 1, colours=2), b"\4\0\0\0", between=RED_4 + GREEN_4),
    ],
    ids=["a pixel", "rows", "a masked row", "a run"],
)
def test_missing_pixels_are_refused(encoded: bytes) -> None:
    with pytest.raises(ImageError, match="the BMP data is broken or truncated"):
        decode(encoded)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 24, 32])
@pytest.mark.parametrize("height", [30_000, -30_000])
def test_pixels_are_counted_before_they_are_looked_for(bits: int, height: int) -> None:
    with pytest.raises(ImageError, match="30000 x 30000 = 900000000 pixels, the limit is 50000000"):
        open_image(bmp(info_header(30_000, height, bits), bytes(9), between=bytes(4 << bits if bits <= 8 else 0)))
