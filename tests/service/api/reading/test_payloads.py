from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from service.api.problems import RequestError
from service.api.reading.payloads import MAX_PLAIN_FIELDS, READERS, Upload, read_uploads, refuse_countless
from service.settings import Settings

SETTINGS = Settings(max_body_bytes=10_000, max_images_per_request=3)
FORM = "multipart/form-data; boundary=frontier"


def request_of(chunks: Iterable[bytes | None], headers: dict[str, str]) -> Request:
    """A request whose body arrives in these chunks; at None the client leaves."""
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"} if chunk is None else {"type": "http.request", "body": chunk, "more_body": True}
        for chunk in chunks
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    arriving = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(arriving)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/classify", "headers": raw}, receive)


def read(body: bytes | list[bytes | None], content_type: str | None, **headers: str) -> list[Upload]:
    chunks: Iterable[bytes | None] = [body] if isinstance(body, bytes) else body
    if content_type is not None:
        headers["content-type"] = content_type
    return asyncio.run(read_uploads(request_of(chunks, headers), SETTINGS))[0]


def refusal(body: bytes | list[bytes | None], content_type: str | None, **headers: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(body, content_type, **headers)
    return caught.value


def part(content: bytes, disposition: str) -> bytes:
    return b"--frontier\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--frontier--\r\n"


def json_of(*images: object) -> bytes:
    return json.dumps({"images": images}).encode()


# raw


@pytest.mark.parametrize(
    "content_type",
    [
        "image/jpeg",
        "image/x-anything",
        "IMAGE/PNG",
        "application/octet-stream",
        "image/jpeg; charset=binary",
        'image/jpeg;q=1;name="a;b"',
        "image/*",
        "application/x-image",
        "binary/octet-stream",
        "image/svg+xml",
    ],
)
def test_a_raw_body_is_one_image(content_type: str) -> None:
    assert read([b"ab", b"c"], content_type) == [Upload(None, b"abc")]


def test_an_empty_raw_body_is_no_image() -> None:
    error = refusal(b"", "image/png")
    assert (error.code, str(error)) == ("malformed_request", "the body is empty: send the bytes of an image")


# content type and encoding


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense", "image"])
def test_another_content_type_is_told_what_is_accepted(content_type: str | None) -> None:
    error = refusal(b"abc", content_type)
    assert error.code == "unsupported_media_type"
    assert error.headers["Accept-Post"] == ", ".join(READERS)
    assert "multipart/form-data" in str(error)
    assert (content_type or "no Content-Type") in str(error)


def test_a_compressed_body_is_refused() -> None:
    error = refusal(b"abc", "image/png", **{"content-encoding": "gzip"})
    assert error.code == "unsupported_media_type"
    assert "gzip" in str(error)
    assert read(b"abc", "image/png", **{"content-encoding": "identity"})


# limits


def test_a_body_over_the_limit_is_refused_by_its_content_length() -> None:
    async def never() -> dict[str, Any]:
        raise AssertionError("the body was read")

    headers = [(b"content-type", b"image/png"), (b"content-length", b"10001")]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, never)
    with pytest.raises(RequestError, match="larger than 10000 bytes") as caught:
        asyncio.run(read_uploads(request, SETTINGS))
    assert caught.value.code == "body_too_large"


@pytest.mark.parametrize("content_type", ["image/png", FORM, "application/json"])
def test_a_body_without_length_is_refused_when_it_passes_the_limit(content_type: str) -> None:
    # The client leaves after the first byte too many; whoever read on would notice.
    start = form(part(b"", 'name="a"; filename="a.jpg"'))[:60]
    error = refusal([start, b"x" * (10_001 - len(start)), None], content_type)
    assert error.code == "body_too_large"


def test_a_body_of_just_the_limit_is_read() -> None:
    assert len(read([b"x" * 4000, b"x" * 6000], "image/png")[0].content) == 10_000


def test_too_many_form_images_are_refused_at_the_first_one_too_many() -> None:
    images = [part(b"x", f'name="a"; filename="{number}.jpg"') for number in range(4)]
    error = refusal([*images, None], FORM)  # reading on would meet the client's leaving
    assert error.code == "too_many_images"
    assert "more than 3 images" in str(error)


def test_too_many_json_images_are_refused() -> None:
    assert refusal(json_of(*[{"b64": ""}] * 4), "application/json").code == "too_many_images"
    assert len(read(json_of(*[{"b64": ""}] * 3), "application/json")) == 3


