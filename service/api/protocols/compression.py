"""Compressed request bodies (`Content-Encoding: gzip` or `deflate`), for tensors.

1. a body that unpacks to more than the limit is rejected when it reaches the limit, however small it was when sent.
"""

from __future__ import annotations

import zlib

from service.api.problems import RequestError

# For zlib: 15 bits of window, plus 32 to accept a gzip or a zlib header.
_EITHER_HEADER = 15 + 32


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Blocks. Raises RequestError for an unknown encoding, broken data, and more than `max_bytes` unpacked."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise RequestError(
            "unsupported_media_type",
            f"Content-Encoding {encoding} is not accepted: send gzip, deflate or the body as it is",
            headers={"Accept-Encoding": "gzip, deflate, identity"},
        )
    stream = zlib.decompressobj(_EITHER_HEADER)
    try:
        unpacked = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError("malformed_request", f"the body is not {encoding} data: {error}") from error
    if len(unpacked) > max_bytes:
        raise RequestError("body_too_large", f"the body unpacks to more than {max_bytes} bytes, the limit")
    if not stream.eof or stream.unused_data:
        raise RequestError("malformed_request", f"the body is not one whole stream of {encoding} data")
    return unpacked
