"""The promises of models.pixels.color."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from models.errors import ImageError
from models.manifest import Preprocess
from models.pixels.color import TRANSFORMS, _conversion, keep_matching_profile, to_srgb
from models.preprocess import decode, open_image, preprocess, read_pixels, to_tensor
from tests.models.formats.pictures import (
    WHITE,
    bmp,
    encode,
    gif,
    icc_segments,
    info_header,
    segment,
    tiff,
    with_segment,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def s15(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)


def profile(space: bytes, tags: dict[bytes, bytes], *, version: bytes = b"\2\x10\0\0", kind: bytes = b"mntr") -> bytes:
    """ICC.1:2001-04: a header of 128 bytes, a table of tags, their contents."""
    start, table, contents = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(contents), len(content))
        contents += content.ljust((len(content) + 3) // 4 * 4, b"\0")
    head = struct.pack(">I4s4s4s4s4s12x4s", start + len(contents), b"", version, kind, space, b"XYZ ", b"acsp")
    white = s15(0.9642, 1.0, 0.8249)
    return (head + bytes(28) + white).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + contents


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + s15(*values)


def rgb_profile(gamma: float, red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...]) -> bytes:
    columns = {b"rXYZ": xyz(*red), b"gXYZ": xyz(*green), b"bXYZ": xyz(*blue)}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(gamma))
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    return profile(b"RGB ", {b"desc": text, b"wtpt": xyz(0.9642, 1.0, 0.8249), **columns, **curves})


# Columns of sRGB, Display P3 and ProPhoto under D50.
S_COLUMNS = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3_COLUMNS = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
PRO_COLUMNS = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
P3 = rgb_profile(2.2, *P3_COLUMNS)
LINEAR = rgb_profile(1.0, *S_COLUMNS)
PRO = rgb_profile(1.8, *PRO_COLUMNS)
ADOBE_GAMMA = rgb_profile(2.2, *S_COLUMNS)
GREY = profile(b"GRAY", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": curve(1.0)})

Colours = NDArray[Any]
DOTS = np.random.default_rng(6).integers(0, 256, (16, 24, 3), np.uint8)


def expected(dots: Colours, gamma: float, columns: tuple[tuple[float, ...], ...]) -> Colours:
    """The formula: linear light, XYZ, sRGB's linear light, sRGB's curve (IEC 61966-2-1)."""
    linear = (dots / 255) ** gamma @ np.array(columns) @ np.linalg.inv(np.array(S_COLUMNS))
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


PROFILES = [(P3, 2.2, P3_COLUMNS), (LINEAR, 1.0, S_COLUMNS), (PRO, 1.8, PRO_COLUMNS), (ADOBE_GAMMA, 2.2, S_COLUMNS)]


@pytest.mark.parametrize(("icc", "gamma", "columns"), PROFILES, ids=["P3", "linear", "ProPhoto", "gamma 2.2"])
def test_profiles_of_three_columns_mean_what_their_formula_says(icc: bytes, gamma: float, columns: Any) -> None:
    found = np.asarray(decode(encode(DOTS, "PNG", icc_profile=icc)), float)
    assert np.abs(found - expected(DOTS, gamma, columns)).max() <= 2.5
    assert np.abs(found - DOTS).max() > 5


@pytest.mark.parametrize(
    ("format_", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_every_format_that_holds_profiles_is_converted(format_: str, options: dict[str, Any]) -> None:
    found = np.asarray(decode(encode(DOTS, format_, icc_profile=P3, **options)))
    assert np.array_equal(found, np.asarray(decode(encode(DOTS, "PNG", icc_profile=P3))))


def test_the_profile_of_a_jpeg_may_come_in_pieces_and_in_any_order() -> None:
    jpeg = encode(DOTS, "JPEG", quality=95)
    whole = np.asarray(decode(with_segment(jpeg, icc_segments(P3))))
    assert not np.array_equal(whole, np.asarray(decode(jpeg)))
    pieces = icc_segments(P3, 150)
    assert np.array_equal(np.asarray(decode(with_segment(jpeg, pieces))), whole)
    parts = [b"\xff\xe2" + part for part in pieces.split(b"\xff\xe2")[1:]]
    assert np.array_equal(np.asarray(decode(with_segment(jpeg, b"".join(parts[::-1])))), whole)
    assert np.array_equal(np.asarray(decode(with_segment(jpeg, b"".join(parts[:-1])))), np.asarray(decode(jpeg)))


@pytest.mark.parametrize(("first", "stated", "copies"), [(0, 4, 1), (1, 0, 1), (1, 99, 1), (1, 4, 2)])
def test_the_pieces_may_be_numbered_wrongly_or_come_twice(first: int, stated: int, copies: int) -> None:
    jpeg = encode(DOTS, "JPEG", quality=95)
    quarter = -(-len(P3) // 4)
    pieces = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([first + number, stated]) + P3[quarter * number :][:quarter])
        for number in range(4)
    )
    found = decode(with_segment(jpeg, pieces * copies))
    assert np.array_equal(np.asarray(found), np.asarray(decode(with_segment(jpeg, icc_segments(P3)))))


def gif_profile(icc: bytes, size: int = 255) -> bytes:
    blocks = [icc[place : place + size] for place in range(0, len(icc), size)]
    return b"\x21\xff\x0bICCRGBG1012" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def swatch(gif_bytes: bytes) -> list[Any]:
    return np.asarray(decode(gif_bytes)).tolist()


@pytest.mark.parametrize("frame", [(0, 0, 2, 1), (1, 1, 2, 1)])
@pytest.mark.parametrize("size", [255, 100])
def test_the_profile_of_a_gif_is_an_applications_extension(frame: tuple[int, int, int, int], size: int) -> None:
    screen = (2, 1) if frame[0] == 0 else (4, 3)
    row = swatch(gif(screen, frame, [1, 2], before=gif_profile(P3, size)))[frame[1]]
    green, blue = row[frame[0] : frame[0] + 2]
    wanted = np.asarray(decode(encode(np.array([[[0, 255, 0], [0, 0, 255]]], np.uint8), "PNG", icc_profile=P3)))
    assert [green, blue] == wanted[0].tolist() != [[0, 255, 0], [0, 0, 255]]
    assert row[frame[0] + 2 :] == [WHITE] * (screen[0] - frame[0] - 2)


def test_a_gif_whose_palette_is_grey_has_its_profile_applied() -> None:
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = encode(Image.fromarray(greys), "GIF")
    place = 13 + 768
    assert plain[place : place + 1] in (b",", b"!")
    found = np.asarray(decode(plain[:place] + gif_profile(LINEAR) + plain[place:]))
    assert np.array_equal(found, np.asarray(decode(encode(np.dstack([greys] * 3), "PNG", icc_profile=LINEAR))))


@pytest.mark.parametrize(
    "piece", [gif_profile(b""), gif_profile(P3[:300]), gif_profile(GREY), gif_profile(P3)[:14] + b"\0"]
)
def test_a_broken_profile_of_a_gif_is_ignored(piece: bytes) -> None:
    plain = swatch(gif((2, 1), (0, 0, 2, 1), [1, 2]))
    assert swatch(gif((2, 1), (0, 0, 2, 1), [1, 2], before=piece)) == plain


@pytest.mark.parametrize("bits", [24, 32])
def test_the_profile_of_a_bmp_lies_behind_its_pixels(bits: int) -> None:
    colours = np.dstack([DOTS[::-1, :, ::-1], np.zeros(DOTS.shape[:2], np.uint8)])[:, :, : bits // 8]
    place, masks = 124 + colours.size, struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0)

    def picture(kind: bytes, length: int, icc: bytes) -> bytes:
        more = masks + kind + bytes(48) + struct.pack("<IIII", 4, place, length, 0)
        header = info_header(24, 16, bits, 3 if bits == 32 else 0, length=124, more=more)
        return bmp(header, colours.tobytes() + icc)

    converted = np.asarray(decode(encode(DOTS, "PNG", icc_profile=P3)))
    assert np.array_equal(np.asarray(decode(picture(b"DEBM", len(P3), P3))), converted)
    for ignored in (picture(b"KNIL", len(P3), P3), picture(b"DEBM", len(P3), P3[:-1]), picture(b"DEBM", 5, b"nope.")):
        assert np.array_equal(np.asarray(decode(ignored)), DOTS)


def test_greys_are_converted_by_a_profile_for_greys() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32)
    for image in (Image.fromarray(ramp), Image.fromarray(ramp).convert("LA")):
        found = np.asarray(decode(encode(image, "PNG", icc_profile=GREY)), float)
        assert np.abs(found - expected(ramp[..., None].repeat(3, 2), 1.0, S_COLUMNS)).max() <= 1.5
    stated = {256: 32, 257: 8, 278: 8, 258: 16, 262: 1, 34675: GREY}
    wide = tiff(">", (ramp * np.uint16(257)).astype(">u2").tobytes(), stated)
    assert np.array_equal(np.asarray(decode(wide)), np.asarray(decode(encode(ramp, "PNG", icc_profile=GREY))))


def test_a_palette_and_transparency_are_converted() -> None:
    image = Image.fromarray(DOTS).quantize(8)
    plain = np.asarray(image.convert("RGB"))
    found = np.asarray(decode(encode(image, "PNG", icc_profile=P3)))
    assert np.array_equal(found, np.asarray(decode(encode(plain, "PNG", icc_profile=P3))))
    clear = np.dstack([DOTS, np.zeros(DOTS.shape[:2], np.uint8)])
    assert np.unique(np.asarray(decode(encode(clear, "PNG", icc_profile=P3)))).tolist() == [255]


@pytest.mark.parametrize("icc", [P3, GREY], ids=["colour", "grey"])
def test_what_is_half_transparent_is_mixed_with_white_in_srgb(icc: bytes) -> None:
    """As browsers do; mixed before, a dark colour of a linear profile would be far too bright."""
    mode = "RGB" if icc == P3 else "L"
    dots = Image.fromarray(DOTS).convert(mode)
    opaque = np.asarray(decode(encode(dots, "PNG", icc_profile=icc))).astype(float)
    alpha = np.linspace(0, 255, DOTS.shape[0] * DOTS.shape[1]).astype(np.uint8).reshape(DOTS.shape[:2])
    dots.putalpha(Image.fromarray(alpha))
    share = alpha[..., None] / 255
    found = np.asarray(decode(encode(dots, "PNG", icc_profile=icc)))
    assert np.abs(found - (opaque * share + 255 * (1 - share))).max() <= 1


def lut_profile() -> bytes:
    """CMYK -> Lab by a table of two steps: white paper, and every ink as black."""
    lab = np.zeros((2, 2, 2, 2, 3), np.uint8)
    lab[...] = (0, 128, 128)
    lab[0, 0, 0, 0] = (255, 128, 128)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += bytes(range(256)) * 4 + lab.tobytes() + bytes(range(256)) * 3
    made = profile(b"CMYK", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"A2B0": table}, kind=b"prtr")
    return made[:20] + b"Lab " + made[24:]


def test_inks_are_converted_by_their_own_profile() -> None:
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0]]], np.uint8), "CMYK")
    encoded = encode(image, "TIFF", icc_profile=lut_profile())
    assert np.asarray(decode(encoded)).tolist() == [[WHITE, [0, 0, 0]]]
    assert np.asarray(decode(encoded, icc="ignore")).tolist() == [[WHITE, [0, 255, 255]]]


BROKEN = {
    "nonsense": b"nonsense" * 40,
    "empty of tags": profile(b"RGB ", {}),
    "cut": P3[:200],
    "tags that lead out": P3[:128] + struct.pack(">I", 9) + b"rXYZ\xff\xff\xff\xff\xff\xff\xff\xff" * 9,
    "countless tags": P3[:128] + b"\xff\xff\xff\xff" + P3[132:],
    "no signature": P3[:36] + b"nope" + P3[40:],
    "a link between devices": P3[:12] + b"link" + P3[16:],
    "named colours": P3[:12] + b"nmcl" + P3[16:],
    "for greys": GREY,
    "for inks": lut_profile(),
    "for Lab": P3[:16] + b"Lab " + P3[20:],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_profile_that_is_broken_or_of_other_channels_changes_nothing(name: str) -> None:
    for format_ in ("PNG", "TIFF"):
        found = np.asarray(decode(encode(DOTS, format_, icc_profile=BROKEN[name])))
        assert np.array_equal(found, DOTS)


def test_a_profile_for_rgb_changes_no_greys_or_inks() -> None:
    grey = DOTS[..., 0]
    assert np.array_equal(np.asarray(decode(encode(grey, "PNG", icc_profile=P3)))[..., 0], grey)
    inks = Image.fromarray(np.dstack([DOTS, DOTS[..., :1]]), "CMYK")
    assert np.array_equal(
        np.asarray(decode(encode(inks, "TIFF", icc_profile=P3))), np.asarray(decode(encode(inks, "TIFF")))
    )


def test_a_profile_that_means_srgb_changes_nothing() -> None:
    """LittleCMS's own, one of the same curve as a table, and one with a note of another maker in it."""
    steps = np.linspace(0, 1, 1024)
    table = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    curves = b"curv" + struct.pack(">II", 0, 1024) + np.rint(table * 65_535).astype(">u2").tobytes()
    columns = {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), S_COLUMNS, strict=True)}
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249), **columns, b"rTRC": curves, b"gTRC": curves, b"bTRC": curves}
    for icc in (SRGB, profile(b"RGB ", tags), profile(b"RGB ", tags | {b"cprt": b"text" + bytes(4) + b"free\0"})):
        assert _conversion(icc) is None
        assert np.array_equal(np.asarray(decode(encode(DOTS, "PNG", icc_profile=icc))), DOTS)


