"""The promises of models.formats.jpeg."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.preprocess import decode
from tests.models.formats.pictures import encode, exif, pixels, segment, with_segment

RANDOM = np.random.default_rng(8)
PHOTO = Image.fromarray(RANDOM.integers(0, 256, (9, 12, 3), np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
JPEG = encode(PHOTO, "JPEG", quality=90)
EXPECTED = np.asarray(Image.open(BytesIO(JPEG))).tolist()
KINDS = {
    "baseline": JPEG,
    "4:4:4": encode(PHOTO, "JPEG", subsampling=0),
    "grey": encode(PHOTO.convert("L"), "JPEG"),
    "CMYK": encode(PHOTO.convert("CMYK"), "JPEG"),
    "progressive": encode(PHOTO, "JPEG", progressive=True),
    "progressive grey": encode(PHOTO.convert("L"), "JPEG", progressive=True),
    "restarts": encode(PHOTO, "JPEG", restart_marker_blocks=2),
    "progressive with restarts": encode(PHOTO, "JPEG", progressive=True, restart_marker_rows=1),
    "high quality": encode(PHOTO, "JPEG", quality=100),
}

NOTHING_TO_SAY = {
    "JFIF too short": segment(0xE0, b"JFIF\0"),
    "JFIF of nothing": segment(0xE0, b""),
    "APP0 of a thumbnail": segment(0xE0, b"JFXX\0\x10" + JPEG[:500]),
    "EXIF of nonsense": segment(0xE1, b"Exif\0\0nonsense"),
    "EXIF cut": segment(0xE1, b"Exif\0\0" + exif(6)[:7]),
    "EXIF without end": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\0"),
    "EXIF of a resolution of zero": segment(
        0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x011A, 5, 1, 26) + bytes(12)
    ),
    "XMP of nonsense": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<\xff\xfe"),
    "an ICC piece without a number": segment(0xE2, b"ICC_PROFILE\0"),
    "an ICC piece of no profile": segment(0xE2, b"ICC_PROFILE\0\1\1nonsense"),
    "one ICC piece of two": segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(200)),
    "the same ICC piece twice": segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(200)) * 2,
    "an index of pictures without an entry": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0"),
    "an index of pictures that is none": segment(0xE2, b"MPF\0nonsense"),
    "an index of two pictures that are not there": segment(
        0xE2, b"MPF\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0xB001, 4, 1, 2) + bytes(4)
    ),
    "FlashPix": segment(0xE2, b"FPXR\0"),
    "IPTC cut": segment(0xED, b"Photoshop 3.0\0008BIM\4\4"),
    "IPTC with a name that leads out": segment(0xED, b"Photoshop 3.0\0008BIM\4\4\xff"),
    "a resolution that ends": segment(0xED, b"Photoshop 3.0\0008BIM\3\xed\0\0\0\0\0\x02\0\0"),
    "Adobe too short": segment(0xEE, b"Adobe"),
    "Adobe without a transform": segment(0xEE, b"Adobe\0\x64\0\0\0\0"),
    "APP11 of nonsense": segment(0xEB, b"JP\0\0nonsense"),
    "a comment": segment(0xFE, b"\xff\xd9\xff\xda"),
    "a segment of length 0": segment(0xE5, b"", 0),
    "a segment of length 1": segment(0xE5, b"", 1),
    "a segment longer than it says": segment(0xE5, b"more than that", 4),
    "junk between segments": segment(0xFE, b"x") + b"junk\0\xff\0",
    "fill bytes": b"\xff\xff\xff",
    "a restart marker": b"\xff\xd0",
    "thumbnails with their ends": segment(0xE1, b"Exif\0\0" + exif(1) + JPEG[:60] + b"\xff\xd9"),
}


@pytest.mark.parametrize("name", NOTHING_TO_SAY)
def test_a_segment_that_says_nothing_about_pixels_decides_nothing(name: str) -> None:
    assert pixels(with_segment(JPEG, NOTHING_TO_SAY[name])) == EXPECTED


ENDINGS = {
    "none": b"",
    "half a marker": b"\xff",
    "fill bytes and a marker": b"\xff\xff\xff\xd9",
    "fill bytes": b"\xff\xff\xff",
    "zeros before the marker": bytes(100) + b"\xff\xd9",
    "text before the marker": b"Copyright" + b"\xff\xd9",
    "text and no marker": b"Copyright" * 20,
    "zeros and no marker": bytes(500),
    "two markers": b"\xff\xd9\xff\xd9",
    "a film behind it": b"\xff\xd9" + b"ftypmp42" + bytes(500) + b"\xff\xda\xff\xd9" * 10,
    "another picture behind it": b"\xff\xd9" + JPEG,
    "a picture without end behind it": b"\xff\xd9" + JPEG[:-2],
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_complete_if_its_blocks_are(kind: str, ending: str) -> None:
    right = KINDS[kind]
    assert right.endswith(b"\xff\xd9")
    assert pixels(right[:-2] + ENDINGS[ending]) == pixels(right)


TORN = {
    "cut": b"",
    "with an end marker": b"\xff\xd9",
    "and more": b"\xff\xd9trailing",
    "with two end markers": b"\xff\xd9\xff\xd9",
    "with another picture": b"\xff\xd9" + JPEG,
    "filled up with zeros": bytes(50_000),
    "zeros and an end marker": bytes(50_000) + b"\xff\xd9",
    "a few zeros and an end marker": bytes(500) + b"\xff\xd9",
    "fill bytes and an end marker": b"\xff" * 5000 + b"\xff\xd9",
    "ones and an end marker": b"\xff\0" * 5000 + b"\xff\xd9",
    "blanks and an end marker": b" " * 50_000 + b"\xff\xd9",
    "a pattern and an end marker": b"\xde\xad\xbe\xef" * 9000 + b"\xff\xd9",
    "text and an end marker": (b"<p>Not found</p>" + bytes(9) + b"sorry\n") * 2000 + b"\xff\xd9",
    "zeros and text": bytes(50_000) + b"Copyright" + b"\xff\xd9",
    "markers and an end marker": b"junk\xff\x42" * 3000 + b"\xff\xd9",
    "its first half again": b"\xff\xd8" + JPEG[:-2] + b"\xff\xd9",
}


@pytest.mark.parametrize("end", TORN.values(), ids=TORN)
@pytest.mark.parametrize("kind", KINDS)
def test_missing_blocks_are_refused_whatever_the_end_marker_says(kind: str, end: bytes) -> None:
    right = KINDS[kind]
    data = right.index(b"\xff\xda")
    shares = (0.1, 0.3, 0.5) if "progressive" in kind else (0.1, 0.5, 0.9)
    for share in shares:
        with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
            decode(right[: data + int(share * (len(right) - data))] + end)


# Restart markers that are missing in a progressive picture go unnoticed.
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"progressive with restarts"}))
@pytest.mark.parametrize("filling", [b"\0", b"\xff\0", b" ", b"\xde\xad\xbe\xef"])
def test_a_last_scan_that_is_filled_up_is_refused(kind: str, filling: bytes) -> None:
    """Its second half, and as many bytes as it had or more."""
    right = KINDS[kind]
    last = right.rindex(b"\xff\xda") + 12
    half = last + (len(right) - last) // 2
    for factor in (1, 5):
        with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
            decode(right[:half] + filling * (factor * (len(right) - half) // len(filling)) + b"\xff\xd9")


def test_blocks_that_a_disk_gives_again_and_again_are_refused() -> None:
    noise = encode(RANDOM.integers(0, 256, (96, 96, 3), np.uint8), "JPEG")
    place = noise.index(b"\xff\xda") + 2000
    for size in (17, 512, 1500):
        with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
            decode(noise[:place] + noise[place - 512 : place - 512 + size].ljust(size, b"\7") * 9 + b"\xff\xd9")


@pytest.mark.parametrize("end", [b"\xff\xd9", b""])
def test_blocks_that_are_left_over_mean_others_are_wrong(end: bytes) -> None:
    """An upload that was resumed too early, and one that ends in another file's blocks."""
    noise = encode(RANDOM.integers(0, 256, (96, 96, 3), np.uint8), "JPEG")
    place = noise.index(b"\xff\xda") + 2000
    others = RANDOM.integers(0, 255, 30_000, np.uint8).tobytes()
    for wrong in (noise[:place] + noise[place - 800 : -2], noise[:place] + others):
        with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
            decode(wrong + end)
    assert pixels(noise[:-2] + others[:200] + end) == pixels(noise)


