"""The page at / and the API documentation at /docs, served from service/page, and the sample pictures.

1. the browser loads and runs only these files: a Content-Security-Policy without exceptions;
2. a browser that already has a file gets 304, by ETag;
3. the files need no API key, since they are only code and drawings; the requests that they make do;
4. samples are read when they are requested, not at the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from importlib.abc import Traversable

FOLDER = resources.files("service") / "page"
PICTURES = resources.files("models") / "samples"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PICTURE_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}
# All other files are served at /page/NAME. The pages refer to them by relative URL and so work behind a proxy's path.
PAGES = {"/": "index.html", "/docs": "docs.html"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Cached, but revalidated each time: after an upgrade the new page shows immediately.
    "Cache-Control": "no-cache",
}
# An outdated sample does no harm.
FOR_A_DAY = {"Cache-Control": "public, max-age=86400"}


@dataclass(frozen=True)
class File:
    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, entry: Traversable, media_type: str) -> File:
        content = entry.read_bytes()
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')

    def answer(self, request: Request, caching: Mapping[str, str]) -> Response:
        headers = {**HEADERS, **caching, "ETag": self.etag}
        known = request.headers.get("if-none-match", "").split(",")
        if self.etag in [tag.strip().removeprefix("W/") for tag in known]:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def _suffix(entry: Traversable) -> str:
    return "." + entry.name.rpartition(".")[2]


def _read(folder: Traversable, place: str = "/page/") -> dict[str, File]:
    """URL path -> file. Skips an editor's leftovers."""
    paths = {name: path for path, name in PAGES.items()}
    files = dict[str, File]()
    for entry in folder.iterdir():
        if entry.is_dir():
            files |= _read(entry, f"{place}{entry.name}/")
        elif media_type := MEDIA_TYPES.get(_suffix(entry)):
            files[paths.get(entry.name, place + entry.name)] = File.read(entry, media_type)
    return files


FILES = _read(FOLDER)
# URL path -> where it is.
SAMPLES = {f"/page/samples/{entry.name}": entry for entry in PICTURES.iterdir() if _suffix(entry) in PICTURE_TYPES}


@cache
def _sample(path: str) -> File:
    return File.read(SAMPLES[path], PICTURE_TYPES[_suffix(SAMPLES[path])])


def is_open(path: str) -> bool:
    """Is it open without a key?"""
    return path in FILES or path in SAMPLES


def add_to(router: APIRouter) -> None:
    for path in (*PAGES, "/page/{name:path}"):
        router.add_api_route(path, page, methods=["GET"], include_in_schema=False)


async def page(request: Request) -> Response:
    path = request.scope["path"]
    if path in SAMPLES:
        return _sample(path).answer(request, FOR_A_DAY)
    if path not in FILES:
        raise HTTPException(404)
    return FILES[path].answer(request, {})
