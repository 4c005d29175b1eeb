from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.api.reading.multipart import MAX_HEAD_BYTES, FormParser, MalformedForm, read_filename, read_options


class Parts(list[tuple[dict[str, str], bytes]]):
    """What a form has; `unwanted`: the parts whose content is left out."""

    def __init__(self, unwanted: str = "", kept: int = 1000) -> None:
        super().__init__()
        self.unwanted = unwanted
        self.parser = FormParser(b"b", self.begin, self.end, kept)

    def begin(self, headers: Mapping[str, str]) -> bool:
        self.headers = dict(headers)
        return headers.get("name") != self.unwanted

    def end(self, pieces: list[bytes]) -> None:
        self.append((self.headers, b"".join(pieces)))


def parsed(body: bytes, piece: int = 10_000, unwanted: str = "", kept: int = 1000) -> Parts:
    parts = Parts(unwanted, kept)
    for start in range(0, len(body), piece):
        parts.parser.feed(body[start : start + piece])
    return parts


@given(
    st.lists(st.binary(max_size=100) | st.text("\r\n-b", max_size=100).map(str.encode), max_size=4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([b"\r\n", b"\n"]),
    st.booleans(),
)
def test_contents_come_back_as_they_were(
    contents: list[bytes], piece: int, kept: int, line_end: bytes, padded: bool
) -> None:
    assume(not any(re.search(rb"(^|\n)--b(--|[ \t]*\r?\n|$)", content + line_end) for content in contents))
    boundary = b"--b" + b" " * padded + line_end
    body = b"".join(boundary + b"x: y" + 2 * line_end + content + line_end for content in contents)
    parts = parsed(body + b"--b--", piece, kept=kept)
    assert parts == [({"x": "y"}, content) for content in contents]
    assert parts.parser.has_ended


@pytest.mark.parametrize(
    "content", [b"\n--", b"\r\n--", b"\n--bc", b"\r\n--b-", b"\r\n--b \r", b"x--b--", b"\r\n--\r\n--"]
)
def test_what_looks_like_a_boundary_is_content(content: bytes) -> None:
    for piece, kept in ((1, 1000), (1, 1), (1000, 1)):
        assert parsed(b"--b\r\n\r\n" + content + b"\r\n--b--", piece, kept=kept) == [({}, content)]


@pytest.mark.parametrize(
    ("body", "contents"),
    [
        (b"--b\r\n\r\n--b--", [b""]),
        (b"--b\r\n\r\n\r\n--b--", [b""]),
        (b"--b\r\nx: y\r\n\r\n--b\r\n\r\nz\r\n--b--", [b"", b"z"]),
        (b"--b\r\n\r\nprinted\n--b--\n", [b"printed"]),
        (b"--b--", []),
    ],
)
def test_forms_at_the_edge(body: bytes, contents: list[bytes]) -> None:
    for piece in (1, 1000):
        parts = parsed(body, piece)
        assert [content for _, content in parts] == contents
        assert parts.parser.has_ended


def test_a_part_that_nobody_wants_takes_no_memory() -> None:
    parts = Parts("big")
    parts.parser.feed(b"--b\r\nname: big\r\n\r\n")
    for _ in range(100):
        parts.parser.feed(bytes(10_000))
        assert len(parts.parser._buffer) < 20_000
    parts.parser.feed(b"\r\n--b\r\nname: a\r\n\r\nx\r\n--b--")
    assert parts == [({"name": "a"}, b"x")]


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_a_form_may_begin_with_a_byte_order_mark(piece: int) -> None:
    assert parsed(b"\xef\xbb\xbf--b\r\n\r\nx\r\n--b--", piece) == [({}, b"x")]
    assert parsed(b"\xef\xbb--b\r\n\r\nx\r\n--b--", piece) == []


@pytest.mark.parametrize("end", [b"", b"--b", b"--b-", b"--b\r", b"--b\r\n", b"--b\r\nx: y\r\n", b"--bc--"])
def test_a_form_without_its_last_boundary_has_not_ended(end: bytes) -> None:
    assert not parsed(b"--b\r\n\r\nx\r\n" + end).parser.has_ended


def test_a_head_is_bounded() -> None:
    for piece in (1000, 100_000):
        with pytest.raises(MalformedForm, match=f"longer than {MAX_HEAD_BYTES} bytes"):
            parsed(b"--b\r\nx: " + b"y" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n", piece)


def test_options_are_quoted_or_not() -> None:
    assert read_options('Form-Data ; NAME="a;\\"b\\\\"; b = c ;d="";e=;name=2') == (
        "form-data",
        {"name": 'a;"b\\', "b": "c", "d": "", "e": ""},
    )


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("form-data; name=a", None),
        ("", None),
        ('form-data; filename=""', ""),
        (r'form-data; filename="C:\cat.jpg"', "cat.jpg"),
        (r'form-data; filename="\\server\photos\cat.jpg"', "cat.jpg"),
        (r'form-data; filename="a\b.jpg"', r"a\b.jpg"),
        ("form-data; filename*=cat%20.jpg", "cat .jpg"),
        ("form-data; filename*=UTF-8''it's.jpg", "it's.jpg"),
        ("form-data; filename*=UTF-8''%FF.jpg", "\ufffd.jpg"),
        ("form-data; filename*=klingon''a.jpg", "a.jpg"),
        ("form-data; filename*=windows-1252'de'%80.jpg", "€.jpg"),
        ("form-data; filename*=Shift_JIS''%94L.jpg", "猫.jpg"),
        ("form-data; filename*=iso-8859-12''%80.jpg", "\ufffd.jpg"),
        ("form-data; filename*=punycode''%41.jpg", "A.jpg"),
        ("form-data; filename*0=ca; filename*1=t.jpg", "cat.jpg"),
        ('form-data; filename*1="t.jpg"; filename*0="ca"; filename=dog.jpg', "cat.jpg"),
        ("form-data; filename*0*=UTF-8''%e7%8c; filename*1*=%ab; filename*2=.jpg", "猫.jpg"),
        ("form-data; filename*0*=iso-8859-1'en'%fc; filename*1=%20b.jpg", "ü%20b.jpg"),
        ("form-data; FILENAME*0=a; filename*2=c", "a"),
        ("form-data; filename*1=b", None),
        ('form-data; filename*0=""', ""),
        ("form-data; filename*0=a; filename*=UTF-8''b", "b"),
        ('form-data; filename="\xe7\x8c\xab"', "猫"),
    ],
)
def test_the_name_of_a_file(disposition: str, name: str | None) -> None:
    assert read_filename(disposition) == name