def test_a_hole_of_zeros_is_refused_where_the_data_behind_it_are_left_over() -> None:
    noise = encode(RANDOM.integers(0, 256, (64, 64), np.uint8), "JPEG")
    place = noise.index(b"\xff\xda") + 500
    with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
        decode(noise[:place] + bytes(500) + noise[place:])


def test_restart_markers_out_of_order_mean_missing_blocks() -> None:
    right = KINDS["restarts"]
    third, fourth = right.index(b"\xff\xd2"), right.index(b"\xff\xd3")
    with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
        decode(right[:third] + right[fourth:])


FLAT = np.full((256, 256, 3), 250, np.uint8)
FLAT[:40] = RANDOM.integers(0, 256, (40, 256, 3), np.uint8)
FLATS = {
    "standard codes": {},
    "optimised codes": {"optimize": True},
    "grey": {"mode": "L"},
    "progressive": {"progressive": True},
}


@pytest.mark.parametrize("ending", ["none", "zeros before the marker", "text and no marker", "zeros and no marker"])
@pytest.mark.parametrize("kind", FLATS)
def test_blocks_of_one_colour_are_no_filling(kind: str, ending: str) -> None:
    options: dict[str, Any] = dict(FLATS[kind])
    right = encode(Image.fromarray(FLAT).convert(options.pop("mode", "RGB")), "JPEG", **options)
    assert (
        pixels(right[:-2] + ENDINGS[ending])
        == pixels(right)
        == np.asarray(Image.open(BytesIO(right)).convert("RGB")).tolist()
    )


