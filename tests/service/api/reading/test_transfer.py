from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.problems import RequestError
from service.api.reading.transfer import decode_base64, decode_part, json_as_utf8, without_line_breaks


def decoded(text: str) -> bytes:
    return decode_base64(text, "here", 3)


@given(st.binary(max_size=60), st.booleans(), st.booleans(), st.booleans())
def test_every_spelling_of_base64_means_the_same(content: bytes, url_safe: bool, padded: bool, broken: bool) -> None:
    text = (base64.urlsafe_b64encode(content) if url_safe else base64.b64encode(content)).decode()
    text = text if padded else text.rstrip("=")
    if broken:
        text = "\r\n".join(text[i : i + 7] for i in range(0, len(text), 7)) + " \t\n"
    assert decoded(text) == content


@pytest.mark.parametrize(
    ("uri", "content"),
    [
        ("data:image/png;base64,+/8=", b"\xfb\xff"),
        ("DATA:image/png;BASE64,-_8", b"\xfb\xff"),
        ("data:;base64,+/8=", b"\xfb\xff"),
        ("data:image/png; base64, +/8=", b"\xfb\xff"),
        ("data:image/png;name=a%20b.png;charset=utf-8;base64,+/8=", b"\xfb\xff"),
        ("data:image/png;base64,%2B%2F8%3D", b"\xfb\xff"),
        ("data:image/png;base64,+/8%0A%3D", b"\xfb\xff"),
        ("data:image/png,%FB%ff", b"\xfb\xff"),
        ("data:,", b""),
        (" \ndata:image/png;base64,+/8=", b"\xfb\xff"),
    ],
)
def test_a_data_uri_has_parameters_and_percent_encoding(uri: str, content: bytes) -> None:
    assert decoded(uri) == content


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A", "not valid base64"),
        ("AA=", "not valid base64"),
        ("AA==AA==", "not valid base64"),
        ("A\u00a0AAA", "not valid base64"),
        ("+-AA", "mixes the alphabets"),
        ("/_AA", "mixes the alphabets"),
        ("AA/ " * 500, "a form decoder took the"),
        ("data:image/png;base64", "a data: URI must read"),
    ],
)
def test_what_may_mean_two_things_is_rejected_with_its_place(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        decoded(text)
    assert (caught.value.code, caught.value.index) == ("malformed_request", 3)
    assert str(caught.value).startswith("here: ")


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("", b"\xfb\r\n"),
        ("binary", b"\xfb\r\n"),
        ("8bit", b"\xfb\r\n"),
        ("base64", b"+w0K\r\n"),
        ("quoted-printable", b"=FB=\r\n\r\n"),
    ],
)
def test_a_part_has_a_transfer_encoding(encoding: str, sent: bytes) -> None:
    assert decode_part(sent, encoding, "part 0", 0) == b"\xfb\r\n"


def test_json_of_half_a_character_is_malformed() -> None:
    with pytest.raises(RequestError, match="the JSON is not valid utf-16"):
        json_as_utf8(b"\xff\xfe{")


@given(st.dictionaries(st.text('\\"nrt\n\t/é', max_size=9), st.text('\\"nrt\n\r\t/é', max_size=99), max_size=3))
def test_long_strings_lose_nothing_but_line_breaks(strings: dict[str, str]) -> None:
    def plain(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
        return [tuple(text.translate({10: None, 13: None, 9: None}) for text in pair) for pair in pairs]

    shorter = without_line_breaks(json.dumps(strings).encode(), long=1)
    assert plain(json.loads(shorter, object_pairs_hook=list)) == plain(strings.items())


def test_base64_in_lines_is_parsed_without_them_across_steps() -> None:
    lines = b"\\n".join([b"A" * 76] * 5000)
    assert without_line_breaks(b'{"b64": "%s"}' % lines, long=1000) == b'{"b64": "%s"}' % lines.replace(b"\\n", b"")
    assert without_line_breaks(b'{"b64": "%s"}' % lines) == b'{"b64": "%s"}' % lines, "it is short"
