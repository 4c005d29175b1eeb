"""Downloads over HTTP.

1. a connection error, 429 and 5xx are tried again, three times with growing pauses; Retry-After is respected;
2. what has arrived is not fetched again, not even by another process after `kill -9`;
3. a file is in its place only if it has the digest that its source gives; if not, it is deleted;
4. no file is larger than announced, or than the limit;
5. a token goes to the origin it is for and to no other.

On the standard library: it gives both the check of the address that is really connected to, and proxies.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hub.errors import Unreachable, Unusable, Unverified
from hub.progress import Progress, megabytes
from hub.sources.trust import Trust, origin, without_secrets

T = TypeVar("T")

CHUNK = 1 << 20
TIMEOUT_S = 30.0
PAUSES_S = (1.0, 4.0, 16.0)
LONGEST_PAUSE_S = 300.0
MAX_REDIRECTS = 5
# Of a file whose size nobody says: larger than any published classifier.
MAX_BYTES = 16 << 30


class Again(Exception):
    """What failed may work later. `after_s`: what the server asks to wait; `progressed`: something did arrive."""

    def __init__(self, why: str, after_s: float = 0.0, *, progressed: bool = False) -> None:
        super().__init__(why)
        self.after_s = after_s
        self.progressed = progressed


class Denied(Unreachable):
    """A server answered, with a status that no other attempt changes."""

    def __init__(self, address: str, status: int, reason: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"{without_secrets(address)} answered {status} {reason}")
        self.status, self.headers = status, headers


@dataclass(frozen=True)
class Digest:
    """`kind` sha256, or git: the id that git gives to a file's content."""

    kind: str
    value: str

    def of(self, path: Path) -> str:
        if self.kind == "git":
            hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        else:
            hasher = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
        return hasher.hexdigest()


@dataclass(frozen=True)
class Remote:
    """A file elsewhere. `size` and `digest` are None where the source does not say."""

    address: str
    name: str
    size: int | None = None
    digest: Digest | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_bytes: int = MAX_BYTES


def retrying(attempt: Callable[[], T], what: str, pauses_s: Sequence[float] = PAUSES_S) -> T:
    """`attempt` until it does not raise Again. Raises Unreachable that says what was tried. An attempt that got further
    counts as the first of a new row."""
    failures = 0
    while True:
        try:
            return attempt()
        except Again as again:
            failures = 1 if again.progressed else failures + 1
            if failures > len(pauses_s) or again.after_s > LONGEST_PAUSE_S:
                tries = f"{failures} attempts" if failures > 1 else "1 attempt"
                wait = f"; it asks to wait {again.after_s:.0f} s" if again.after_s else ""
                raise Unreachable(f"{what}: {again} ({tries}{wait})") from again
            time.sleep(max(again.after_s, pauses_s[failures - 1]))


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, trust: Trust, **options: Any) -> None:
        super().__init__(*args, **options)
        self._create_connection = trust.connect  # what `connect` calls, of HTTPS and through proxies as well


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def __init__(self, trust: Trust) -> None:
        super().__init__()
        self._connection: Any = partial(_Connection, trust=trust)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, trust: Trust) -> None:
        super().__init__()
        self._connection: Any = partial(_SecureConnection, trust=trust)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # Python 3.10 lacks it

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.get_method() not in ("GET", "HEAD"):  # whatever is sent goes where it was sent to, or nowhere
            return None
        self._trust.check(newurl)
        kept = dict(req.header_items())
        if origin(newurl) != origin(req.full_url):
            kept.pop("Authorization", None)
        kept.pop("Host", None)
        return urllib.request.Request(newurl, headers=kept, method=req.get_method())  # noqa: S310  checked above


