"""The promises of models.formats.png."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest

import models.formats.png
from models.errors import ImageError
from models.formats.opening import MAX_PROFILE_BYTES
from models.preprocess import decode, open_image
from tests.models.formats.pictures import WHITE, chunk, encode, exif, pixels, png, png_parts

RGB = bytes([10, 20, 30, 40, 50, 60])
TWO = [[[10, 20, 30], [40, 50, 60]]]
PALETTE = chunk(b"PLTE", RGB)
BOMB = zlib.compress(bytes(100 << 20), 9)


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(profile))


NOTHING_TO_SAY = {
    "gAMA too short": chunk(b"gAMA", b"\0"),
    "gAMA empty": chunk(b"gAMA"),
    "gAMA with a wrong checksum": chunk(b"gAMA", struct.pack(">I", 45455), damaged=True),
    "cHRM too short": chunk(b"cHRM", b"\0" * 7),
    "cHRM of zeros": chunk(b"cHRM", bytes(32)),
    "sRGB empty": chunk(b"sRGB"),
    "sRGB of an unknown intent": chunk(b"sRGB", b"\xff"),
    "pHYs too short": chunk(b"pHYs", b"\0\0"),
    "pHYs with a wrong checksum": chunk(b"pHYs", bytes(9), damaged=True),
    "tIME of nonsense": chunk(b"tIME", b"\xff" * 7),
    "tEXt without a key": chunk(b"tEXt", b"\0text"),
    "tEXt of 2 MB": chunk(b"tEXt", b"key\0" + b"x" * (2 << 20)),
    "70 tEXt of 1 MB": chunk(b"tEXt", b"key\0" + b"x" * (1 << 20)) * 70,
    "zTXt of an unknown method": chunk(b"zTXt", b"key\0\7text"),
    "zTXt that is no zlib": chunk(b"zTXt", b"key\0\0text"),
    "zTXt bomb": chunk(b"zTXt", b"key\0\0" + BOMB),
    "zTXt bomb under EXIF's name": chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "iTXt bomb": chunk(b"iTXt", b"key\0\1\0\0\0" + BOMB),
    "iTXt bomb under XMP's name": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "iTXt cut short": chunk(b"iTXt", b"key\0"),
    "iCCP without a name": chunk(b"iCCP"),
    "iCCP of an unknown method": chunk(b"iCCP", b"name\0\7profile"),
    "iCCP bomb": chunk(b"iCCP", b"name\0\0" + BOMB),
    "iCCP of 1.5 MB": iccp(np.random.default_rng(0).bytes(1_500_000)),
    "iCCP over the limit": iccp(bytes(MAX_PROFILE_BYTES + 1)),
    "iCCP twice": iccp(b"no profile") * 2,
    "eXIf of nonsense": chunk(b"eXIf", b"nonsense"),
    "eXIf empty": chunk(b"eXIf"),
    "eXIf with a wrong checksum": chunk(b"eXIf", exif(6), damaged=True),
    "acTL too short": chunk(b"acTL", b"\0"),
    "acTL twice": chunk(b"acTL", bytes(7) + b"\2") * 2,
    "acTL of no frames": chunk(b"acTL", bytes(8)),
    "fcTL too short": chunk(b"fcTL", b"\0"),
    "fcTL of another place": chunk(b"acTL", bytes(7) + b"\2")
    + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 1, 0, 0, 0, 0, 0)),
    "fcTL outside the picture": chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9, 9, 9, 9, 0, 0, 0, 0)),
    "fcTL out of sequence": chunk(b"fcTL", struct.pack(">IIIIIHHBB", 7, 2, 1, 0, 0, 0, 0, 0, 0)),
    "fdAT before the image data": chunk(b"fdAT", bytes(4) + zlib.compress(b"\0" + RGB[::-1])),
    "bKGD of another length": chunk(b"bKGD", b"\0"),
    "hIST without a palette": chunk(b"hIST", b"\0\1"),
    "sPLT of nonsense": chunk(b"sPLT", b"\0"),
    "sBIT of another length": chunk(b"sBIT", b"\0" * 9),
    "sBIT of 99 bits": chunk(b"sBIT", b"ccc"),
    "tRNS of another length": chunk(b"tRNS", b"\0"),
    "a suggested palette": PALETTE,
    "a suggested palette of another length": chunk(b"PLTE", b"\0"),
    "an unknown type": chunk(b"abCd", b"anything"),
    "an unknown type with a wrong checksum": chunk(b"abCd", b"anything", damaged=True),
    "a type that names a method": chunk(b"call"),
}


@pytest.mark.parametrize("name", NOTHING_TO_SAY)
def test_a_chunk_that_says_nothing_about_pixels_decides_nothing(name: str) -> None:
    piece = NOTHING_TO_SAY[name]
    tracemalloc.start()
    try:
        assert pixels(png(8, 2, RGB, width=2, before=piece)) == TWO
        if b"PLTE" not in piece:
            assert pixels(png(8, 2, RGB, width=2, behind=piece)) == TWO
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 3 * len(piece) + (16 << 20)


def test_chunks_between_the_image_data_decide_nothing() -> None:
    head, data = png_parts(8, 2, RGB, width=2)
    body = data[8:-4]
    parts = chunk(b"IDAT", body[:5]) + chunk(b"tEXt", b"key\0text") + chunk(b"IDAT") + chunk(b"IDAT", body[5:])
    assert pixels(head + parts + chunk(b"IEND")) == TWO


def test_a_stream_without_its_checksum_is_read_no_further_than_its_image_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    read, adler32 = [], zlib.adler32

    def counting(content: bytes, value: int = 1) -> int:
        read.append(len(content))
        return adler32(content, value)

    monkeypatch.setattr(zlib, "adler32", counting)
    head, _ = png_parts(8, 0, b"grey", width=4)
    for stream in (BOMB[:-2], BOMB):
        open_image(head + struct.pack(">I", len(stream)) + b"IDAT" + stream)
    assert sum(read) <= 2 * (1 << 20), "of the 100 MiB that each stream holds"


@pytest.mark.parametrize(
    "tail",
    [b"", b"\0\0\0\0IEND", chunk(b"IEND", damaged=True), chunk(b"IEND") + b"trailing", b"\0\0\0", b"junk" * 9],
    ids=["none", "cut", "wrong checksum", "with more behind", "three zeros", "junk"],
)
def test_what_follows_the_image_data_may_be_missing(tail: bytes) -> None:
    assert pixels(b"".join(png_parts(8, 2, RGB, width=2)) + tail) == TWO


def test_image_data_without_its_last_checksums_is_whole() -> None:
    """zlib's Adler-32 and the chunk's CRC-32: no pixel is missing."""
    slope = np.add.outer(np.arange(40), np.arange(56)).astype(np.uint8)
    end = len(chunk(b"IEND"))
    for whole in (b"".join(png_parts(8, 2, RGB, width=2)), encode(slope, "PNG")[:-end]):
        for cut in range(1, 9):
            assert pixels(whole[:-cut]) == pixels(whole)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_where_pixels_are_decided_means_damaged_pixels(kind: bytes) -> None:
    right = png(8, 3, b"\0\1", width=2, before=PALETTE + chunk(b"tRNS", b"\0"))
    assert pixels(right) == [[WHITE, [40, 50, 60]]]
    place = right.index(kind)
    (length,) = struct.unpack_from(">I", right, place - 4)
    spoilt = bytearray(right)
    spoilt[place + 4 + length] ^= 1
    with pytest.raises(ImageError) as caught:
        decode(bytes(spoilt))
    assert caught.value.code == "undecodable_image"


@pytest.mark.parametrize(
    "palette", [b"", PALETTE + PALETTE, chunk(b"PLTE", b"\0\0"), chunk(b"PLTE")], ids=["none", "two", "odd", "empty"]
)
def test_a_picture_of_a_palette_needs_one(palette: bytes) -> None:
    with pytest.raises(ImageError, match="broken or truncated"):
        decode(png(8, 3, b"\0\1", width=2, before=palette))


@pytest.mark.parametrize(
    "spoil", [lambda data: data[: len(data) // 2], lambda data: data[:-14]], ids=["half", "without the last row"]
)
def test_missing_pixels_are_refused(spoil: object) -> None:
    rows = [np.random.default_rng(row).bytes(60) for row in range(20)]
    whole = b"".join(png_parts(8, 2, *rows, width=20))
    assert decode(whole).size == (20, 20)
    with pytest.raises(ImageError, match="the PNG data is broken or truncated"):
        decode(spoil(whole))  # type: ignore[operator]


@pytest.mark.parametrize("kind", [b"CgBI", b"ABCD"])
def test_an_unknown_critical_chunk_is_named(kind: bytes) -> None:
    """ISO 15948, 5.4: a decoder that does not know it cannot show the picture."""
    with pytest.raises(ImageError, match=f"a PNG with the critical chunk '{kind.decode()}', which is not supported"):
        decode(png(8, 2, RGB, width=2, before=chunk(kind)))


GREY_KEYS = [
    (1, 0b01000000, 0, [255, 255]),
    (1, 0b01000000, 1, [0, 255]),
    (2, 0b00011011, 0, [255, 85, 170, 255]),
    (2, 0b00011011, 1, [0, 255, 170, 255]),
    (2, 0b00011011, 2, [0, 85, 255, 255]),
    (4, 0x5A, 5, [255, 170]),
    (4, 0x5A, 10, [85, 255]),
    (8, 0x5A, 0x5A, [255]),
    (8, 0x5A, 0x015A, [255]),
    (2, 0b01101111, 0x0101, [255, 170, 255, 255]),
]


@pytest.mark.parametrize(("bits", "row", "key", "expected"), GREY_KEYS)
def test_a_transparent_grey_is_the_pixels_own_at_every_depth(
    bits: int, row: int, key: int, expected: list[int]
) -> None:
    """White is laid under it. Of the key only the sample's own bits count (ISO 15948, 11.3.1.1)."""
    trns = chunk(b"tRNS", struct.pack(">H", key))
    found = pixels(png(bits, 0, bytes([row]), width=len(expected), before=trns))
    assert found == [[[value] * 3 for value in expected]]