@pytest.mark.parametrize(
    "body", [b'{"images": [' + b"0," * 4000 + b"0]}", b"{" + b'"a":0,' * 1600 + b'"a":0}', b"," * 4000]
)
def test_json_of_countless_things_is_refused_before_it_is_parsed(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        refuse_countless(body, 3)
    assert caught.value.code == "too_many_images"


def test_data_uris_are_no_countless_things() -> None:
    assert len(read(json_of(*[{"b64": "data:image/png;base64,AAAA"}] * 3), "application/json")) == 3


def test_endless_plain_fields_are_refused() -> None:
    fields = [part(b"", 'name="a"')] * (MAX_PLAIN_FIELDS + 1)
    error = refusal(form(*fields), FORM)
    assert error.code == "malformed_request"
    assert "parts that are not files" in str(error)


def test_a_client_that_leaves_while_sending_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        read([b"abc", None], "image/png")


# multipart


def test_every_part_with_a_filename_counts_in_order_whatever_its_field() -> None:
    body = form(
        part(b"one", 'name="image"; filename="1.jpg"'),
        part(b"5", 'name="top_k"'),
        part(b"two", 'name="x"; filename="zwei ä.png"'),
        part(b"", 'name="empty"; filename="nothing.jpg"'),
        part(b"", 'name="left empty in the browser"; filename=""'),
    )
    assert read(body, FORM) == [Upload("1.jpg", b"one"), Upload("zwei ä.png", b"two"), Upload("nothing.jpg", b"")]


def test_a_filename_that_is_not_utf8_spoils_nothing() -> None:
    body = form(b'--frontier\r\nContent-Disposition: form-data; filename="\xff.jpg"\r\n\r\nx\r\n')
    assert read(body, FORM) == [Upload("�.jpg", b"x")]


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3), st.lists(st.integers(1, 300), max_size=8))
def test_a_form_is_read_alike_in_whatever_pieces_it_arrives(images: list[bytes], cuts: list[int]) -> None:
    body = form(*[part(image, f'name="a"; filename="{number}"') for number, image in enumerate(images)])
    # Data may look like the start of a boundary; only the boundary itself cannot occur in it.
    pieces: list[bytes | None] = []
    for cut in cuts:
        pieces, body = [*pieces, body[:cut]], body[cut:]
    assert [upload.content for upload in read([*pieces, body], FORM)] == images


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (form(), FORM, "no part of the form has a filename"),
        (b"", FORM, "is broken: the boundary of its Content-Type is not in it"),
        (part(b"abc", 'name="a"; filename="a.jpg"'), FORM, "ends before its closing boundary"),
        (form(part(b"abc", 'name="a"')), FORM, "no part of the form has a filename"),
        (b"hello", FORM, "the multipart body is broken"),
        (form(part(b"abc", 'name="a"; filename="a"')), "multipart/form-data", "has no boundary"),
        (form(part(b"abc", 'name="a"; filename="a"')), "multipart/form-data; boundary=other", "is broken"),
        (form(part(b"abc", 'name="a"; filename="a"')), f"multipart/form-data; boundary={'x' * 1000}", "is broken"),
    ],
)
def test_a_broken_form_says_how(body: bytes, content_type: str, why: str) -> None:
    error = refusal(body, content_type)
    assert error.code == "malformed_request"
    assert why in str(error)


IMAGE = b"\xff\xd8\r\nimage"
NAMED = b'Content-Disposition: form-data; name="a"; filename="a.jpg"\r\n'


def written(head: bytes, content: bytes = IMAGE) -> bytes:
    """A form of one part with this head."""
    return b"--frontier\r\n" + head + b"\r\n" + content + b"\r\n--frontier--\r\n"


@pytest.mark.parametrize(
    ("body", "filename"),
    [
        (b"This is a form.\r\n" + written(NAMED), "a.jpg"),
        (b"\r\n" + written(NAMED), "a.jpg"),
        (written(NAMED) + b"and this comes after it\r\n--frontier\r\n", "a.jpg"),
        (written(NAMED)[:-2], "a.jpg"),
        (written(NAMED).replace(b"frontier\r\n", b"frontier \t\r\n"), "a.jpg"),
        (b"--frontier\n" + NAMED.replace(b"\r", b"") + b"\n" + IMAGE + b"\n--frontier--\n", "a.jpg"),
        (written(NAMED.replace(b"Content-Disposition: form-data", b"CONTENT-disposition:form-data")), "a.jpg"),
        (written(NAMED.replace(b"; filename", b";\r\n\tfilename")), "a.jpg"),
        (written(NAMED.replace(b'"a.jpg"', b"a.jpg")), "a.jpg"),
        (written(NAMED.replace(b"filename=", b"filename = ")), "a.jpg"),
        (written(NAMED.replace(b"filename=", b"FileName=")), "a.jpg"),
        (written(NAMED.replace(b"a.jpg", rb"a \"b\"; c=d.jpg")), 'a "b"; c=d.jpg'),
        (written(NAMED.replace(b"a.jpg", rb"C:\photos\a.jpg")), "a.jpg"),
        (written(NAMED.replace(b'filename="a.jpg"', b"filename*=UTF-8''na%C3%AFve%20cat.jpg")), "naïve cat.jpg"),
        (written(NAMED.replace(b'filename="a.jpg"', b"filename*=utf-8'en'a.jpg")), "a.jpg"),
        (written(NAMED.replace(b'filename="a.jpg"', b"filename*=ISO-8859-1''%FCber.jpg")), "über.jpg"),
        (written(NAMED.replace(b"\r\n", b"; filename*=UTF-8''%E7%8C%AB.jpg\r\n")), "猫.jpg"),
        (written(b'Content-Disposition: form-data; name="a"\r\nContent-Type: image/jpeg\r\n'), None),
        (written(b"content-type: Image/JPEG; q=1\r\n"), None),
        (written(b'Content-Disposition: form-data; name="a"\r\nContent-Type: application/octet-stream\r\n'), None),
        (written(b'Content-Disposition: form-data; filename=""\r\nContent-Type: image/png\r\n'), None),
        (written(NAMED + b"Content-Transfer-Encoding: binary\r\n"), "a.jpg"),
        (written(NAMED + b"Content-Transfer-Encoding: Base64\r\n", b"/9gN\r\nCmlt\r\nYWdl"), "a.jpg"),
        (written(NAMED + b"content-transfer-encoding: quoted-printable\r\n", b"=FF=D8=0D=0Aim=\r\nage"), "a.jpg"),
    ],
)
def test_what_honest_clients_write_is_one_image(body: bytes, filename: str | None) -> None:
    for pieces in ([body], [body[i : i + 1] for i in range(len(body))]):
        assert read(list(pieces), FORM) == [Upload(filename, IMAGE)]


