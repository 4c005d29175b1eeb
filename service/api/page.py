"""The page at / and the API documentation at /docs, served from service/page.

1. the browser loads and runs only these files: a Content-Security-Policy without exceptions;
2. a browser that already has a file gets 304, by ETag;
3. the files need no API key, since they are only code; the requests that they make do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

FOLDER = resources.files("service") / "page"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# All other files are served at /page/NAME. The pages refer to them by relative URL and so work behind a proxy's path.
PAGES = {"/": "index.html", "/docs": "docs.html"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Cached, but revalidated each time: after an upgrade the new page shows at once.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class File:
    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        headers = HEADERS | {"ETag": self.etag}
        known = request.headers.get("if-none-match", "").split(",")
        if self.etag in [tag.strip().removeprefix("W/") for tag in known]:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def _read() -> dict[str, File]:
    """URL path -> file."""
    paths = {name: path for path, name in PAGES.items()}
    files = {}
    for entry in FOLDER.iterdir():
        # Skips an editor's leftovers.
        if media_type := MEDIA_TYPES.get("." + entry.name.rpartition(".")[2]):
            content = entry.read_bytes()
            path = paths.get(entry.name, f"/page/{entry.name}")
            files[path] = File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return files


FILES = _read()


def add_to(router: APIRouter) -> None:
    for path in (*PAGES, "/page/{name}"):
        router.add_api_route(path, page, methods=["GET"], include_in_schema=False)


async def page(request: Request) -> Response:
    file = FILES.get(request.scope["path"])
    if file is None:
        raise HTTPException(404)
    return file.answer(request)