def test_a_transparent_grey_of_16_bits_means_all_16() -> None:
    row = struct.pack(">3H", 0x1234, 0x1235, 0x12FF)
    found = pixels(png(16, 0, row, width=3, before=chunk(b"tRNS", b"\x12\x34")))
    assert found == [[WHITE, [18, 18, 18], [19, 19, 19]]]


def test_a_transparent_colour_of_16_bits_means_all_16() -> None:
    row = struct.pack(">9H", 0x1234, 2, 3, 0x1235, 2, 3, 0x1234, 2, 0x0103)
    found = pixels(png(16, 2, row, width=3, before=chunk(b"tRNS", struct.pack(">3H", 0x1234, 2, 3))))
    assert found == [[WHITE, [18, 0, 0], [18, 0, 1]]]


def test_a_transparent_colour_of_8_bits_has_its_value_in_the_lower_byte() -> None:
    key = chunk(b"tRNS", struct.pack(">3H", 10, 0x0114, 30))
    assert pixels(png(8, 2, RGB, width=2, before=key)) == [[WHITE, [40, 50, 60]]]


@pytest.mark.parametrize(("bits", "row"), [(1, 0b01000000), (2, 0b00010000), (4, 0x01)])
def test_palettes_of_few_bits_have_their_transparency(bits: int, row: int) -> None:
    found = pixels(png(bits, 3, bytes([row]), width=2, before=PALETTE + chunk(b"tRNS", bytes([255, 51]))))
    assert found == [[[10, 20, 30], [212, 214, 216]]]


