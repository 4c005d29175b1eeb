"""The promises of models.formats.gif."""

from __future__ import annotations

import pytest

from models.errors import ImageError
from models.preprocess import decode
from tests.models.formats.pictures import WHITE, gif, graphic_control, pixels

RED, GREEN, BLUE, DARK = [255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]
WHOLE = (0, 0, 2, 1)


def extension(label: int, *blocks: bytes) -> bytes:
    return bytes([0x21, label]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


NOTHING_TO_SAY = {
    "a comment": extension(0xFE, b"made by hand"),
    "a comment of commas": extension(0xFE, b",,,,;;;;"),
    "an empty comment": extension(0xFE),
    "an application's": extension(0xFF, b"NETSCAPE2.0", b"\1\0\0"),
    "an application's without its block": extension(0xFF, b"NETSCAPE2.0"),
    "an application's with a short name": extension(0xFF, b"X"),
    "an application's without a name": extension(0xFF),
    "XMP with its tail": extension(0xFF, b"XMP DataXMP", b"<x/>", *(bytes(range(255, 0, -1)) for _ in range(2))),
    "an ICC profile": extension(0xFF, b"ICCRGBG1012", b"nonsense"),
    "plain text": extension(1, bytes(12), b"text"),
    "an unknown label": extension(0x77, b"anything"),
    "a graphic control without content": extension(0xF9),
    "a graphic control that is too short": extension(0xF9, b"\1\0"),
    "bytes that begin nothing": b"\0\x05junk",
}


@pytest.mark.parametrize("name", NOTHING_TO_SAY)
def test_an_extension_that_says_nothing_about_pixels_decides_nothing(name: str) -> None:
    assert pixels(gif((2, 1), WHOLE, [1, 2], before=NOTHING_TO_SAY[name])) == [[GREEN, BLUE]]
    both = graphic_control(1) + NOTHING_TO_SAY[name]
    assert pixels(gif((2, 1), WHOLE, [1, 2], before=both)) == [[WHITE, BLUE]]


@pytest.mark.parametrize("trailer", [b"", b"\0", b"junk" * 100, b",", b"!", b"\x21\xf9\4"])
def test_what_follows_the_first_frame_may_be_missing_or_odd(trailer: bytes) -> None:
    assert pixels(gif((2, 1), WHOLE, [1, 2], trailer=trailer)) == [[GREEN, BLUE]]


@pytest.mark.parametrize("transparent", [None, 0, 3])
@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ((1, 1, 2, 1), [[WHITE] * 4, [WHITE, GREEN, BLUE, WHITE], [WHITE] * 4]),
        ((0, 0, 2, 1), [[GREEN, BLUE, WHITE, WHITE], [WHITE] * 4, [WHITE] * 4]),
        ((2, 2, 2, 1), [[WHITE] * 4, [WHITE] * 4, [WHITE, WHITE, GREEN, BLUE]]),
    ],
)
def test_the_canvas_outside_the_frame_is_transparent(
    frame: tuple[int, int, int, int], expected: list[list[list[int]]], transparent: int | None
) -> None:
    """Not the first colour, nor the background's, as browsers have it."""
    assert pixels(gif((4, 3), frame, [1, 2], before=graphic_control(transparent))) == expected


def test_a_frame_larger_than_the_screen_is_shown_whole() -> None:
    assert pixels(gif((1, 1), WHOLE, [1, 2])) == [[GREEN, BLUE]]


def test_a_frame_has_a_palette_of_its_own() -> None:
    local = bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    assert pixels(gif((2, 1), WHOLE, [1, 2], local=local)) == [[[4, 5, 6], [7, 8, 9]]]


def test_a_transparent_colour_is_white() -> None:
    assert pixels(gif((2, 1), WHOLE, [1, 2], before=graphic_control(2))) == [[GREEN, WHITE]]


def test_of_two_graphic_controls_the_last_counts() -> None:
    both = graphic_control(1) + graphic_control(None)
    assert pixels(gif((2, 1), WHOLE, [1, 2], before=both)) == [[GREEN, BLUE]]


def test_interlaced_rows_come_in_their_order() -> None:
    """Rows 0 and 4 first, then 2, then 1 and 3."""
    found = pixels(gif((1, 5), (0, 0, 1, 5), [0, 1, 2, 3, 0], flags=0x40))
    assert found == [[RED], [DARK], [BLUE], [RED], [GREEN]]


@pytest.mark.parametrize("ended", [True, False])
def test_missing_pixels_are_refused(ended: bool) -> None:
    with pytest.raises(ImageError, match="the GIF data is broken or truncated"):
        decode(gif((2, 2), (0, 0, 2, 2), [1, 2], ended=ended))


def test_a_gif_without_a_picture_is_none() -> None:
    with pytest.raises(ImageError, match="it looks like one but is damaged"):
        decode(gif((2, 1), WHOLE, [1, 2], before=b";"))
