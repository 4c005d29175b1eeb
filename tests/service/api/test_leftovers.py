"""No request leaves objects behind that only the garbage collector can free: they would keep its images in memory."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings

TIMES = 10


class Kind(NamedTuple):
    path: str
    content_type: str
    body: bytes
    method: str = "POST"
    leaves: bool = False


def form(*contents: bytes, headers: bytes = b"") -> bytes:
    head = b"--b\r\nContent-Disposition: form-data; name=a; filename=a\r\n" + headers + b"\r\n"
    return b"".join(head + content + b"\r\n" for content in contents) + b"--b--"


def kinds(jpeg: bytes) -> dict[str, Kind]:
    in_form, in_json, infer = "multipart/form-data; boundary=b", "application/json", "/v2/models/tiny/infer"
    text = base64.b64encode(jpeg).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    return {
        "an image": Kind("/classify", "image/jpeg", jpeg),
        "a damaged image": Kind("/classify", "image/jpeg", jpeg[:200]),
        "no image": Kind("/classify", "image/jpeg", b"xx"),
        "too large a body": Kind("/classify", "image/jpeg", bytes(40_000)),
        "a form": Kind("/classify", in_form, form(jpeg, jpeg)),
        "a form that ends early": Kind("/classify", in_form, form(jpeg)[:-9]),
        "a form with a bad image": Kind("/classify", in_form, form(jpeg, b"x")),
        "a form of bad base64": Kind(
            "/classify", in_form, form(b"!!", headers=b"Content-Transfer-Encoding: base64\r\n")
        ),
        "JSON": Kind("/classify", in_json, json.dumps({"images": [{"b64": text}] * 3}).encode()),
        "JSON that is none": Kind("/classify", in_json, b"{"),
        "JSON of commas": Kind("/classify", in_json, b"," * 20_000),
        "another type": Kind("/classify", "text/plain", b"x"),
        "a wrong parameter": Kind("/classify?topk=3", "image/jpeg", jpeg),
        "v2": Kind(infer, in_json, json.dumps({"inputs": [tensor]}).encode()),
        "v2 without inputs": Kind(infer, in_json, b'{"inputs": []}'),
        "v2 of another model": Kind("/v2/models/x/infer", in_json, b"{}"),
        "a path that is not there": Kind("/x", "", b"", "GET"),
        "a scrape": Kind("/metrics", "", b"", "GET"),
        "a probe": Kind("/readyz?verbose", "", b"", "GET"),
        "a leaver": Kind("/classify", "image/jpeg", jpeg, leaves=True),
    }


async def send(app: FastAPI, kind: Kind) -> None:
    path, _, query = kind.path.partition("?")
    scope = {"type": "http", "method": kind.method, "path": path, "query_string": query.encode(), "root_path": ""}
    scope |= {"headers": [(b"content-type", kind.content_type.encode())], "client": ("127.0.0.1", 1), "state": {}}
    pieces = [kind.body[start : start + 1000] for start in range(0, len(kind.body), 1000)] or [b""]

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.sleep(60)
        piece = pieces.pop(0)
        if kind.leaves and not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def drop(_: Any) -> None:
        return None

    await app(scope, receive, drop)


@pytest.mark.parametrize("name", kinds(b""))
def test_no_request_leaves_work_to_the_garbage_collector(
    run: Callable[[Coroutine[Any, Any, Any]], Any], tiny_bundle: Path, jpeg_bytes: bytes, name: str
) -> None:
    async def scenario() -> None:
        settings = Settings(model=str(tiny_bundle), max_body_bytes=30_000)
        app = create_app(settings, engine=FakeEngine(10, 32), registry=CollectorRegistry())
        kind = kinds(jpeg_bytes)[name]
        async with app.router.lifespan_context(app):
            await app.state.lifecycle.opened.wait()
            await send(app, kind)
            gc.collect()
            gc.disable()
            try:
                for _ in range(TIMES):
                    await send(app, kind)
                await asyncio.sleep(0.05)
                assert gc.collect() < TIMES
            finally:
                gc.enable()

    run(scenario())