def test_a_transform_is_built_once_and_the_last_few_are_kept() -> None:
    _conversion.cache_clear()
    for _ in range(3):
        decode(encode(DOTS, "PNG", icc_profile=P3))
    assert _conversion.cache_info().misses == 1
    for number in range(2 * TRANSFORMS):
        decode(encode(DOTS, "PNG", icc_profile=rgb_profile(1 + number / 10, *P3_COLUMNS)))
    assert _conversion.cache_info().currsize == TRANSFORMS


def test_threads_share_a_transform() -> None:
    encoded = [encode(np.roll(DOTS, shift, 1), "PNG", icc_profile=P3) for shift in range(8)]
    alone = [np.asarray(decode(one)) for one in encoded]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            for found, right in zip(pool.map(decode, encoded), alone, strict=True):
                assert np.array_equal(np.asarray(found), right)


def test_any_profile_gives_a_picture_or_an_image_error() -> None:
    random = np.random.default_rng(9)
    kinds = [(DOTS, "PNG", P3), (DOTS[..., 0], "PNG", GREY)]
    kinds.append((np.asarray(Image.fromarray(DOTS).convert("CMYK")), "TIFF", lut_profile()))
    for number in range(600):
        dots, format_, right = kinds[number % 3]
        spoilt = bytearray(right)
        for place in random.integers(0, 400 if number % 2 else len(spoilt), random.integers(1, 9)):
            spoilt[place % len(spoilt)] = random.choice([0, 1, 127, 128, 255, random.integers(0, 256)])
        image = Image.fromarray(dots, "CMYK") if dots.shape[-1] == 4 else Image.fromarray(dots)
        try:
            assert decode(encode(image, format_, icc_profile=bytes(spoilt))).size == (24, 16)
        except ImageError as error:
            pytest.fail(f"{error} from {spoilt.hex()}")


