"""A server that speaks the Hub's protocol, and can fail in each way that it does.

`/api/models/ORG/MODEL/revision/REV?blobs=true` and `/ORG/MODEL/resolve/COMMIT/PATH`, with ETag, ranges, redirects of
large files to another origin, 401, 403, 404, 429, 5xx and connections that are cut. hub_commits.py has what is pushed.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub.hub_commits import LARGE, Writing


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    files: dict[str, bytes]
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    token: str | None = None  # without it nobody sees the repository

    tags: dict[str, str] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # by their SHA-256, before a commit names them

    def __post_init__(self) -> None:
        self.history: dict[str, dict[str, bytes]] = {}
        self.branches.setdefault("main", self.put(self.files))

    def put(self, files: dict[str, bytes], parent: str = "") -> str:
        """-> the new commit."""
        seed = b"".join(name.encode() + content for name, content in sorted(files.items()))
        commit = hashlib.sha1(parent.encode() + seed).hexdigest()
        self.history[commit] = files
        return commit

    @property
    def commit(self) -> str:
        return self.branches["main"]

    def at(self, revision: str) -> tuple[str, dict[str, bytes] | None]:
        commit = self.tags.get(revision) or self.branches.get(revision, revision)
        return commit, self.history.get(commit)


@dataclass(frozen=True)
class Seen:
    path: str
    range: str | None
    authorization: str | None


class Server:
    """`faults[part of a path]`: what the next requests for it meet, one after another: `500`, `429` (Retry-After 0),
    `cut:N` (the connection ends after N bytes), `redirect:URL`, `wrong` (other bytes of the same length), `no-range`
    (a range is ignored), `endless` (no length, and no end)."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.plain: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.seen: list[Seen] = []
        self.wrote: list[str] = []
        self.cdn: str | None = None  # large files are redirected there
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_": self}))
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def requests(self, part: str) -> list[Seen]:
        return [seen for seen in self.seen if part in seen.path]

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()


class _Handler(Writing, BaseHTTPRequestHandler):
    server_: Server
    protocol_version = "HTTP/1.1"
    API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?")
    FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        seen = Seen(path, self.headers.get("Range"), self.headers.get("Authorization"))
        self.server_.seen.append(seen)
        fault = next((queue.pop(0) for part, queue in self.server_.faults.items() if part in path and queue), "")
        if fault.isdigit():
            self._send(int(fault), b"", {"Retry-After": "0"})
        elif fault.startswith("redirect:"):
            self._send(302, b"", {"Location": fault.removeprefix("redirect:")})
        elif path in self.server_.plain:
            self._content(self.server_.plain[path], fault)
        elif match := self.REFS.fullmatch(path):
            self._refs(match[1])
        elif match := self.API.fullmatch(path):
            self._info(match[1], match[2] or "main")
        elif match := self.FILE.fullmatch(path):
            self._file(match[1], match[2], match[3], fault)
        else:
            self._send(404, b"")

    do_HEAD = do_GET

    def _repo(self, name: str) -> Repo | None:
        repo = self.server_.repos.get(name)
        if repo is None or (repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}"):
            self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
            return None
        return repo

    def _info(self, name: str, revision: str) -> None:
        if not (repo := self._repo(name)):
            return
        commit, files = repo.at(revision)
        if files is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [self._sibling(path, content) for path, content in files.items()]
        facts = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "gated": repo.gated, "tags": []}
        self._send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def _sibling(self, path: str, content: bytes) -> dict[str, Any]:
        sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_id(content)}
        if len(content) >= LARGE:
            sha = hashlib.sha256(content).hexdigest()
            sibling["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
        return sibling

    def _file(self, name: str, commit: str, path: str, fault: str) -> None:
        if not (repo := self._repo(name)):
            return
        commit, files = repo.at(commit)
        if repo.gated and not self.headers.get("Authorization"):
            self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        elif files is None or path not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif self.server_.cdn and len(files[path]) >= LARGE:
            self._send(302, b"", {"Location": f"{self.server_.cdn}/signed/{path}?key=secret"})
        else:
            self._content(files[path], fault, {"X-Repo-Commit": commit})

    def _content(self, content: bytes, fault: str, headers: dict[str, str] | None = None) -> None:
        large = len(content) >= LARGE
        tag = hashlib.sha256(content).hexdigest() if large else git_id(content)
        headers = {"ETag": f'"{tag}"', "Accept-Ranges": "bytes", **(headers or {})}
        if large:
            headers |= {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(content))}
        if fault == "wrong":
            content = bytes(255 - byte for byte in content[:64]) + content[64:]
        status, total = 200, len(content)
        if (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")) and fault != "no-range":
            begin = int(asked[1])
            if begin >= total:
                self._send(416, b"")
                return
            status, content = 206, content[begin:]
            headers["Content-Range"] = f"bytes {begin}-{total - 1}/{total}"
        if fault.startswith("cut:"):
            self._send(status, content[: int(fault[4:])], headers, length=len(content))
            self.close_connection = True
        elif fault == "endless":
            self.close_connection = True
            self._send(status, content * 3, headers, length=-1)
        else:
            self._send(status, content, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
