"""Request bodies -> encoded images, by content type: `READERS`; and the small body of feedback.

1. a body over the limit is rejected as soon as that is known: by its Content-Length, or when the bytes exceed it;
2. too many images are rejected at the first one over the limit;
3. everything stays in memory, nothing touches the disk;
4. whether an image can be decoded is not checked here: one bad image must not fail the others.

A new format is one function, `Body` -> list of `Upload`, and one line in `READERS`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request

from service.api.problems import RequestError
from service.api.reading.multipart import FormParser, MalformedForm, read_filename, read_options
from service.api.reading.transfer import count, decode_base64, decode_part, json_as_utf8, without_line_breaks
from service.api.schemas import BINARY, PIXEL_B64, ClassifyRequest, EncodedImage, Feedback, reference
from service.machine.aside import JOINING, aside_if_large, join, join_here
from service.settings import Settings

# A form may have a few ordinary fields besides its files. They are skipped, but only so many of them.
MAX_PLAIN_FIELDS = 100
# JSON may have a few commas that do not belong to an image: those of the priors.
OTHER_COMMAS = 1200
OTHER_ESCAPES = 1000
BYTES_PER_ESCAPE = 16
MOST_FEEDBACK_BYTES = 8192
_FEEDBACK = '{"request_id": "...", "index": 0, "label": "..."}, with null for none of the labels'


@dataclass(frozen=True)
class Upload:
    """One encoded image as it was sent."""

    filename: str | None
    content: bytes


@dataclass
class Body:
    """A body that is arriving. `parameters` are those of the content type; `chunks` raises RequestError over the limit.
    `priors`: those that a reader finds besides the images."""

    chunks: AsyncIterator[bytes]
    parameters: Mapping[str, str]
    max_images: int
    priors: Mapping[str, float] | None = None

    async def read(self) -> bytes:
        return await join([chunk async for chunk in self.chunks])


def too_many_images(max_images: int) -> RequestError:
    return RequestError(
        "too_many_images", f"the request has more than {max_images} images, the limit; split it into several"
    )


async def read_uploads(request: Request, settings: Settings) -> tuple[list[Upload], Mapping[str, float] | None]:
    """-> at least one Upload, in the order sent, and the priors if there are any. Raises RequestError; starlette's
    ClientDisconnect."""
    media_type, parameters = read_options(request.headers.get("content-type", ""))
    read = _reader(media_type).read
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RequestError(
            "unsupported_media_type",
            f"Content-Encoding {encoding} is not accepted: send the body uncompressed (images are compressed already)",
            headers={"Accept-Encoding": "identity"},
        )
    async with aclosing(_limited(request, settings.max_body_bytes)) as chunks:
        body = Body(chunks, parameters, settings.max_images_per_request)
        return await read(body), body.priors


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises RequestError over the limit; starlette's ClientDisconnect."""
    async with aclosing(_limited(request, max_bytes)) as chunks:
        return await join([chunk async for chunk in chunks])


async def read_feedback(request: Request) -> Feedback:
    """With any Content-Type: `access.callers` has checked who sends it. Raises as `read_body`."""
    content = json_as_utf8(await read_body(request, MOST_FEEDBACK_BYTES))
    try:
        return Feedback.model_validate_json(content)
    except ValidationError as error:
        raise RequestError("malformed_request", explain(error, _FEEDBACK)) from error


def _reader(media_type: str) -> Reader:
    reader = find_reader(media_type)
    if reader is None:
        got = f"Content-Type {media_type} is not accepted" if media_type else "the request has no Content-Type"
        raise RequestError(
            "unsupported_media_type",
            f"{got}; accepted: {', '.join(READERS)}; with curl: -F image=@FILE",
            headers={"Accept-Post": ", ".join(READERS)},
        )
    return reader


# From before application/json was registered.
_OLD_NAMES = dict.fromkeys(("text/json", "text/x-json", "application/x-json"), "application/json")


def find_reader(media_type: str) -> Reader | None:
    """By the type, by its kind (`image/*`), or by its structured suffix: `application/vnd.api+json` is JSON."""
    media_type = _OLD_NAMES.get(media_type, media_type)
    kind, slash, subtype = media_type.partition("/")
    _, plus, suffix = subtype.rpartition("+")
    return (
        READERS.get(media_type) or READERS.get(f"{kind}{slash}*") or (READERS.get(f"{kind}/{suffix}") if plus else None)
    )


def _is_one_image(media_type: str) -> bool:
    reader = find_reader(media_type)
    return reader is not None and reader.read is read_raw


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    received = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(max_bytes)
            yield chunk


def _too_large(max_bytes: int) -> RequestError:
    return RequestError("body_too_large", f"the body is larger than {max_bytes} bytes, the limit")


async def read_raw(body: Body) -> list[Upload]:
    content = await body.read()
    if not content:
        raise RequestError("malformed_request", "the body is empty: send the bytes of an image")
    return [Upload(None, content)]


def refuse_countless(json: bytes, max_images: int) -> None:
    """Before it is parsed: a megabyte of `0,0,...` would take 600 MB of memory and block the event loop for three
    seconds.

    JSON has a comma between any two values, and an image needs at most two, including that of a `data:` URI. Raises
    RequestError `too_many_images`.
    """
    if count(json, b",") > 2 * max_images + OTHER_COMMAS:
        raise too_many_images(max_images)
    refuse_escapes(json)