def spec(**more: Any) -> Preprocess:
    half = (0.5, 0.5, 0.5)
    return Preprocess(input_size=12, crop_pct=1.0, interpolation="bicubic", mean=half, std=half, **more)


def test_a_bundle_says_whether_profiles_count_and_old_ones_ignore_them() -> None:
    plain, stated = encode(DOTS, "PNG"), encode(DOTS, "PNG", icc_profile=PRO)
    assert spec().icc == "ignore"
    assert np.array_equal(preprocess(stated, spec()), preprocess(plain, spec()))
    assert not np.array_equal(preprocess(stated, spec(icc="srgb")), preprocess(plain, spec(icc="srgb")))


@pytest.mark.parametrize("kind", ["exact", "fast"])
def test_the_tensor_is_nearly_that_of_a_picture_converted_before(kind: Any) -> None:
    smooth = Image.fromarray(DOTS[:3, :4]).resize((480, 320), Image.Resampling.BICUBIC)
    right = spec(icc="srgb")
    encoded = encode(smooth, "JPEG", quality=95, icc_profile=P3)
    late = preprocess(encoded, right, pixels=kind)
    early = to_tensor(decode(encoded), right)
    unconverted = preprocess(encoded, spec(), pixels=kind)
    assert np.abs(late - early).mean() < 0.2 * np.abs(unconverted - early).mean()


def test_read_pixels_leaves_the_profile_for_later() -> None:
    image = read_pixels(open_image(encode(DOTS, "PNG", icc_profile=P3)))
    assert np.array_equal(np.asarray(image), DOTS)
    assert np.array_equal(np.asarray(to_srgb(image)), np.asarray(decode(encode(DOTS, "PNG", icc_profile=P3))))
    assert "icc_profile" not in read_pixels(open_image(encode(DOTS, "PNG", icc_profile=P3)), icc="ignore").info


def test_a_profile_that_does_not_match_is_taken_out() -> None:
    for mode, icc, space in (
        ("RGB", P3, "RGB"),
        ("RGB", GREY, None),
        ("L", GREY, "L"),
        ("P", P3, "RGB"),
        ("L", P3, None),
    ):
        image = Image.new(mode, (1, 1))
        image.info["icc_profile"] = icc
        assert keep_matching_profile(image) == space
        assert ("icc_profile" in image.info) is (space is not None)
    assert Image.open(BytesIO(encode(DOTS, "PNG", icc_profile=P3))).info["icc_profile"] == P3
