from __future__ import annotations

import gzip
import zlib

import pytest

from service.api.problems import RequestError
from service.api.protocols.compression import unpack

BODY = bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("identity", BODY), ("gzip", gzip.compress(BODY, mtime=0)), ("deflate", zlib.compress(BODY))],
)
def test_a_body_up_to_the_limit_is_unpacked(encoding: str, body: bytes) -> None:
    assert unpack(body, encoding, len(BODY)) == BODY


def test_what_unpacks_to_more_than_the_limit_is_refused_when_the_limit_is_reached_however_small_it_came() -> None:
    bomb = gzip.compress(bytes(50_000_000), mtime=0)
    assert len(bomb) < 50_000
    with pytest.raises(RequestError, match="unpacks to more than 1000 bytes, the limit") as caught:
        unpack(bomb, "gzip", 1000)
    assert caught.value.code == "body_too_large"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"not packed at all", "the body is not gzip data"),
        (gzip.compress(BODY, mtime=0)[:-4], "not one whole stream"),
        (gzip.compress(BODY, mtime=0) + b"more", "not one whole stream"),
        (b"", "not one whole stream"),
    ],
)
def test_broken_data_is_the_client_s_fault(body: bytes, detail: str) -> None:
    with pytest.raises(RequestError, match=detail) as caught:
        unpack(body, "gzip", 1 << 20)
    assert caught.value.code == "malformed_request"


def test_an_unknown_encoding_is_told_the_known_ones() -> None:
    with pytest.raises(RequestError, match="Content-Encoding br is not accepted: send gzip") as caught:
        unpack(BODY, "br", 1 << 20)
    assert (caught.value.code, caught.value.headers["Accept-Encoding"]) == (
        "unsupported_media_type",
        "gzip, deflate, identity",
    )
