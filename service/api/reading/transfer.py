"""Bytes that were sent as text: base64, `data:` URIs, the transfer encodings of form parts; and JSON that is not UTF-8.

1. variants that can mean one thing only are accepted: line breaks, the URL-safe alphabet, no padding;
2. what might mean two things is refused: mixed alphabets, spaces that were `+`.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from service.api.problems import RequestError

_WHITESPACE = re.compile(r"\s+", re.ASCII)
_URL_SAFE = str.maketrans("-_", "+/")
# A form decoder turns `+` into a space. Text of this length has a `+` practically always.
_LONG_ENOUGH_FOR_A_PLUS = 1000


def malformed(place: str, why: str, index: int | None) -> RequestError:
    return RequestError("malformed_request", f"{place}: {why}", index=index)


def decode_base64(text: str, place: str, index: int) -> bytes:
    """Base64, or a `data:` URI (RFC 2397). Raises RequestError, which names the `place` in the body."""
    text = text.lstrip()
    if text[:5].lower() == "data:":
        return _decode_data_uri(text, place, index)
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return _decode_unusual_base64(text, place, index)


def _decode_data_uri(uri: str, place: str, index: int) -> bytes:
    head, comma, text = uri.partition(",")
    if not comma:
        raise malformed(place, "a data: URI must read data:image/...;base64,...", index)
    if not head.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(text)
    return decode_base64(unquote_to_bytes(text).decode("latin-1") if "%" in text else text, place, index)


def _decode_unusual_base64(text: str, place: str, index: int) -> bytes:
    plain = _WHITESPACE.sub("", text)
    if " " in text and "+" not in plain and "/" in plain and len(plain) > _LONG_ENOUGH_FOR_A_PLUS:
        raise malformed(place, "not valid base64 (it has spaces and no +: a form decoder took the + out)", index)
    if ("-" in plain or "_" in plain) and ("+" in plain or "/" in plain):
        raise malformed(place, "not valid base64 (it mixes the alphabets +/ and -_)", index)
    padding = "" if plain.endswith("=") else "=" * (-len(plain) % 4)
    try:
        return b64decode(plain.translate(_URL_SAFE) + padding, validate=True)
    except ValueError as error:
        raise malformed(place, f"not valid base64 ({error})", index) from error


def decode_part(content: bytes, encoding: str, place: str, index: int) -> bytes:
    """The content of a form's part by its Content-Transfer-Encoding. Raises RequestError."""
    if encoding in ("", "binary", "8bit", "7bit"):
        return content
    if encoding == "base64":
        return decode_base64(content.decode("latin-1"), place, index)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(content)
    raise malformed(place, f"Content-Transfer-Encoding {encoding} is not known", index)


def json_as_utf8(content: bytes) -> bytes:
    """JSON in UTF-8 with a byte order mark, in UTF-16 or UTF-32 -> in plain UTF-8. Raises RequestError.

    RFC 8259 wants UTF-8 without a mark; the first bytes of JSON tell which one it is.
    """
    encoding = json.detect_encoding(content)
    if encoding == "utf-8":
        return content
    try:
        return content.decode(encoding).encode()
    except UnicodeError as error:
        raise RequestError("malformed_request", f"body: the JSON is not valid {encoding}") from error