@pytest.mark.parametrize(
    "before",
    [PALETTE + chunk(b"tRNS", b"\0\0\0"), chunk(b"tRNS", b"") + PALETTE],
    ids=["longer than the palette", "empty"],
)
def test_a_transparency_that_fits_no_palette_is_ignored(before: bytes) -> None:
    assert pixels(png(8, 3, b"\0\1", width=2, before=before)) == TWO


def test_transparency_behind_the_image_data_is_ignored() -> None:
    assert pixels(png(8, 2, RGB, width=2, behind=chunk(b"tRNS", struct.pack(">3H", 10, 20, 30)))) == TWO


def test_of_two_transparencies_the_first_counts() -> None:
    first, second = (chunk(b"tRNS", struct.pack(">3H", *RGB[place : place + 3])) for place in (0, 3))
    assert pixels(png(8, 2, RGB, width=2, before=first + second)) == [[WHITE, [40, 50, 60]]]


def test_a_colour_that_the_palette_lacks_is_black() -> None:
    assert pixels(png(8, 3, b"\1\x77", width=2, before=PALETTE)) == [[[40, 50, 60], [0, 0, 0]]]


ORIENTED = {
    "eXIf": chunk(b"eXIf", exif(3)),
    "eXIf with JPEG's prefix": chunk(b"eXIf", b"Exif\0\0" + exif(3)),
    "eXIf that ends within its entries": chunk(b"eXIf", exif(3)[:9] + b"\x09" + exif(3)[10:]),
    "hexadecimal text": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 26\n" + exif(3).hex().encode()),
    "compressed hexadecimal text": chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 26\n" + exif(3).hex().encode())
    ),
    "XMP": chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'),
}


@pytest.mark.parametrize("name", ORIENTED)
def test_an_orientation_is_applied_wherever_it_is_stated(name: str) -> None:
    for place in ("before", "behind"):
        encoded = png(8, 2, RGB, width=2, **{place: ORIENTED[name]})  # type: ignore[arg-type]
        assert pixels(encoded) == [[[40, 50, 60], [10, 20, 30]]]


