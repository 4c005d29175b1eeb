"""Request bodies that came compressed (`Content-Encoding: gzip` or `deflate`), as tensors may.

1. what unpacks to more than the limit is refused when the limit is reached, however small it came.
"""

from __future__ import annotations

import zlib

from service.api.problems import RequestError

# zlib: 15 bits of window; 32 more: take a gzip header or a zlib one, whichever comes.
_EITHER_HEADER = 15 + 32


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Blocks. Raises RequestError for an unknown encoding, broken data, and more than `max_bytes` unpacked."""
    if encoding == "identity":
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