@pytest.mark.parametrize("kind", ["progressive", "progressive grey", "progressive with restarts"])
def test_a_last_scan_that_is_cut_is_refused_without_an_end_marker(kind: str) -> None:
    right = KINDS[kind]
    last = right.rindex(b"\xff\xda")
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
            decode(right[: last + int(share * (len(right) - last))])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("comment", [b"text" * 50, bytes(300), b"short", b"\xde\xad" * 90])
def test_a_comment_behind_the_scans_decides_nothing(kind: str, comment: bytes) -> None:
    right = KINDS[kind]
    for end in (b"\xff\xd9", b""):
        assert pixels(right[:-2] + 2 * segment(0xFE, comment) + end) == pixels(right)


def test_scans_that_are_missing_are_refused() -> None:
    right = KINDS["progressive"]
    last = right.rindex(b"\xff\xda")
    before = right.rindex(b"\xff\xc4", 0, last) if right.rindex(b"\xff\xc4", 0, last) > last - 300 else last
    with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
        decode(right[:before] + b"\xff\xd9")


def frame(marker: int, bits: int = 8, height: int = 8, components: int = 3) -> bytes:
    content = struct.pack(">BHHB", bits, height, 8, components)
    return segment(marker, content + b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1)))


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (frame(0xC1, bits=12), "a 12-bit JPEG"),
        (frame(0xC3, bits=16), "a 16-bit JPEG"),
        (frame(0xC5), "a hierarchical JPEG"),
        (segment(0xDE, bytes(6)), "a hierarchical JPEG"),
        (frame(0xCB), "an arithmetic-coded lossless JPEG"),
        (frame(0xF7), "a JPEG-LS picture"),
        (frame(0xC0, height=0), "a JPEG that states its height only after its data"),
        (frame(0xC0, components=2), "a JPEG of 2 components"),
    ],
)
def test_kinds_that_are_not_supported_are_named(piece: bytes, kind: str) -> None:
    encoded = b"\xff\xd8" + segment(0xFE, b"x") + piece + segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(99) + b"\xff\xd9"
    with pytest.raises(ImageError, match=f"^this is {kind}, which is not supported: save it as") as caught:
        decode(encoded)
    assert caught.value.code == "undecodable_image"