def refuse_escapes(json: bytes) -> None:
    """Text that is mostly escapes takes ten times as long to parse. Base64 has one a line, or before each `/`. Raises
    RequestError."""
    if count(json, b"\\") > OTHER_ESCAPES + len(json) // BYTES_PER_ESCAPE:
        raise RequestError("malformed_request", "the JSON has more escapes (\\) than an image in base64 needs")


async def read_json(body: Body) -> list[Upload]:
    content = await body.read()
    uploads, body.priors = await aside_if_large(len(content), partial(_parse_json, content, body.max_images))
    return uploads


def _parse_json(content: bytes, max_images: int) -> tuple[list[Upload], Mapping[str, float] | None]:
    content = json_as_utf8(content)
    refuse_countless(content, max_images)
    try:
        asked = ClassifyRequest.model_validate_json(without_line_breaks(content))
    except ValidationError as error:
        raise RequestError("malformed_request", explain(error, '{"images": [{"b64": "..."}]}')) from error
    return decode_images(asked.images, "images", max_images), asked.priors


def decode_images(images: list[EncodedImage], name: str, max_images: int) -> list[Upload]:
    """Of the list `name` in the body; at least one. Raises RequestError."""
    if not images:
        raise RequestError("malformed_request", f"{name} is empty: send at least one")
    if len(images) > max_images:
        raise too_many_images(max_images)
    return [Upload(None, decode_base64(image.b64, f"{name}[{i}].b64", i)) for i, image in enumerate(images)]


def explain(error: ValidationError, wanted: str) -> str:
    """`images[1].b64: Field required; the body is {"images": [{"b64": "..."}]}`"""
    first = error.errors(include_url=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    return f"{place or 'body'}: {first['msg']}; the body is {wanted}"


async def read_multipart(body: Body) -> list[Upload]:
    boundary = body.parameters.get("boundary")
    if not boundary:
        raise RequestError("malformed_request", "the Content-Type multipart/form-data has no boundary")
    try:
        form = _Form(body.max_images)
        parser = FormParser(boundary.encode("latin-1"), form.begin_part, form.end_part)
        async for chunk in body.chunks:
            parser.feed(chunk)
    except MalformedForm as error:
        raise RequestError("malformed_request", f"the multipart body is broken: {error}") from error
    form.check_whole(parser)
    return await aside_if_large(form.work_bytes, form.uploads)


class _Form:
    """Collects the parts that are images while the body streams through the parser: those with a file name, and those
    whose Content-Type is an image's. The parser refers to it, but not the other way round: a cycle would keep the
    images in memory."""

    def __init__(self, max_images: int) -> None:
        self.work_bytes = 0  # of `uploads`
        self._parts: list[tuple[str | None, list[bytes], str]] = []  # name, pieces of the content, transfer encoding
        self._max_images = max_images
        self._plain_fields = 0
        self._filename: str | None = None
        self._encoding = ""

    def begin_part(self, headers: Mapping[str, str]) -> bool:
        """Is it an image?"""
        self._filename = read_filename(headers.get("content-disposition", ""))
        self._encoding = headers.get("content-transfer-encoding", "").lower()
        is_image = bool(self._filename) or _is_one_image(read_options(headers.get("content-type", ""))[0])
        if not is_image:
            self._plain_fields += 1
            if self._plain_fields > MAX_PLAIN_FIELDS:
                raise RequestError(
                    "malformed_request", f"the form has more than {MAX_PLAIN_FIELDS} parts that are not files"
                )
        elif self._filename != "" and len(self._parts) == self._max_images:
            raise too_many_images(self._max_images)
        return is_image

    def end_part(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        if self._filename == "" and not size:
            return  # browsers send this for a file field that was left empty
        if len(self._parts) == self._max_images:
            raise too_many_images(self._max_images)
        self._parts.append((self._filename or None, pieces, self._encoding))
        self.work_bytes += size if self._encoding else size // JOINING

    def uploads(self) -> list[Upload]:
        """Raises RequestError for a part that is not in its transfer encoding."""
        return [
            Upload(filename, decode_part(join_here(pieces), encoding, f"part {index}", index))
            for index, (filename, pieces, encoding) in enumerate(self._parts)
        ]

    def check_whole(self, parser: FormParser) -> None:
        """Once the body is read. Raises RequestError."""
        if not parser.has_begun:
            raise RequestError(
                "malformed_request", "the multipart body is broken: the boundary of its Content-Type is not in it"
            )
        if not parser.has_ended:
            raise RequestError("malformed_request", "the multipart body ends before its closing boundary")
        if not self._parts:
            raise RequestError(
                "malformed_request",
                "no part of the form has a filename or the Content-Type of an image, so there is no image; "
                "with curl: -F image=@FILE",
            )


@dataclass(frozen=True)
class Reader:
    """One way to send images. `schema` and `example` describe the body in /openapi.json."""

    read: Callable[[Body], Awaitable[list[Upload]]]
    schema: dict[str, Any]
    example: dict[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        return {"schema": self.schema} | ({"example": self.example} if self.example else {})


# The Content-Types that POST /classify accepts. A type that is not here is looked up by its kind (image/*) and by its
# suffix (+json): `find_reader`.
READERS = {
    "image/*": Reader(read_raw, BINARY),
    "application/octet-stream": Reader(read_raw, BINARY),
    "application/x-image": Reader(read_raw, BINARY),
    "binary/octet-stream": Reader(read_raw, BINARY),  # object stores use this for files of unknown type
    "multipart/form-data": Reader(
        read_multipart, {"type": "object", "properties": {"images": {"type": "array", "items": BINARY}}}
    ),
    "application/json": Reader(read_json, reference(ClassifyRequest), {"images": [{"b64": PIXEL_B64}]}),
}