@pytest.mark.parametrize("boundary", ["a b", "(a)", "a'b", "a:b/c?d=e", "-----", "x" * 70])
def test_a_boundary_may_have_any_character_of_the_rfc(boundary: str) -> None:
    body = written(NAMED).replace(b"frontier", boundary.encode())
    assert read(body, f'multipart/form-data; boundary="{boundary}"') == [Upload("a.jpg", IMAGE)]
    assert read(body, f'Multipart/Form-Data; charset=utf-8; Boundary="{boundary}"') == [Upload("a.jpg", IMAGE)]


def test_text_fields_and_empty_file_fields_are_no_images() -> None:
    body = form(
        part(b"5", 'name="top_k"'),
        part(b"", 'name="left empty"; filename=""\r\nContent-Type: application/octet-stream'),
        part(b"hello", 'name="note"\r\nContent-Type: text/plain; charset=utf-8'),
        part(b"x", 'name="a"; filename="a.jpg"'),
    )
    assert read(body, FORM) == [Upload("a.jpg", b"x")]


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (NAMED + b"no colon\r\n", "a header of a part has no colon"),
        (NAMED + b"x: " + b"y" * 20_000 + b"\r\n", "is larger than 10000 bytes"),
        (NAMED + b"Content-Transfer-Encoding: x-uuencode\r\n", "part 0: Content-Transfer-Encoding x-uuencode"),
        (NAMED + b"Content-Transfer-Encoding: base64\r\n", "part 0: not valid base64"),
    ],
)
def test_a_part_that_cannot_be_read_says_how(head: bytes, why: str) -> None:
    assert why in str(refusal(written(head), FORM))


# JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.api+json; charset=utf-16"])
def test_json_is_read_in_every_unicode_encoding(encoding: str, content_type: str) -> None:
    assert read(json_of({"b64": "AAAA"}).decode().encode(encoding), content_type) == [Upload(None, b"\0\0\0")]


def test_json_images_are_base64_or_data_uris() -> None:
    encoded = base64.b64encode(b"\x00image").decode()
    body = json_of({"b64": encoded}, {"b64": f"data:image/png;base64,{encoded}"}, {"b64": ""})
    assert read(body, "application/json; charset=utf-8") == [
        Upload(None, b"\x00image"),
        Upload(None, b"\x00image"),
        Upload(None, b""),
    ]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "body: Invalid JSON"),
        (b"{", "body: Invalid JSON"),
        (b"\xff", "body: Invalid JSON"),
        (b"[" * 9000, "body: Invalid JSON: recursion limit exceeded"),
        (b"[]", "body: Input should be an object"),
        (b"{}", "images: Field required"),
        (b'{"images": []}', "images is empty"),
        (b'{"images": [{"url": "x"}]}', "images[0].b64: Field required"),
        (b'{"images": [{"b64": ""}, {"b64": 1}]}', "images[1].b64: Input should be a valid string"),
        (b'{"images": [{"b64": "", "tpo_k": 1}]}', "images[0].tpo_k: Extra inputs are not permitted"),
    ],
)
def test_broken_json_names_the_place(body: bytes, why: str) -> None:
    error = refusal(body, "application/json")
    assert error.code == "malformed_request"
    assert str(error).startswith(why)


@pytest.mark.parametrize("junk", ["%%%%", "A", "AA=", "ÄAAA", "+_AA", "AA==AA==", "data:;base64", "data:;base64,A"])
def test_bad_base64_names_the_image(junk: str) -> None:
    error = refusal(json_of({"b64": "AAAA"}, {"b64": junk}), "application/json")
    assert (error.code, error.index) == ("malformed_request", 1)
    assert str(error).startswith("images[1].b64: ")
