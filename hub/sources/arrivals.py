"""Files that arrive in pieces.

1. an attempt that may work later is repeated, three times with growing pauses; the server's Retry-After is respected;
2. what has arrived is not fetched again, not even by another process after `kill -9`;
3. a file is in its place only if it has the digest that its source gives; if not, it is deleted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from hub.errors import Unreachable, Unverified
from hub.progress import Progress
from hub.sources.trust import without_secrets

T = TypeVar("T")
# One attempt: fetch into the file from its end on, and call the function with the bytes of each piece.
Attempt = Callable[[BinaryIO, Callable[[int], None]], None]

CHUNK = 1 << 20
PAUSES_S = (1.0, 4.0, 16.0)
LONGEST_PAUSE_S = 300.0
# For a file of unknown size: larger than any published classifier.
MAX_BYTES = 16 << 30


class Again(Exception):
    """The failure may be temporary. `after_s`: the wait that the server asks for; `progressed`: something did
    arrive."""

    def __init__(self, why: str, after_s: float = 0.0, *, progressed: bool = False) -> None:
        super().__init__(why)
        self.after_s = after_s
        self.progressed = progressed


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
    """A remote file. `size` and `digest` are None if the source does not state them."""

    address: str
    name: str
    size: int | None = None
    digest: Digest | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_bytes: int = MAX_BYTES


def retrying(attempt: Callable[[], T], what: str, pauses_s: Sequence[float] = PAUSES_S) -> T:
    """Repeats `attempt` until it does not raise Again. Raises Unreachable that says what was tried. An attempt that
    made progress counts as the first of a new series."""
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


def arrive(
    remote: Remote, path: Path, attempt: Attempt, progress: Progress, pauses_s: Sequence[float] = PAUSES_S
) -> Path:
    """The file in its place, complete and verified. Raises Unreachable, Unusable and OSError.

    What has arrived so far is in `path` + `.part`; another process that wants it waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    complete = partial(_complete, remote, attempt=attempt, progress=progress, pauses_s=pauses_s)
    with _locked(part) as file:
        if path.exists():  # another process was first
            part.unlink(missing_ok=True)
            return path
        resumed = file.tell() > 0
        complete(file)
        try:
            _verify(remote, part)
        except Unverified:
            if not resumed:
                part.unlink()
                raise
            empty(file)  # what was there before may belong to another file
            complete(file)
            _verify_or_delete(remote, part)
        part.replace(path)
    return path


def _complete(remote: Remote, file: BinaryIO, attempt: Attempt, progress: Progress, pauses_s: Sequence[float]) -> None:
    with progress.bar(remote.name, remote.size) as advance:
        advance(file.tell())
        retrying(partial(attempt, file, advance), without_secrets(remote.address), pauses_s)


def empty(file: BinaryIO) -> int:
    """-> the new position."""
    file.seek(0)
    return file.truncate()


def reason(error: Exception) -> str:
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
            except FileNotFoundError:  # the process that had it has finished
                same = False
            if same:
                file.seek(0, 2)
                yield file
                return


def _verify(remote: Remote, path: Path) -> None:
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise Unverified(f"{remote.name} has {size} bytes, but its source says {remote.size}")
    if remote.digest and (found := remote.digest.of(path)) != remote.digest.value:
        raise Unverified(
            f"{remote.name} has the {remote.digest.kind} digest {found}, but its source says {remote.digest.value}: "
            "it was deleted; pull again. If that repeats, the file was changed in transit"
        )


def _verify_or_delete(remote: Remote, path: Path) -> None:
    try:
        _verify(remote, path)
    except Unverified:
        path.unlink()
        raise
