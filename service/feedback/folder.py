"""A folder of images for labelling, `LABEL/NAME.jpg`, and `tasks.jsonl`, a Label Studio task for each image.

1. every line of `tasks.jsonl` is valid JSON and names an image that exists, at any moment, even after `kill -9`;
2. images and list together stay within `most_bytes`, as counted in blocks; the oldest images are deleted first;
3. only what this list names is ever deleted: photos that people moved to another folder, or added, are theirs;
4. any number of processes may write to the folder: each holds its lock while it does;
5. files can be read by their owner only, and appear complete; their names are safe, whatever a client or a label says.

An image is written before its line, and a line is removed before its image. The lock's file has the account, and the
images that are being written or deleted: if their process is killed, the next one removes those that are not in the
list.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

TASKS = "tasks.jsonl"
LOCK = ".lock"
# What a file or a folder takes on common file systems: whole blocks.
BLOCK_BYTES = 4096
# For the folder itself and the lock, and for what the list takes beyond its bytes, twice.
OWN_BLOCKS = 4
# Making room rewrites the list, so it frees more than the next image needs.
SPARE_SHARE = 0.05
# Characters of a label in the name of its folder; a file name has 255 bytes, and a character up to four.
MOST_LETTERS = 60
SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"GI": ".gif", b"RI": ".webp", b"BM": ".bmp"}
_OURS = re.compile(r"[^/]+/[0-9]{8}T[0-9]{12}Z-[A-Za-z0-9_-]+\.[a-z]+")


class TooLarge(Exception):
    """The image does not fit into the folder, even alone."""


@dataclass(frozen=True)
class Kept:
    """An image, as it was sent, and its answer. `answer`: more about it, for the task's data."""

    image: bytes
    request_id: str
    index: int
    model: str
    label: str
    score: float
    answer: dict[str, Any]


@dataclass(frozen=True)
class _Entry:
    """A line of the list whose image exists."""

    line: bytes
    file: str
    path: Path
    bytes: int


class KeptFolder:
    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most_bytes = most_bytes

    def open(self) -> int:
        """Make the folder, and repair the list and the account -> bytes. Raises OSError."""
        with self._locked() as account:
            total, _ = self._make_room(account, self._most_bytes)
            account.write(total)
        return total

    def add(self, kept: Kept) -> tuple[int, int]:
        """-> bytes of the folder, and images that were deleted. Raises TooLarge; OSError, and nothing is added then."""
        with self._locked() as account:
            total, deleted = account.read(), 0
            folder = self._path / folder_name(kept.label)
            path = _free(folder, file_name(kept))
            file = path.relative_to(self._path).as_posix()
            line = _line(self._path.name, file, kept)
            size = _cost(len(kept.image), line) + (0 if folder.is_dir() else BLOCK_BYTES)
            if size + OWN_BLOCKS * BLOCK_BYTES > self._most_bytes:
                raise TooLarge
            if total is None or total + size > self._most_bytes:
                spare = int(SPARE_SHARE * self._most_bytes)
                total, deleted = self._make_room(account, max(0, self._most_bytes - size - spare))
            account.write(total, pending=[file])
            self._write(folder, path, kept.image, line)
            account.write(total + size)
        return total + size, deleted

    def _write(self, folder: Path, path: Path, image: bytes, line: bytes) -> None:
        folder.mkdir(0o700, exist_ok=True)
        try:
            _write_whole(path, image)
            self._append(line)
        except OSError:
            path.unlink(missing_ok=True)
            _removed_if_empty(folder)
            raise

    def _append(self, line: bytes) -> None:
        """The whole line or nothing."""
        with _opened(self._path / TASKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            size = os.fstat(file).st_size
            if os.write(file, line) < len(line):  # the disk is full
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path / TASKS))

    def _make_room(self, account: _Account, most_bytes: int) -> tuple[int, int]:
        """Forget lines without an image, and delete the oldest images until the rest takes up to `most_bytes` -> bytes
        of the folder, and images that were deleted."""
        entries, is_whole = self._entries()
        blocks = OWN_BLOCKS + len({entry.path.parent for entry in entries})
        total, dropped = BLOCK_BYTES * blocks + sum(entry.bytes for entry in entries), 0
        while total > most_bytes and dropped < len(entries):
            total -= entries[dropped].bytes
            dropped += 1
        account.write(total, pending=[entry.file for entry in entries[:dropped]])
        if dropped or not is_whole:
            self._list(entries[dropped:])
        for entry in entries[:dropped]:
            entry.path.unlink(missing_ok=True)
        for folder in {entry.path.parent for entry in entries[:dropped]}:
            total -= BLOCK_BYTES * _removed_if_empty(folder)
        return total, dropped

    def _list(self, entries: Sequence[_Entry]) -> None:
        _write_whole(self._path / TASKS, b"".join(entry.line for entry in entries))

    def _entries(self) -> tuple[list[_Entry], bool]:
        """Oldest first, and whether that is the whole list."""
        try:
            lines = (self._path / TASKS).read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return [], True
        entries = [entry for entry in map(self._entry, lines) if entry is not None]
        return entries, len(entries) == len(lines)

    def _entry(self, line: bytes) -> _Entry | None:
        """None for a line that is not ours, or whose image is gone."""
        try:
            file = json.loads(line)["data"]["file"] if line.endswith(b"\n") else None
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(file, str) or not _is_ours(file):
            return None
        path = self._path / file
        try:
            return _Entry(line, file, path, _cost(path.stat().st_size, line))
        except OSError:
            return None

    @contextmanager
    def _locked(self) -> Iterator[_Account]:
        self._path.mkdir(0o700, parents=True, exist_ok=True)
        with _opened(self._path / LOCK, os.O_RDWR | os.O_CREAT) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            account = _Account(file)
            if account.pending:
                self._remove_unfinished(account.pending)
            yield account

    def _remove_unfinished(self, files: Sequence[str]) -> None:
        entries, is_whole = self._entries()
        if not is_whole:  # the last line may end in the middle
            self._list(entries)
        _draft_of(self._path / TASKS).unlink(missing_ok=True)
        listed = {entry.file for entry in entries}
        for path in (self._path / file for file in files if _is_ours(file) and file not in listed):
            _draft_of(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            _removed_if_empty(path.parent)


class _Account:
    """In the lock's file, one line each: the bytes of the folder, and the files that are being written or deleted."""

    def __init__(self, file: int) -> None:
        self._file = file
        total, *self.pending = os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace").split("\n")
        self._total = int(total) if total.isdecimal() and not self.pending else None

    def read(self) -> int | None:
        """None if it is not known."""
        return self._total

    def write(self, total: int, pending: Sequence[str] = ()) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, "\n".join([str(total), *pending]).encode(), 0)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = _open_private(str(path), flags)
    try:
        yield file
    finally:
        os.close(file)


