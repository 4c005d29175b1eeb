"""Common mistakes, sent to the real server: the status, the code, and a helpful text."""

from __future__ import annotations

import base64
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image

if TYPE_CHECKING:
    from conftest import Server

JPEG = {"content-type": "image/jpeg"}
PNG = {"content-type": "image/png"}
NOT_READABLE = "not a readable image; formats: JPEG, PNG, WEBP, GIF, BMP, TIFF"
TEXT = f"{NOT_READABLE}; this is text, perhaps the name of a file instead of its content"


def refused(reply: httpx.Response, status: int, code: str, detail: str) -> dict[str, Any]:
    """Checks that the reply is a problem document with this status, code and text."""
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert (reply.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert detail in problem["detail"]
    assert problem["request_id"] == reply.headers["x-request-id"]
    return problem


def answered(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    results: list[dict[str, Any]] = reply.json()["results"]
    return results


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def photo(draw_image: Callable[..., bytes]) -> Image.Image:
    return Image.open(BytesIO(draw_image(3, "PNG")))


def one_colour_png(width: int, height: int) -> bytes:
    """An RGB PNG a thousandth of the size of its pixels, written without holding them in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    squeeze = zlib.compressobj(1)
    row = b"\0" + b"\x80\x40\x20" * width
    pixels = b"".join([squeeze.compress(row) for _ in range(height)]) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# The body


def test_an_empty_body(http: httpx.Client) -> None:
    refused(http.post("/classify", content=b"", headers=JPEG), 400, "malformed_request", "the body is empty")


def test_a_wrong_content_type(http: httpx.Client, jpeg_bytes: bytes) -> None:
    reply = http.post("/classify", content=jpeg_bytes, headers={"content-type": "text/html"})
    refused(reply, 415, "unsupported_media_type", "Content-Type text/html is not accepted; accepted: image/*, ")


def test_no_content_type(http: httpx.Client, jpeg_bytes: bytes) -> None:
    refused(
        http.post("/classify", content=jpeg_bytes), 415, "unsupported_media_type", "the request has no Content-Type"
    )


def test_a_body_over_the_limit_with_its_length(http: httpx.Client) -> None:
    reply = http.post("/classify", content=bytes(33 << 20), headers=JPEG)
    refused(reply, 413, "body_too_large", "the body is larger than 33554432 bytes, the limit")


def test_a_body_over_the_limit_in_chunks(http: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(33):
            yield bytes(1 << 20)

    reply = http.post("/classify", content=pieces(), headers=JPEG)
    refused(reply, 413, "body_too_large", "the body is larger than 33554432 bytes, the limit")


def test_1000_parts(http: httpx.Client) -> None:
    reply = http.post("/classify", files=[("image", (f"{number}.jpg", b"x")) for number in range(1000)])
    refused(reply, 413, "too_many_images", "more than 64 images, the limit")


def test_a_form_that_ends_too_early(http: httpx.Client, jpeg_bytes: bytes) -> None:
    request = http.build_request("POST", "/classify", files={"a": ("a.jpg", jpeg_bytes)})
    body = request.read()[:-20]
    headers = {"content-type": request.headers["content-type"]}
    reply = http.post("/classify", content=body, headers=headers)
    refused(reply, 400, "malformed_request", "the multipart body ends before its closing boundary")


def test_a_form_without_a_file(http: httpx.Client) -> None:
    reply = http.post("/classify", files={"a": (None, "text")})
    refused(
        reply,
        400,
        "malformed_request",
        "no part of the form has a filename or the Content-Type of an image, so there is no image; "
        "with curl: -F image=@FILE",
    )


def test_base64_with_junk(http: httpx.Client, jpeg_bytes: bytes) -> None:
    text = base64.b64encode(jpeg_bytes).decode()
    body = {"images": [{"b64": text}, {"b64": text[:50] + "%" + text[50:]}]}
    problem = refused(http.post("/classify", json=body), 400, "malformed_request", "images[1].b64: not valid base64")
    assert problem["index"] == 1


def test_broken_json(http: httpx.Client) -> None:
    reply = http.post("/classify", content=b'{"images": [', headers={"content-type": "application/json"})
    refused(reply, 400, "malformed_request", 'the body is {"images": [{"b64": "..."}]}')


# The query and the path


@pytest.mark.parametrize("value", ["0", "abc"])
def test_a_wrong_top_k(http: httpx.Client, jpeg_bytes: bytes, value: str) -> None:
    reply = http.post(f"/classify?top_k={value}", content=jpeg_bytes, headers=JPEG)
    refused(reply, 422, "invalid_parameter", f"top_k={value} is not a whole number in 1..10")


def test_an_unknown_path(http: httpx.Client) -> None:
    problem = refused(http.get("/clasify it"), 404, "not_found", "send images to /classify; /docs lists the")
    assert problem["instance"] == "/clasify%20it"


def test_a_wrong_method(http: httpx.Client) -> None:
    reply = http.get("/classify")
    refused(reply, 405, "method_not_allowed", "this path takes POST")
    assert reply.headers["allow"] == "POST"


# The image


def test_text_sent_as_jpeg(http: httpx.Client) -> None:
    problem = refused(http.post("/classify", content=b"hello", headers=JPEG), 422, "undecodable_image", TEXT)
    assert problem["errors"] == [{"index": 0, "code": "undecodable_image", "detail": TEXT}]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_truncated_image(http: httpx.Client, draw_image: Callable[..., bytes], image_format: str) -> None:
    image = draw_image(0, image_format, (200, 200))
    reply = http.post("/classify", content=image[: len(image) // 2], headers=JPEG)
    refused(reply, 422, "undecodable_image", f"the {image_format} data is broken or truncated")


def test_60_megapixels_in_200_kb_are_rejected_by_the_header(http: httpx.Client) -> None:
    image = one_colour_png(10_000, 6_000)
    assert len(image) < 1_000_000
    reply = http.post("/classify", content=image, headers=PNG)
    refused(reply, 413, "too_many_pixels", "10000 x 6000 = 60000000 pixels, the limit is 50000000")
    # Cut after the header, there are no pixels to decode: the answer is the same.
    refused(http.post("/classify", content=image[:50], headers=PNG), 413, "too_many_pixels", "10000 x 6000")


def test_a_zero_byte_file_among_good_ones(http: httpx.Client, jpeg_bytes: bytes) -> None:
    files = [("a", ("a.jpg", jpeg_bytes)), ("b", ("b.jpg", b"")), ("c", ("c.jpg", jpeg_bytes))]
    first, second, third = answered(http.post("/classify", files=files))
    assert first["predictions"] == third["predictions"]
    assert second == {
        "index": 1,
        "filename": "b.jpg",
        "error": {"code": "undecodable_image", "detail": "the image is empty (0 bytes)"},
    }


def test_one_bad_image_among_good_ones(http: httpx.Client, jpeg_bytes: bytes, png_bytes: bytes) -> None:
    images = [jpeg_bytes, png_bytes, b"not an image", jpeg_bytes[:300], png_bytes]
    results = answered(http.post("/classify", files=[("a", (str(n), image)) for n, image in enumerate(images)]))
    assert ["predictions" in result for result in results] == [True, True, False, False, True]
    assert {results[2]["error"]["code"], results[3]["error"]["code"]} == {"undecodable_image"}


def test_only_bad_images(http: httpx.Client) -> None:
    reply = http.post("/classify", files=[("a", ("a.txt", b"hello")), ("b", ("b.png", b""))])
    problem = refused(reply, 422, "undecodable_image", f"none of the 2 images; the first: {NOT_READABLE}")
    assert [(error["index"], error["filename"]) for error in problem["errors"]] == [(0, "a.txt"), (1, "b.png")]


# Unusual, but valid


def predictions_of(http: httpx.Client, image: bytes) -> list[dict[str, Any]]:
    (result,) = answered(http.post("/classify?top_k=10", content=image, headers=PNG))
    predictions: list[dict[str, Any]] = sorted(result["predictions"], key=lambda prediction: prediction["class_id"])
    return predictions


def scores_of(http: httpx.Client, image: bytes) -> list[float]:
    """Scores by class."""
    return [prediction["score"] for prediction in predictions_of(http, image)]


def test_a_cmyk_jpeg(http: httpx.Client, draw_image: Callable[..., bytes]) -> None:
    picture = photo(draw_image)
    cmyk = encoded(picture.convert("CMYK"), "JPEG", quality=100)
    assert Image.open(BytesIO(cmyk)).mode == "CMYK"
    assert scores_of(http, cmyk) == pytest.approx(scores_of(http, encoded(picture, "PNG")), abs=0.1)


def test_a_16_bit_grey_png(http: httpx.Client, draw_image: Callable[..., bytes]) -> None:
    grey = photo(draw_image).convert("L")
    deep = encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG")
    assert Image.open(BytesIO(deep)).mode == "I;16"
    assert predictions_of(http, deep) == predictions_of(http, encoded(grey, "PNG"))


def test_a_palette_with_transparency(http: httpx.Client) -> None:
    indexed = Image.new("P", (40, 40), 0)
    indexed.putpalette([0, 0, 0, 255, 0, 0])
    indexed.paste(1, (10, 10, 30, 30))
    on_white = Image.new("RGB", (40, 40), "white")
    on_white.paste("red", (10, 10, 30, 30))
    assert predictions_of(http, encoded(indexed, "PNG", transparency=0)) == predictions_of(
        http, encoded(on_white, "PNG")
    )


@pytest.mark.parametrize(("orientation", "turn"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)])
def test_a_photo_rotated_by_exif_equals_the_upright_one(
    http: httpx.Client, draw_image: Callable[..., bytes], orientation: int, turn: Image.Transpose
) -> None:
    upright = photo(draw_image)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    lying = encoded(upright.transpose(turn), "PNG", exif=exif)
    assert predictions_of(http, lying) == predictions_of(http, encoded(upright, "PNG"))
    assert predictions_of(http, encoded(upright.transpose(turn), "PNG")) != predictions_of(http, lying)


def test_only_the_first_frame_of_an_animated_gif_counts(http: httpx.Client) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert predictions_of(http, moving) == predictions_of(http, encoded(frames[0], "PNG"))


def test_anything_but_http_is_rejected_and_does_no_harm(server: Server, http: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert http.get("/livez").status_code == 200
