"""Downloads over HTTP.

1. a connection error, 429 and 5xx are retried, three times with growing pauses; Retry-After is respected;
2. no file is larger than announced, or than the limit;
3. a token goes to the origin it is for and to no other.

It uses the standard library, which allows both checking the address that is really connected to, and proxies.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from hub.errors import Unreachable, Unusable
from hub.progress import Progress, megabytes
from hub.sources.arrivals import CHUNK, PAUSES_S, Again, Remote, arrive, empty, reason
from hub.sources.trust import Trust, origin, without_secrets

TIMEOUT_S = 30.0
MAX_REDIRECTS = 5


class Denied(Unreachable):
    """A server answered with a status that no other attempt changes."""

    def __init__(self, address: str, status: int, reason: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"{without_secrets(address)} answered {status} {reason}")
        self.status, self.headers = status, headers


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
        if req.get_method() not in ("GET", "HEAD"):  # a body goes where it was sent to, or nowhere
            return None
        self._trust.check(newurl)
        kept = dict(req.header_items())
        if origin(newurl) != origin(req.full_url):
            kept.pop("Authorization", None)
        kept.pop("Host", None)
        return urllib.request.Request(newurl, headers=kept, method=req.get_method())  # noqa: S310  checked above


class Web:
    """Fetches files, with `trust` and a progress bar. `pauses_s`: before each further attempt."""

    def __init__(self, trust: Trust, progress: Progress, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self.trust, self.progress, self.pauses_s = trust, progress, pauses_s
        proxies = urllib.request.getproxies()
        # The user chose the proxy, wherever it is.
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
        """The file in its place, as `arrive`. Raises Unreachable, Unusable and OSError."""
        self.trust.check(remote.address)
        return arrive(remote, path, partial(self._attempt, remote), self.progress, self.pauses_s)

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
                    begin = empty(file)
                _copy(response, file, remote, advance)
        except _NotSatisfiable:
            empty(file)
            raise Again("there is nothing beyond what has arrived", progressed=False) from None
        except (OSError, http.client.HTTPException) as error:
            raise Again(reason(error), progressed=file.tell() > begin) from error
        if remote.size is not None and file.tell() < remote.size:
            raise Again(f"the connection ended after {megabytes(file.tell())}", progressed=file.tell() > begin)

    @contextmanager
    def open(
        self, address: str, headers: Mapping[str, str], method: str = "GET", content: bytes | BinaryIO | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """One attempt at one request. Raises Again if another may help, otherwise Unreachable, and OSError."""
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
    """Whole seconds; the other form, a date, counts as 0: our own pauses are good enough."""
    return float(header) if header and header.isdigit() else 0.0


def _copy(response: http.client.HTTPResponse, file: BinaryIO, remote: Remote, advance: Callable[[int], None]) -> None:
    limit = remote.max_bytes if remote.size is None else min(remote.size, remote.max_bytes)
    too_large = Unusable(f"{remote.name} is larger than {megabytes(limit)}, the allowed or announced size")
    if file.tell() + (response.length or 0) > limit:
        raise too_large
    while chunk := response.read(CHUNK):
        if file.tell() + len(chunk) > limit:
            raise too_large
        file.write(chunk)
        advance(len(chunk))
    file.flush()
