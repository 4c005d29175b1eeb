"""The promises of models.formats.tiff and models.formats.samples, with expected pixels worked out by hand."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.formats.opening import MAX_PROFILE_BYTES
from models.preprocess import decode, open_image
from tests.models.formats.pictures import WHITE, encode, greys, pixels, tiff

ORDERS = ("<", ">")
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
BLACK = [0, 0, 0]
ROW = {257: 1, 278: 1}


def grey(order: str, bits: int, data: bytes, width: int, *, white_is_0: bool = False, **tags: Any) -> bytes:
    stated = {256: width, **ROW, 258: bits, 262: int(not white_is_0)}
    return tiff(order, data, stated | {int(tag[1:]): value for tag, value in tags.items()})


# Type of sample -> (bits, format, struct's letter, values, as 8-bit grey).
SAMPLES = {
    "8": (8, UNSIGNED, "B", (0, 100, 255), [0, 100, 255]),
    "8 signed": (8, SIGNED, "b", (-5, 64, 127), [0, 129, 255]),
    "16": (16, UNSIGNED, "H", (0, 25_700, 65_535), [0, 100, 255]),
    "16 signed": (16, SIGNED, "h", (-300, 16_384, 32_767), [0, 128, 255]),
    "32": (32, UNSIGNED, "I", (0, 0x64646464, 0xFFFFFFFF), [0, 100, 255]),
    "32 signed": (32, SIGNED, "i", (-1, 0x40000000, 0x7FFFFFFF), [0, 128, 255]),
    "32 that need 16": (32, UNSIGNED, "I", (0, 25_700, 65_535), [0, 100, 255]),
    "64": (64, UNSIGNED, "Q", (0, 0x6464646464646464, 0xFFFFFFFFFFFFFFFF), [0, 100, 255]),
    "half floats": (16, FLOAT, "e", (0.0, 0.5, 1.0), [0, 128, 255]),
    "floats": (32, FLOAT, "f", (-0.5, 0.4, 1.0001), [0, 102, 255]),
    "doubles": (64, FLOAT, "d", (0.0, 0.2, 1.0), [0, 51, 255]),
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("order", ORDERS)
def test_grey_samples_of_any_type_become_8_bits(order: str, kind: str) -> None:
    bits, form, letter, values, expected = SAMPLES[kind]
    data = struct.pack(f"{order}3{letter}", *values)
    assert greys(grey(order, bits, data, 3, t339=form)) == expected


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("order", ORDERS)
def test_where_white_is_0_it_is_no_negative(order: str, kind: str) -> None:
    bits, form, letter, values, expected = SAMPLES[kind]
    data = struct.pack(f"{order}3{letter}", *values)
    assert greys(grey(order, bits, data, 3, white_is_0=True, t339=form)) == [255 - value for value in expected]


FEW_BITS = [
    (1, b"\x40", [0, 255]),
    (2, b"\x1b", [0, 85, 170, 255]),
    (4, b"\x0f\x5a", [0, 255, 85, 170]),
    (6, b"\x03\xf0\x00", [0, 255, 0, 0]),
    (10, b"\x00\x3f\xf0", [0, 255]),
    (12, b"\x00\x0f\xff\x80\x00", [0, 255, 128]),
    (14, b"\x00\x03\xff\xf0", [0, 255]),
]


@pytest.mark.parametrize(("bits", "data", "expected"), FEW_BITS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("white_is_0", [False, True])
def test_samples_of_few_bits_become_8(
    bits: int, data: bytes, expected: list[int], order: str, white_is_0: bool
) -> None:
    found = greys(grey(order, bits, data, len(expected), white_is_0=white_is_0))
    assert found == [255 - value if white_is_0 else value for value in expected]


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_bits_that_come_in_the_other_order_are_turned(bits: int) -> None:
    values = {1: [255, 0] * 4, 4: [17, 34], 8: [18], 16: [18]}[bits]
    data = {1: b"\xaa", 4: b"\x12", 8: b"\x12", 16: b"\x12\x34"}[bits]
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    assert greys(grey(">", bits, turned, len(values), t266=2)) == values == greys(grey(">", bits, data, len(values)))


def test_a_bilevel_fax_is_not_its_negative() -> None:
    picture = Image.fromarray(np.array([[0, 255, 255, 0] * 8] * 8, np.uint8)).convert("1")
    for compression in ("group3", "group4", "tiff_ccitt"):
        assert pixels(encode(picture, "TIFF", compression=compression)) == [[BLACK, WHITE, WHITE, BLACK] * 8] * 8


FLOATS = [
    ([0.0, 0.5, 1.0, 1.3], [0, 128, 255, 255]),
    ([0.25] * 39 + [900.0], [64] * 39 + [255]),
    ([0.0, 51.0, 204.0, 255.0], [0, 51, 204, 255]),
    ([0.0, 51.0, 300.0, -7.0], [0, 51, 255, 0]),
    ([float("nan"), 0.2, float("inf"), -float("inf")], [0, 51, 0, 0]),
    ([float("nan"), 51.0, float("inf"), 3e38], [0, 51, 0, 255]),
]


@pytest.mark.parametrize(("values", "expected"), FLOATS)
@pytest.mark.parametrize("order", ORDERS)
def test_floats_are_0_to_1_unless_many_are_far_above(values: list[float], expected: list[int], order: str) -> None:
    data = struct.pack(f"{order}{len(values)}f", *values)
    assert greys(grey(order, 32, data, len(values), t339=FLOAT)) == expected


@pytest.mark.parametrize(("bits", "letter", "most"), [(8, "B", 255), (16, "H", 65_535), (32, "I", 0xFFFFFFFF)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("planar", [1, 2])
def test_rgb_and_its_alpha_of_any_size_over_white(bits: int, letter: str, most: int, order: str, planar: int) -> None:
    """(1, 0, 0) opaque, (0, 1, 0) of a fifth, (0, 0, 1) not at all."""
    dots = [(1, 0, 0, 1), (0, 1, 0, 0.2), (0, 0, 1, 0)]
    samples = [round(value * most) for dot in (zip(*dots, strict=True) if planar == 2 else dots) for value in dot]
    data = struct.pack(f"{order}12{letter}", *samples)
    size = len(data) // 4
    places = {273: (8, *(8 + size * plane for plane in (1, 2, 3))), 279: (size,) * 4} if planar == 2 else {}
    stated = {256: 3, **ROW, 258: (bits,) * 4, 262: 2, 277: 4, 284: planar, 338: 2, **places}
    assert pixels(tiff(order, data, stated)) == [[[255, 0, 0], [204, 255, 204], WHITE]]


@pytest.mark.parametrize(("bits", "letter", "most"), [(8, "B", 255), (16, "H", 65_535)])
@pytest.mark.parametrize("order", ORDERS)
def test_colours_that_were_multiplied_by_alpha_are_not_multiplied_again(
    bits: int, letter: str, most: int, order: str
) -> None:
    samples = [round(value * most) for value in (0.2, 0, 0, 0.2, 0, 0, 0, 0)]
    stated = {256: 2, **ROW, 258: (bits,) * 4, 262: 2, 277: 4, 338: 1}
    assert pixels(tiff(order, struct.pack(f"{order}8{letter}", *samples), stated)) == [[[255, 204, 204], WHITE]]


GREY_ALPHA = [
    # photometric, extra sample's kind, (grey, alpha) pairs, expected
    (1, 2, (0, 51, 100, 255, 9, 0), [204, 100, 255]),
    (0, 2, (255, 51, 155, 255, 9, 0), [204, 100, 255]),
    (1, 1, (0, 51, 100, 255, 0, 0), [204, 100, 255]),
    (0, 1, (51, 51, 155, 255, 0, 0), [204, 100, 255]),
    (1, 0, (0, 51, 100, 255, 9, 0), [0, 100, 9]),
]


@pytest.mark.parametrize(("photometric", "kind", "values", "expected"), GREY_ALPHA)
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_an_extra_sample(
    photometric: int, kind: int, values: tuple[int, ...], expected: list[int], bits: int
) -> None:
    data = struct.pack("<6B", *values) if bits == 8 else struct.pack("<6H", *(257 * value for value in values))
    stated = {256: 3, **ROW, 258: (bits, bits), 262: photometric, 277: 2, 338: kind}
    assert greys(tiff("<", data, stated)) == expected


MAP_16 = (0xFFFF, 0x1400, 0x0000, 0x2800, 0x0000, 0x3C00)  # red 255, 20; green 0, 40; blue 0, 60
MAP_8 = (255, 20, 0, 40, 0, 60)


@pytest.mark.parametrize("colours", [MAP_16, MAP_8], ids=["of 16 bits", "of 8 bits"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("order", ORDERS)
def test_a_colour_map_may_have_8_bits(order: str, bits: int, colours: tuple[int, ...]) -> None:
    """Where none of its values needs more, as libtiff has it."""
    table = tuple(value for channel in range(3) for value in colours[2 * channel :][:2] + (0,) * ((1 << bits) - 2))
    data = {1: b"\x40", 2: b"\x10", 4: b"\x01", 8: b"\0\1"}[bits]
    stated = {256: 2, **ROW, 258: bits, 262: 3, 320: table}
    assert pixels(tiff(order, data, stated)) == [[[255, 0, 0], [20, 40, 60]]]


def test_a_palette_may_have_an_alpha_channel() -> None:
    table = tuple(value for channel in range(3) for value in MAP_8[2 * channel :][:2] + (0,) * 254)
    for kind, expected in ((2, [[[255, 204, 204], [20, 40, 60]]]), (0, [[[255, 0, 0], [20, 40, 60]]])):
        stated = {256: 2, **ROW, 258: (8, 8), 262: 3, 277: 2, 338: kind, 320: table}
        assert pixels(tiff("<", bytes([0, 51, 1, 255]), stated)) == expected


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [(), (0,), (2,)], ids=["alone", "and more", "and alpha"])
def test_cmyk_becomes_rgb(bits: int, extra: tuple[int, ...]) -> None:
    inks = (0, 255, 51, 102) + (255,) * len(extra)
    data = struct.pack(f"<{len(inks)}{'B' if bits == 8 else 'H'}", *(ink * (257 if bits == 16 else 1) for ink in inks))
    stated: dict[int, Any] = {256: 1, **ROW, 258: (bits,) * len(inks), 262: 5, 277: len(inks)}
    found = np.array(pixels(tiff("<", data, stated | ({338: extra} if extra else {}))))
    assert np.abs(found - [[[153, 0, 122]]]).max() <= 1


COMPRESSED = [(8, zlib.compress), (32946, zlib.compress), (32773, lambda data: bytes([len(data) - 1]) + data)]


@pytest.mark.parametrize(("compression", "compress"), COMPRESSED, ids=["deflate", "old deflate", "packbits"])
@pytest.mark.parametrize("kind", ["16", "32", "half floats", "floats"])
@pytest.mark.parametrize("order", ORDERS)
def test_compressed_samples_keep_their_byte_order(compression: int, compress: Any, kind: str, order: str) -> None:
    bits, form, letter, values, expected = SAMPLES[kind]
    data = compress(struct.pack(f"{order}3{letter}", *values))
    assert greys(grey(order, bits, data, 3, t259=compression, t339=form)) == expected


@pytest.mark.parametrize(("bits", "letter"), [(8, "B"), (16, "H"), (32, "I")])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("samples", [1, 3])
def test_differences_are_summed(bits: int, letter: str, order: str, samples: int) -> None:
    """Predictor 2, which wraps around; a channel is predicted from itself."""
    most = (1 << bits) - 1
    values = np.array([[most, 0, most, most // 5]] * samples, np.uint64).T
    differences = np.diff(values, axis=0, prepend=np.uint64(0)) & np.uint64(most)
    data = zlib.compress(struct.pack(f"{order}{differences.size}{letter}", *differences.ravel().tolist()))
    stated = {256: 4, **ROW, 258: (bits,) * samples, 262: 2 if samples == 3 else 1, 277: samples, 259: 8, 317: 2}
    assert greys(tiff(order, data, stated)) == [255, 0, 255, 51]


@pytest.mark.parametrize("order", ORDERS)
def test_differences_of_floats_are_summed(order: str) -> None:
    """Predictor 3: the highest bytes of all samples, then the next ones, then differences of them all."""
    planes = np.frombuffer(struct.pack(">4f", 0.0, 0.2, 0.4, 1.0), np.uint8).reshape(4, 4).T.ravel()
    data = zlib.compress(np.diff(planes, prepend=np.uint8(0)).tobytes())
    assert greys(grey(order, 32, data, 4, t259=8, t317=3, t339=FLOAT)) == [0, 51, 102, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_tiles_are_put_together(bits: int) -> None:
    """20 x 17 in four tiles of 16 x 16."""
    picture = np.add.outer(np.arange(17) * 8, np.arange(20) * 5)
    padded = np.pad(picture * (257 if bits == 16 else 1), ((0, 15), (0, 12))).astype(f"<u{bits // 8}")
    tiles = [zlib.compress(padded[y : y + 16, x : x + 16].tobytes()) for y in (0, 16) for x in (0, 16)]
    ends = np.cumsum([8, *map(len, tiles)]).tolist()
    stated = {256: 20, 257: 17, 258: bits, 262: 1, 259: 8, 322: 16, 323: 16, 324: ends[:-1], 325: [*map(len, tiles)]}
    assert np.array_equal(np.asarray(decode(tiff("<", b"".join(tiles), stated)))[:, :, 0], picture)


def test_strips_of_a_band_are_put_together() -> None:
    """More rows than are read at once, in strips that divide neither them nor the height."""
    picture = np.random.default_rng(1).integers(0, 65_536, (700, 1000), np.uint16)
    for compression in (None, "tiff_adobe_deflate"):
        options = {"compression": compression} if compression else {}
        found = np.asarray(decode(encode(picture, "TIFF", strip_size=2000 * 37, **options)))[:, :, 1]
        assert np.array_equal(found, np.rint(picture / 257).astype(np.uint8))


@pytest.mark.parametrize("order", ORDERS)
def test_a_big_tiff_is_read(order: str) -> None:
    stated = {256: 2, **ROW, 258: (8, 8, 8), 262: 2, 277: 3, 273: (16, [16]), 279: (16, [6])}
    assert pixels(tiff(order, bytes([10, 20, 30, 40, 50, 60]), stated, big=True)) == [[[10, 20, 30], [40, 50, 60]]]


def test_colours_with_fewer_samples_are_read_uncompressed_too() -> None:
    """YCbCr 4:2:2: two luminances, then both colour differences."""
    stated = {256: 2, **ROW, 258: (8, 8, 8), 262: 6, 277: 3, 530: (2, 1)}
    (dots,) = pixels(tiff("<", bytes([76, 76, 85, 255]), stated))
    assert np.abs(np.array(dots) - [255, 0, 0]).max() <= 2


LAB = {256: 2, **ROW, 258: (8, 8, 8), 262: 8, 277: 3}


def test_lab_becomes_rgb() -> None:
    """White, and the grey of half the lightness."""
    dots = np.array(pixels(tiff("<", bytes([255, 0, 0, 128, 0, 0]), LAB)))
    assert np.abs(dots - [[WHITE, [119, 119, 119]]]).max() <= 2


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


NOTHING_TO_SAY = {
    "a description that leads out": entry(270, 2, 1000, 1 << 30),
    "a resolution of an unknown type": entry(282, 99, 1, 0),
    "a resolution of zero": entry(282, 5, 1, 0),
    "a resolution of text": entry(282, 2, 4, 0x41414141),
    "a unit of 99": entry(296, 3, 1, 99),
    "XMP of numbers": entry(700, 4, 1, 7),
    "XMP that leads out": entry(700, 1, 1 << 20, 1 << 30),
    "IPTC of longs": entry(33723, 4, 1, 7),
    "Photoshop's that leads out": entry(34377, 7, 100, 1 << 30),
    "EXIF that leads out": entry(34665, 4, 1, 1 << 30),
    "EXIF that leads to itself": entry(34665, 4, 1, 8),
    "EXIF of text": entry(34665, 2, 4, 0x41414141),
    "GPS that leads out": entry(34853, 4, 1, 0xFFFFFFFF),
    "a profile that leads out": entry(34675, 7, 200, 1 << 30),
    "a profile of nonsense": entry(34675, 7, 4, 7),
    "a profile over the limit": entry(34675, 7, MAX_PROFILE_BYTES + 1, 0),
    "further pictures that lead out": entry(330, 4, 1, 1 << 30),
    "an orientation of 99": entry(274, 3, 1, 99),
    "an orientation of text": entry(274, 2, 4, 0x41414141),
    "an unknown tag of an unknown type": entry(65_000, 4711, 1 << 30, 0),
    "a second width": entry(256, 3, 1, 1),
}
TWO = {256: 2, **ROW, 258: (8, 8, 8), 262: 2, 277: 3}
TWO_DATA = bytes([10, 20, 30, 40, 50, 60])


@pytest.mark.parametrize("name", NOTHING_TO_SAY)
def test_a_tag_that_says_nothing_about_pixels_decides_nothing(name: str) -> None:
    assert pixels(tiff("<", TWO_DATA, TWO, more=[NOTHING_TO_SAY[name]])) == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("odd", [{279: 0}, {279: 1 << 20}, {278: 1 << 20}, {254: 7}, {284: 9}, {258: 8}, {339: 4}])
def test_odd_but_plain_structure_is_read(odd: dict[int, Any]) -> None:
    assert pixels(tiff("<", TWO_DATA, TWO | odd)) == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_an_orientation_turns_samples_of_any_size(orientation: int, bits: int) -> None:
    picture = np.arange(6).reshape(2, 3) * 40
    data = (picture * (257 if bits == 16 else 1)).astype(f"<u{bits // 8}").tobytes()
    stated = {256: 3, 257: 2, 278: 2, 258: bits, 262: 1, 274: orientation}
    upright = {1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1], 5: picture.T}
    upright |= {6: np.rot90(picture, -1), 7: picture[::-1, ::-1].T, 8: np.rot90(picture)}
    assert np.array_equal(np.asarray(decode(tiff("<", data, stated)))[:, :, 0], upright[orientation])


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        ({259: 34712}, "a TIFF of compression JPEG 2000"),
        ({259: 34887}, "a TIFF of compression LERC"),
        ({259: 50001}, "a TIFF of compression WebP"),
        ({259: 34661}, "a TIFF of compression JBIG"),
        ({259: 4711}, "a TIFF of compression 4711"),
        ({262: 32803}, r"a camera's raw file \(CFA samples\)"),
        ({262: 34892}, r"a camera's raw file \(linear samples\)"),
        ({262: 9}, "a TIFF in ICC Lab colours"),
        ({262: 32845}, "a TIFF in LogLuv colours"),
        ({339: 6}, "a TIFF of complex numbers"),
        ({339: 5}, "a TIFF of complex numbers"),
        ({258: (5, 6, 5)}, "a TIFF of unequal integers"),
        ({258: (24, 24, 24)}, "a TIFF of 24-bit integers"),
        ({258: (24, 24, 24), 339: 3}, "a TIFF of 24-bit floats"),
        ({262: 8, 258: (16, 16, 16)}, "a TIFF of 16-bit integers in Lab colours"),
        ({262: 8, 259: 7}, "a TIFF of Lab colours under JPEG"),
        ({259: 7, 258: (12, 12, 12)}, "a TIFF of 12-bit integers under compression 7"),
        ({262: 5, 277: 4, 258: (8,) * 4, 332: 2}, "a TIFF of other inks than CMYK"),
    ],
)
def test_kinds_that_are_not_supported_are_named(odd: dict[int, Any], kind: str) -> None:
    with pytest.raises(ImageError, match=f"^this is {kind}, which is not supported") as caught:
        decode(tiff("<", bytes(99), TWO | odd))
    assert caught.value.code == "undecodable_image"


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("compression", [1, 8])
def test_missing_pixels_are_refused(bits: int, compression: int) -> None:
    data = np.random.default_rng(2).bytes(bits // 8 * 400)
    stored = zlib.compress(data) if compression == 8 else data
    stated = {256: 20, 257: 20, 278: 20, 258: bits, 262: 1, 259: compression}
    assert decode(tiff("<", stored, stated)).size == (20, 20)
    short = stored[: len(stored) // 2]
    behind = struct.pack("<4sI", b"II*\0", 8 + 1_000_000)  # the directory must not fill up what is missing
    for cut in (tiff("<", short, stated), behind + short):
        with pytest.raises(ImageError):
            decode(cut)


def test_the_first_picture_is_taken() -> None:
    first, second = (Image.fromarray(np.full((4, 4), value, np.uint16)) for value in (65_535, 0))
    assert pixels(encode(first, "TIFF", save_all=True, append_images=[second])) == [[WHITE] * 4] * 4


def test_the_header_alone_is_read_before_pixels() -> None:
    image = open_image(tiff(">", bytes(4), {256: 30_000, 257: 1500, 258: 16, 262: 0}))
    assert (image.format, image.size, image.mode) == ("TIFF", (30_000, 1500), "L")
    with pytest.raises(ImageError, match="30000 x 2000 = 60000000 pixels, the limit is 50000000"):
        open_image(tiff(">", bytes(4), {256: 30_000, 257: 2000, 258: 16, 262: 0}))


def test_a_compressed_strip_of_too_many_bytes_is_refused_before_it_is_read() -> None:
    stated = {256: 1000, 257: 1000, 278: 1000, 258: (64,) * 4, 262: 2, 277: 4, 339: 3, 259: 8, 338: 2}
    with pytest.raises(
        ImageError, match="strips or tiles of 32000000 bytes, the limit is 8 for each allowed"
    ) as caught:
        open_image(tiff("<", zlib.compress(bytes(99)), stated), max_pixels=1_000_000)
    assert caught.value.code == "too_many_pixels"


def test_pillow_would_not_have_read_them() -> None:
    """Why there is code of our own: what Pillow 13 makes of a negative and of a colour map of 8 bits."""
    negative = grey("<", 16, struct.pack("<2H", 0, 65_535), 2, white_is_0=True)
    assert np.asarray(Image.open(BytesIO(negative))).tolist() == [[0, 65_535]]
    assert greys(negative) == [255, 0]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("filling", ["zeros", "text", "shorter"])
def test_a_jpeg_strip_that_lacks_blocks_is_refused(mode: str, filling: str) -> None:
    noise = Image.fromarray(np.random.default_rng(4).integers(0, 256, (64, 48, 3), np.uint8)).convert(mode)
    right = encode(noise, "TIFF", compression="jpeg")
    with Image.open(BytesIO(right)) as opened:
        (place, *_), (length, *_) = opened.tag_v2[273], opened.tag_v2[279]
        assert np.array_equal(np.asarray(decode(right)), np.asarray(opened.convert("RGB")))
    half, rest = place + length // 2, length - length // 2
    replaced = {"zeros": bytes(rest), "text": (b"lost " * rest)[:rest], "shorter": b"\xff\xd9" + bytes(rest - 2)}
    with pytest.raises(ImageError, match=r"the (TIFF|JPEG) data is broken or truncated"):
        decode(right[:half] + replaced[filling] + right[place + length :])