def _draft_of(path: Path) -> Path:
    """Hidden while it is written, so that readers of the folder skip it."""
    return path.with_name(f".{path.name}")


def _write_whole(path: Path, content: bytes) -> None:
    draft = _draft_of(path)
    try:
        with open(draft, "wb", opener=_open_private) as file:
            file.write(content)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _line(folder: str, file: str, kept: Kept) -> bytes:
    """Label Studio refuses to serve its document root itself: that is the parent of `folder`."""
    choice = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [kept.label]}}
    task = {
        "data": {
            "image": f"/data/local-files/?d={quote(folder)}/{quote(file)}",
            "file": file,
            "request_id": kept.request_id,
            "index": kept.index,
            **kept.answer,
        },
        "predictions": [{"model_version": kept.model, "score": kept.score, "result": [choice]}],
    }
    return json.dumps(task, ensure_ascii=True).encode() + b"\n"


def _removed_if_empty(folder: Path) -> bool:
    """Training rejects a class without images."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _is_ours(file: str) -> bool:
    return _OURS.fullmatch(file) is not None and not file.startswith(".")


def _cost(image_bytes: int, line: bytes) -> int:
    """The list exists twice while it is rewritten."""
    return -(-image_bytes // BLOCK_BYTES) * BLOCK_BYTES + 2 * len(line)


def _free(folder: Path, name: str) -> Path:
    """A client may use one id for several requests at once."""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
    return path


def file_name(kept: Kept) -> str:
    """`20261129T184205123456Z-5f0c1f2e-0.jpg`"""
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
    request_id = re.sub(r"[^A-Za-z0-9_-]", "_", kept.request_id)[:100]
    return f"{now}Z-{request_id}-{kept.index}{SUFFIXES.get(kept.image[:2], '.tiff')}"


def folder_name(label: str) -> str:
    """The label itself if that can be the name of a folder, so that training uses it as the class."""
    safe = re.sub(r"[\x00-\x1f\x7f/\\\ud800-\udfff]|^\.", "_", label)[:MOST_LETTERS].strip()
    return safe if safe == label and safe != TASKS else f"{safe}-{crc32(label.encode(errors='replace')):08x}"