# 16 x 16 grey levels, by libjpeg-turbo's cjpeg -arithmetic and by imagecodecs' lossless encoder.
ARITHMETIC = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb00430002010101010102010101020202020204030202020205040403"
    "04060506060605060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0affc9000b08001000100101"
    "1100ffcc000600101005ffda0008010100003f00ff00ecc0bf096c8b48c11ac129ac90f5e9721ad50bfd5f9b931f83ee5669"
    "8d63f0ffd9"
)
LOSSLESS = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc3000b080010001001011100ffc4001600010101000000000000000000"
    "00000000030408ffda0008010100010000cfeeeeeeeeeeeeeeef4bbbbbbbbbbbbbbbd2eeeeeeeeeeeeeef4bbbbbbbbbbbbbb"
    "bd2eeeeeeeeeeeeeef4bbbbbbbbbbbbbbbd2eeeeeeeeeeeeeef4bbbbbbbbbbbbbbbd2eeeeeeeeeeeeeef4bbbbbbbbbbbbbbb"
    "d2eeeeeeeeeeeeeef4bbbbbbbbbbbbbbbd2eeeeeeeeeeeeeef4bbbbbbbbbbbbbbbd2eeeeeeeeeeeeeef4bbbbbbbbbbbbbbbf"
    "ffd9"
)


@pytest.mark.parametrize("encoded", [ARITHMETIC, LOSSLESS], ids=["arithmetic", "lossless"])
def test_rare_codings_are_read_whole_or_not_at_all(encoded: bytes) -> None:
    ramp = np.add.outer(np.arange(16) * 9, np.arange(16) * 7)[:, :, None]
    for whole in (encoded, encoded[:-2], encoded[:-2] + b"\xff\xff\xd9"):
        assert np.abs(np.asarray(decode(whole), np.int16) - ramp).max() <= (3 if encoded is ARITHMETIC else 0)
    for end in (b"", b"\xff\xd9"):
        with pytest.raises(ImageError, match="the JPEG data is broken or truncated"):
            decode(encoded[: len(encoded) - 30] + end)


def test_a_second_block_of_exif_data_counts_where_the_first_is_broken() -> None:
    first, second = (segment(0xE1, b"Exif\0\0" + content) for content in (b"MM\0*", exif(3)))
    assert pixels(with_segment(JPEG, first + second)) == [row[::-1] for row in EXPECTED[::-1]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["MM", "II"])
def test_an_orientation_in_half_broken_exif_data_is_applied(orientation: int, order: str) -> None:
    """It comes first; then an entry that leads out of the data, and no end."""
    mark = ">" if order == "MM" else "<"
    data = order.encode() + struct.pack(mark + "HIH", 42, 8, 99)
    data += struct.pack(mark + "HHIHH", 0x0112, 3, 1, orientation, 0)
    data += struct.pack(mark + "HHII", 0x010F, 2, 1000, 1 << 30) + b"\xff"
    right = encode(PHOTO, "JPEG", quality=90, exif=b"Exif\0\0" + exif(orientation))
    assert pixels(with_segment(JPEG, segment(0xE1, b"Exif\0\0" + data))) == pixels(right)
    assert np.asarray(decode(right)).shape[:2] == ((96, 72) if orientation > 4 else (72, 96))
