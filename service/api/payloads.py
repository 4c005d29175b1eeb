"""Request bodies -> encoded images, by content type.

1. a body over the limit is refused as soon as that is known: from Content-Length, or when the bytes pass it;
2. too many images are refused at the first one too many;
3. everything stays in memory, nothing touches the disk;
4. what is wrong with one image's bytes is that image's business, not found out here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.api.problems import RequestError
from service.api.schemas import BINARY, PIXEL_B64, ClassifyRequest, reference
from service.settings import Settings

# A form may carry a few ordinary fields beside its files; we skip them, but not without end.
MAX_PLAIN_FIELDS = 100
# Between what JSON may hold beside its images.
OTHER_COMMAS = 10


@dataclass(frozen=True)
class Upload:
    """One encoded image as it was sent."""

    filename: str | None
    content: bytes


@dataclass(frozen=True)
class Body:
    """A body on its way in. `parameters` are those of the content type; `chunks` raises RequestError over the limit."""

    chunks: AsyncIterator[bytes]
    parameters: Mapping[bytes, bytes]
    max_images: int

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks])


def too_many_images(max_images: int) -> RequestError:
    return RequestError(
        "too_many_images", f"the request has more than {max_images} images, the limit; split it into several"
    )


async def read_uploads(request: Request, settings: Settings) -> list[Upload]:
    """-> at least one Upload, in the order sent. Raises RequestError; starlette's ClientDisconnect."""
    media_type, parameters = parse_options_header(request.headers.get("content-type"))
    read = _reader(media_type.decode("latin-1")).read
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RequestError(
            "unsupported_media_type",
            f"Content-Encoding {encoding} is not accepted: send the body as it is (images are compressed already)",
            headers={"Accept-Encoding": "identity"},
        )
    async with aclosing(_limited(request, settings.max_body_bytes)) as chunks:
        return await read(Body(chunks, parameters, settings.max_images_per_request))


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises RequestError over the limit; starlette's ClientDisconnect."""
    async with aclosing(_limited(request, max_bytes)) as chunks:
        return b"".join([chunk async for chunk in chunks])


def _reader(media_type: str) -> Reader:
    kind, slash, _ = media_type.partition("/")
    reader = READERS.get(media_type) or READERS.get(f"{kind}{slash}*")
    if reader is None:
        got = f"Content-Type {media_type} is not accepted" if media_type else "the request has no Content-Type"
        raise RequestError(
            "unsupported_media_type",
            f"{got}; accepted: {', '.join(READERS)}; with curl: -F image=@FILE",
            headers={"Accept-Post": ", ".join(READERS)},
        )
    return reader


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    too_large = RequestError("body_too_large", f"the body is larger than {max_bytes} bytes, the limit")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    received = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > max_bytes:
                raise too_large
            yield chunk


async def read_raw(body: Body) -> list[Upload]:
    content = await body.read()
    if not content:
        raise RequestError("malformed_request", "the body is empty: send the bytes of an image")
    return [Upload(None, content)]


def refuse_countless(json: bytes, max_images: int) -> None:
    """Before it is parsed: a megabyte of `0,0,...` would take 600 in memory and three seconds of the event loop.

    A comma is between any two things in JSON, and an image has two at most, with that of a `data:` URI. Raises
    RequestError `too_many_images`.
    """
    if json.count(b",") > 2 * max_images + OTHER_COMMAS:
        raise too_many_images(max_images)


async def read_json(body: Body) -> list[Upload]:
    content = await body.read()
    refuse_countless(content, body.max_images)
    try:
        images = ClassifyRequest.model_validate_json(content).images
    except ValidationError as error:
        raise RequestError("malformed_request", explain(error, '{"images": [{"b64": "..."}]}')) from error
    if not images:
        raise RequestError("malformed_request", "images is empty: send at least one")
    if len(images) > body.max_images:
        raise too_many_images(body.max_images)
    return [Upload(None, decode_base64(image.b64, f"images[{i}].b64", i)) for i, image in enumerate(images)]


def explain(error: ValidationError, wanted: str) -> str:
    """`images[1].b64: Field required; the body is {"images": [{"b64": "..."}]}`"""
    first = error.errors(include_url=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    return f"{place or 'body'}: {first['msg']}; the body is {wanted}"


def decode_base64(text: str, place: str, index: int) -> bytes:
    """Base64, or a `data:` URI of it (RFC 2397). Raises RequestError, which says the `place` in the body."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise _bad_base64(place, index, "a data: URI must read data:image/...;base64,...")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_base64(place, index, f"not valid base64 ({error})") from error


def _bad_base64(place: str, index: int, why: str) -> RequestError:
    return RequestError("malformed_request", f"{place}: {why}", index=index)


async def read_multipart(body: Body) -> list[Upload]:
    boundary = body.parameters.get(b"boundary")
    if not boundary:
        raise RequestError("malformed_request", "the Content-Type multipart/form-data has no boundary")
    try:
        form = _Form(body, boundary)
        async for chunk in body.chunks:
            form.feed(chunk)
    except FormParserError as error:
        raise RequestError("malformed_request", f"the multipart body is broken: {error}") from error
    if not form.ended:
        raise RequestError("malformed_request", "the multipart body ends before its closing boundary")
    if not form.uploads:
        raise RequestError(
            "malformed_request", "no part of the form has a filename, so there is no image; with curl: -F image=@FILE"
        )
    return form.uploads


class _Form:
    """Collects the parts that have a filename while the body streams through the parser."""

    def __init__(self, body: Body, boundary: bytes) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._body = body
        self._plain_fields = 0
        self._filename: str | None = None
        self._header = (bytearray(), bytearray())
        self._content: list[memoryview] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._check_count,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def _begin_part(self) -> None:
        self._filename = None
        self._content = []

    def _begin_header(self) -> None:
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(value))
            # Browsers send an empty name for a file field that was left empty.
            self._filename = options.get(b"filename", b"").decode("utf-8", "replace") or None

    def _check_count(self) -> None:
        if self._filename is None:
            self._plain_fields += 1
            if self._plain_fields > MAX_PLAIN_FIELDS:
                raise RequestError("malformed_request", f"the form has more than {MAX_PLAIN_FIELDS} parts without file")
        elif len(self.uploads) == self._body.max_images:
            raise too_many_images(self._body.max_images)

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._filename is not None:
            self._content.append(memoryview(data)[start:end])  # copied once, when the part is whole

    def _end_part(self) -> None:
        if self._filename is not None:
            self.uploads.append(Upload(self._filename, b"".join(self._content)))

    def _end(self) -> None:
        self.ended = True


@dataclass(frozen=True)
class Reader:
    """One way to send images. `schema` and `example` describe the body in /openapi.json."""

    read: Callable[[Body], Awaitable[list[Upload]]]
    schema: dict[str, Any]
    example: dict[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        return {"schema": self.schema} | ({"example": self.example} if self.example else {})


# The Content-Types that POST /classify accepts.
READERS = {
    "image/*": Reader(read_raw, BINARY),
    "application/octet-stream": Reader(read_raw, BINARY),
    "multipart/form-data": Reader(
        read_multipart, {"type": "object", "properties": {"images": {"type": "array", "items": BINARY}}}
    ),
    "application/json": Reader(read_json, reference(ClassifyRequest), {"images": [{"b64": PIXEL_B64}]}),
}
