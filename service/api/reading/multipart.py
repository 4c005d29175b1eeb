"""multipart/form-data (RFC 7578), parsed while it arrives.

1. a form is read the same way in whatever pieces it arrives, and each byte is searched once;
2. lines end in CRLF or in LF; a byte order mark, a preamble, an epilogue and spaces after a boundary are skipped;
3. a part's head is bounded; the content of an unwanted part is dropped as it arrives.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from urllib.parse import unquote_to_bytes

# The head of a real part has about 150 bytes; file names may be long.
MAX_HEAD_BYTES = 16_384
# RFC 2046 allows 70.
MAX_BOUNDARY_BYTES = 256
# The content of a part is kept in pieces of at least this size.
PIECE_BYTES = 1 << 16

# What follows a boundary: the end of the form, or of the line.
_AFTER_BOUNDARY = re.compile(rb"(--)|[ \t]{0,100}(\r?\n)")
_BEGINNING_OF_IT = re.compile(rb"-?|[ \t]{0,100}\r?")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_QUOTED_PAIR = re.compile(r'\\(["\\])')
# Character sets of file names besides UTF-8, as mail programs write them.
_CHARSET = re.compile(
    r"iso-8859-([1-9]|1[013-6])|windows-125[0-8]|us-ascii|shift_jis|euc-(jp|kr)|gbk|gb2312|gb18030|big5|koi8-[ru]"
)
_WINDOWS_FOLDER = re.compile(r"^(?:[A-Za-z]:(?=\\)|\\).*\\")


class MalformedForm(Exception):
    """The text says what is wrong with the form."""


class FormParser:
    """Calls `begin_part` with the headers of each part, and `end_part` with the pieces of its content if `begin_part`
    wants it."""

    def __init__(
        self,
        boundary: bytes,
        begin_part: Callable[[Mapping[str, str]], bool],
        end_part: Callable[[list[bytes]], None],
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        """Raises MalformedForm, and so does `feed`."""
        if len(boundary) > MAX_BOUNDARY_BYTES:
            raise MalformedForm(f"its boundary is longer than {MAX_BOUNDARY_BYTES} bytes")
        self.has_begun = self.has_ended = False
        self._begin_part = begin_part
        self._end_part = end_part
        self._delimiter = b"\n--" + boundary
        self._buffer = bytearray(b"\n")  # a form may begin with its boundary, which then follows a line's end as well
        self._at = 0  # everything before it is finished
        self._searched = 0  # no delimiter begins before it
        self._line_end = b""
        self._wanted = False
        self._piece_bytes = piece_bytes
        self._pieces: list[bytes] = []  # of the current part
        # A function of the class: a bound method would keep the parser, and all that it has read, in a cycle.
        self._step: Callable[[FormParser], bool] = FormParser._skip_mark

    def feed(self, chunk: bytes) -> None:
        self._buffer += chunk
        while self._step(self):
            continue
        done = min(self._at, self._searched)
        del self._buffer[:done]
        self._at -= done
        self._searched -= done

    def _skip_mark(self) -> bool:
        """Some programs write one before any text."""
        begin = self._buffer[1 : 1 + len(BOM_UTF8)]
        if begin != BOM_UTF8 and BOM_UTF8.startswith(begin):
            return False
        if begin == BOM_UTF8:
            del self._buffer[1 : 1 + len(BOM_UTF8)]
        self._step = FormParser._skip_preamble
        return True

    def _skip_preamble(self) -> bool:
        found = self._find_delimiter()
        if found is None:
            self._at = self._searched
            return False
        self.has_begun = True
        self._line_end = found[1][2] or b""
        return self._pass_delimiter(found[1])

    def _find_delimiter(self) -> tuple[int, re.Match[bytes]] | None:
        """-> where it begins, and what follows it; None if it has not arrived yet."""
        begin = self._buffer.find(self._delimiter, self._searched)
        while begin >= 0:
            after = begin + len(self._delimiter)
            if match := _AFTER_BOUNDARY.match(self._buffer, after):
                return begin, match
            if _BEGINNING_OF_IT.fullmatch(self._buffer, after):
                self._searched = begin
                return None
            begin = self._buffer.find(self._delimiter, after)
        self._searched = max(self._searched, len(self._buffer) - len(self._delimiter) + 1)
        return None

    def _pass_delimiter(self, match: re.Match[bytes]) -> bool:
        self.has_ended = match[1] is not None
        self._step = FormParser._skip_epilogue if self.has_ended else FormParser._read_head
        # The head includes the line break before it, so that an empty head ends like any other.
        self._at = self._searched = match.end() if self.has_ended else match.end() - 1
        return True

    def _read_head(self) -> bool:
        match = _END_OF_HEAD.search(self._buffer, self._at, self._at + MAX_HEAD_BYTES)
        if match is None:
            if len(self._buffer) - self._at >= MAX_HEAD_BYTES:
                raise MalformedForm(f"the head of a part is longer than {MAX_HEAD_BYTES} bytes")
            return False
        self._wanted = self._begin_part(_read_headers(bytes(self._buffer[self._at + 1 : match.start()])))
        self._at = match.end()
        self._searched = (
            self._at - 1
        )  # the blank line's line break may be the one before the boundary: the part is empty
        self._step = FormParser._read_content
        return True

    def _read_content(self) -> bool:
        found = self._find_delimiter()
        if not self._wanted:
            self._at = max(self._at, self._searched)
        elif found is None and self._searched - self._at > self._piece_bytes:
            self._take(self._searched - 1)  # a line break may belong to the boundary after it
        if found is None:
            return False
        begin, match = found
        if self._wanted:
            self._take(begin - 1 if self._line_end == b"\r\n" and self._buffer[begin - 1 : begin] == b"\r" else begin)
            pieces, self._pieces = self._pieces, []
            self._end_part(pieces)
        return self._pass_delimiter(match)

    def _take(self, end: int) -> None:
        """The content up to this point."""
        if end > self._at:
            with memoryview(self._buffer) as view:
                self._pieces.append(bytes(view[self._at : end]))
            self._at = end

    def _skip_epilogue(self) -> bool:
        self._at = self._searched = len(self._buffer)
        return False


def _read_headers(head: bytes) -> dict[str, str]:
    """-> by name in lower case; the bytes of the values as Latin-1. A line that begins with a space continues the one
    before it."""
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", head)
    headers: dict[str, str] = {}
    for line in unfolded.decode("latin-1").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
        elif line.strip():
            raise MalformedForm("a header of a part has no colon")
    return headers


def read_options(value: str) -> tuple[str, dict[str, str]]:
    """`Multipart/Form-Data; boundary="a b"` -> `multipart/form-data`, {`boundary`: `a b`}"""
    kind, _, _ = value.partition(";")
    options: dict[str, str] = {}
    for name, text in _PARAMETER.findall(value[len(kind) :]):
        quoted = len(text) > 1 and text[0] == text[-1] == '"'
        options.setdefault(name.lower(), _QUOTED_PAIR.sub(r"\1", text[1:-1]) if quoted else text.strip())
    return kind.strip().lower(), options


def read_filename(disposition: str) -> str | None:
    """The file's name in a Content-Disposition; None if it has none, empty for a file field that was left empty.

    `filename*` (RFC 8187) and `filename*0`, `filename*1` (RFC 2231) take precedence over `filename`, as in RFC 6266;
    RFC 7578 has none of them, but some clients send only them.
    """
    _, options = read_options(disposition)
    if extended := options.get("filename*"):
        name = _decode([(extended, True)])
    elif pieces := list(_continued(options, "filename")):
        name = _decode(pieces)
    elif "filename" in options:
        name = options["filename"].encode("latin-1").decode("utf-8", "replace")
    else:
        return None
    return _WINDOWS_FOLDER.sub("", name)  # old browsers send the whole path


def _continued(options: Mapping[str, str], name: str) -> Iterator[tuple[str, bool]]:
    """The pieces `name*0`, `name*1*` and so on, and whether each is percent-encoded."""
    for number in count():
        piece = f"{name}*{number}"
        if piece not in options and f"{piece}*" not in options:
            return
        yield options.get(piece) or options.get(f"{piece}*", ""), piece not in options


def _decode(pieces: list[tuple[str, bool]]) -> str:
    """The first one begins with a character set and a language if it is percent-encoded."""
    (first, is_encoded), *others = pieces
    charset, encoded = "utf-8", first
    if is_encoded:
        charset, encoded = first.partition("'")[0].lower(), first.split("'", 2)[-1]
    texts = [(encoded, is_encoded), *others]
    content = b"".join(unquote_to_bytes(text) if is_coded else text.encode("latin-1") for text, is_coded in texts)
    return content.decode(charset if _CHARSET.fullmatch(charset) else "utf-8", "replace")