class Web:
    """Fetches files, with `trust` and a bar for people. `pauses_s`: before each further attempt."""

    def __init__(self, trust: Trust, progress: Progress, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self.trust, self.progress, self.pauses_s = trust, progress, pauses_s
        proxies = urllib.request.getproxies()
        # A proxy is the user's own, wherever it is.
        allowed = Trust(trust.named | Trust.of((), (url for url in proxies.values() if "://" in url)).named)
        self._opener = urllib.request.OpenerDirector()  # without the handlers of file: and ftp:
        for handler in (
            urllib.request.ProxyHandler(proxies),
            _Http(allowed),
            _Https(allowed),
            _Redirects(trust),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            self._opener.add_handler(handler)

    def fetch(self, remote: Remote, path: Path) -> Path:
        """The file in its place, complete and verified. Raises Unreachable, Unusable and OSError.

        What has arrived so far lies in `path` + `.part`; another process that wants it too waits.
        """
        self.trust.check(remote.address)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with _locked(part) as file:
            if path.exists():  # another process was first
                part.unlink(missing_ok=True)
                return path
            resumed = file.tell() > 0
            self._complete(remote, file)
            try:
                _verify(remote, part)
            except Unverified:
                if not resumed:
                    part.unlink()
                    raise
                _empty(file)  # what was there before may be of another file
                self._complete(remote, file)
                _verify_or_delete(remote, part)
            part.replace(path)
        return path

    def _complete(self, remote: Remote, file: BinaryIO) -> None:
        with self.progress.bar(remote.name, remote.size) as advance:
            advance(file.tell())
            retrying(partial(self._attempt, remote, file, advance), without_secrets(remote.address), self.pauses_s)

    def _attempt(self, remote: Remote, file: BinaryIO, advance: Callable[[int], None]) -> None:
        begin = file.seek(0, 2)
        if remote.size is not None and begin == remote.size:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": "repvgg", **remote.headers}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        try:
            with self.open(remote.address, headers) as response:
                if begin and response.status != http.client.PARTIAL_CONTENT:
                    advance(-begin)
                    begin = _empty(file)
                _copy(response, file, remote, advance)
        except _NotSatisfiable:
            _empty(file)
            raise Again("there is nothing beyond what has arrived", progressed=False) from None
        except (OSError, http.client.HTTPException) as error:
            raise Again(_reason(error), progressed=file.tell() > begin) from error
        if remote.size is not None and file.tell() < remote.size:
            raise Again(f"the connection ended after {megabytes(file.tell())}", progressed=file.tell() > begin)

    @contextmanager
    def open(
        self, address: str, headers: Mapping[str, str], method: str = "GET", content: bytes | BinaryIO | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """One attempt at one request. Raises Again where another may help, Unreachable where not, and OSError."""
        self.trust.check(address)
        request = urllib.request.Request(address, content, dict(headers), method=method)  # noqa: S310  checked
        try:
            response = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error, address) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, Exception):
                raise error.reason from None
            raise Again(str(error.reason)) from None
        if response is None:
            raise Unreachable(f"{without_secrets(address)} cannot be opened")
        with response:
            yield response


class _NotSatisfiable(Exception):
    """416: the range begins beyond the file's end."""


def _refusal(error: urllib.error.HTTPError, address: str) -> Exception:
    why = f"{error.code} {error.reason}"
    if error.code == http.client.TOO_MANY_REQUESTS or error.code >= 500:
        return Again(why, after_s=retry_after_s(error.headers.get("Retry-After")))
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _NotSatisfiable()
    if error.code in (301, 302, 303, 307, 308):
        return Unreachable(f"{without_secrets(address)} redirects more than {MAX_REDIRECTS} times, or nowhere")
    return Denied(address, error.code, error.reason, dict(error.headers))


def retry_after_s(header: str | None) -> float:
    """Whole seconds; the other form, a date, counts as 0: our own pauses are as good."""
    return float(header) if header and header.isdigit() else 0.0


def _empty(file: BinaryIO) -> int:
    """-> the new position."""
    file.seek(0)
    return file.truncate()


def _copy(response: http.client.HTTPResponse, file: BinaryIO, remote: Remote, advance: Callable[[int], None]) -> None:
    limit = remote.max_bytes if remote.size is None else min(remote.size, remote.max_bytes)
    too_large = Unusable(f"{remote.name} is larger than {megabytes(limit)}, which is what is allowed or announced")
    if file.tell() + (response.length or 0) > limit:
        raise too_large
    while chunk := response.read(CHUNK):
        if file.tell() + len(chunk) > limit:
            raise too_large
        file.write(chunk)
        advance(len(chunk))
    file.flush()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error.strerror or error) if isinstance(error, OSError) else f"{type(error).__name__} {error}".strip()


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The partial file, opened to be appended to by one process at a time."""
    while True:
        with part.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = part.stat().st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:  # whoever had it has finished
                same = False
            if same:
                file.seek(0, 2)
                yield file
                return


def _verify(remote: Remote, path: Path) -> None:
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise Unverified(f"{remote.name} has {size} bytes, its source says {remote.size}")
    if remote.digest and (found := remote.digest.of(path)) != remote.digest.value:
        raise Unverified(
            f"{remote.name} has the {remote.digest.kind} digest {found}, its source says {remote.digest.value}: "
            "it was deleted; pull again, and if that repeats the file was changed on its way"
        )


def _verify_or_delete(remote: Remote, path: Path) -> None:
    try:
        _verify(remote, path)
    except Unverified:
        path.unlink()
        raise