def test_an_animation_without_its_first_frame_in_it_shows_the_image_data() -> None:
    """As every reader does that knows no animation."""
    red, blue = (np.full((4, 4, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    from PIL import Image

    images = [Image.fromarray(blue), Image.fromarray(blue)]
    encoded = encode(red, "PNG", save_all=True, append_images=images, default_image=True)
    assert pixels(encoded) == red.tolist()


def test_interlaced_pictures_are_read() -> None:
    """Adam7 of 2 x 1 pixels: pass 1 has the left one, pass 6 the right one."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 1))
    data = chunk(b"IDAT", zlib.compress(b"\0" + RGB[:3] + b"\0" + RGB[3:]))
    assert pixels(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND")) == TWO


def test_the_header_alone_is_read_before_pixels() -> None:
    image = open_image(png(16, 2, bytes(12), width=2, before=chunk(b"tRNS", bytes(6))))
    assert (image.format, image.size, image.mode) == ("PNG", (2, 1), "RGBA")


RGB_16 = bytes(range(12))
STREAMS = [
    (png_parts(8, 2, RGB, width=2), b""),
    (png_parts(8, 3, b"\0\1", width=2), PALETTE + chunk(b"tRNS", b"\0")),
    (png_parts(16, 2, RGB_16, width=2), chunk(b"tRNS", RGB_16[6:])),
]


def spoilt(data: bytes, *, crc: bool = False, adler: bool = False, header: bool = False, pieces: int = 1) -> bytes:
    """IDAT -> IDATs with a wrong CRC-32 in the last one, another Adler-32, or another window size than is used."""
    stream = data[8:-4]
    stream = (b"\x08\x1d" if header else stream[:2]) + stream[2:]
    stream = stream[:-4] + (b"\1\2\3\4" if adler else stream[-4:])
    at = [len(stream) * piece // pieces for piece in range(pieces + 1)]
    return b"".join(
        chunk(b"IDAT", stream[at[piece] : at[piece + 1]], damaged=crc and piece == pieces - 1)
        for piece in range(pieces)
    )


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(("parts", "before"), STREAMS)
def test_one_of_the_two_checksums_of_the_image_data_may_be_wrong(
    parts: tuple[bytes, bytes], before: bytes, pieces: int
) -> None:
    head, data = parts
    right = pixels(head + before + data)
    for tail in (b"", chunk(b"IEND")):
        assert pixels(head + before + spoilt(data, crc=True, pieces=pieces) + tail) == right
        assert pixels(head + before + spoilt(data, adler=True, pieces=pieces) + tail) == right
        assert pixels(head + before + spoilt(data, header=True, pieces=pieces) + tail) == right
        with pytest.raises(ImageError, match="the PNG data is broken or truncated"):
            decode(head + before + spoilt(data, crc=True, adler=True, pieces=pieces) + tail)


def test_a_wrong_adler_of_too_few_rows_excuses_nothing() -> None:
    head, _ = png_parts(8, 2, RGB, RGB, width=2)
    _, one_row = png_parts(8, 2, RGB, width=2)
    for wrong in ({"adler": True}, {"crc": True}):
        with pytest.raises(ImageError, match="the PNG data is broken or truncated"):
            decode(head + spoilt(one_row, **wrong) + chunk(b"IEND"))


def test_a_wrong_checksum_of_a_suggested_palette_decides_nothing() -> None:
    assert pixels(png(8, 2, RGB, width=2, before=chunk(b"PLTE", b"abc", damaged=True))) == TWO


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (2, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (8, 4), (8, 6)])
def test_a_stream_that_ends_before_the_last_row_is_refused(bits: int, colour: int, interlace: int) -> None:
    """And one that does not is none, whatever its last pixels are."""
    for width, height in ((1, 1), (3, 1), (1, 3), (2, 2), (9, 9), (8, 12)):
        data = _rows(width, height, bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour], interlace)
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))
        before = b"\x89PNG\r\n\x1a\n" + header + (chunk(b"PLTE", bytes(768)) if colour == 3 else b"")
        for value in (0, 0x5A, 0xFF):
            rows = [b"\0" + bytes([value]) * length for length in data]
            decode(before + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND"))
            with pytest.raises(ImageError, match="the PNG data is broken or truncated"):
                decode(before + chunk(b"IDAT", zlib.compress(b"".join(rows[:-1]))) + chunk(b"IEND"))


def _rows(width: int, height: int, bits: int, interlace: int) -> list[int]:
    """The bytes of each row, of all seven passes."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = []
    for left, top, across, down in passes if interlace else [(0, 0, 1, 1)]:
        columns = len(range(left, width, across))
        rows += [(columns * bits + 7) // 8] * len(range(top, height, down)) if columns else []
    return rows


def test_a_trns_before_its_palette_is_in_the_wrong_place() -> None:
    """libpng and browsers ignore it."""
    assert pixels(png(8, 3, b"\0\1", width=2, before=chunk(b"tRNS", b"\0\0") + PALETTE)) == TWO


def test_countless_colour_profiles_are_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 MB of them, none of which could be read, took 4 s."""
    inflated = []
    monkeypatch.setattr(models.formats.png, "inflate", lambda content, most: inflated.append(content))
    head, data = png_parts(8, 2, RGB, width=2)
    decode(head + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"broken")) * 100 + data)
    assert len(inflated) == 2
