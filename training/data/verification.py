"""Reads every image file before a run starts, in separate processes.

1. all broken files are named, not only the first;
2. a file whose decoder crashes or runs out of memory costs a process, not the run: it is named like the others;
3. a picture that decodes but is too long and thin for the recipe counts as broken.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from tqdm import tqdm

from models.manifest import Preprocess
from training.data.datasets import ImageFolder
from training.data.images import Images
from training.data.names import listed, printable
from training.errors import DataError, TrainingError

CHUNK = 64  # files a thread takes at a time
FILES_PER_READER = 512  # a reader takes half a second to start, so small sets get only one
LISTED = 100  # broken files that are named; the others are counted
READY = "ready"  # what a reader writes first

Depth = Literal["headers", "pixels"]


def verify(
    splits: Sequence[Images],
    spec: Preprocess,
    depth: Depth,
    workers: int,
    *,
    num_shards: int = 1,
    shard_id: int = 0,
) -> None:
    """Read a shard's image files of all splits. Raises DataError that lists the broken ones.

    Arrays of published data sets need no check.
    """
    folders = [images for images in splits if isinstance(images, ImageFolder)]
    paths = [path for folder in folders for path, _ in folder.images][shard_id::num_shards]
    readers = min(workers, -(-len(paths) // FILES_PER_READER))
    command = [sys.executable, "-m", "training.data.reader", depth, spec.model_dump_json()]
    bar = tqdm(
        problems(paths, command, readers), "verify images", len(paths), leave=False, disable=bool(shard_id) or None
    )
    if broken := [f"{path}: {problem}" for path, problem in zip(paths, bar, strict=True) if problem]:
        count = "1 broken image" if len(broken) == 1 else f"{len(broken)} broken images"
        separator = "\n  "
        raise DataError(f"{count}; repair or remove:{separator}{listed(broken, separator, LISTED)}")


def broken(images: Images, spec: Preprocess, depth: Depth, workers: int) -> dict[int, str]:
    """Read all image files -> what is wrong with the broken ones, by index."""
    if not isinstance(images, ImageFolder):
        return {}
    paths = [path for path, _ in images.images]
    command = [sys.executable, "-m", "training.data.reader", depth, spec.model_dump_json()]
    found = problems(paths, command, min(workers, -(-len(paths) // FILES_PER_READER)))
    bar = tqdm(found, "verify images", len(paths), leave=False, disable=None)
    return {index: f"{printable(paths[index])}: {problem}" for index, problem in enumerate(bar) if problem}


def problems(paths: Sequence[Path], command: Sequence[str], readers: int) -> Iterator[str | None]:
    """For each path, what is wrong with the file, or None; `readers` processes run `command`."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    idle: SimpleQueue[Reader] = SimpleQueue()

    def read(chunk: Sequence[Path]) -> list[str | None]:
        reader = idle.get()
        try:
            return reader.problems(chunk)
        finally:
            idle.put(reader)

    with ExitStack() as ending:
        for _ in range(readers):
            reader = Reader(command)
            ending.callback(reader.close)
            idle.put(reader)
        pool = ThreadPoolExecutor(max(1, readers))
        ending.callback(pool.shutdown, cancel_futures=True)
        for answers in pool.map(read, chunks):
            yield from answers


class Reader:
    """A process that reads files. If a file crashes it, a new process continues with the next file."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command, self._runs = command, False
        self._start()

    def _start(self) -> None:
        # It imports from where this process does. Ctrl-C reaches this process only: a reader exits when its input ends.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._process = subprocess.Popen(  # noqa: S603
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,
        )

    def problems(self, paths: Sequence[Path]) -> list[str | None]:
        """For each path, what is wrong with the file, or None. Raises TrainingError if the process does not start."""
        answers: list[str | None] = []
        while len(answers) < len(paths):
            waiting = paths[len(answers) :]
            self._send(waiting)
            for _ in waiting:
                line = self._line()
                answers.append(json.loads(line) if line else f"its decoder crashed ({self._end()})")
                if not line:
                    break
        return answers

    def _send(self, paths: Sequence[Path]) -> None:
        if self._process.returncode is not None:
            self._start()
        if not self._runs and self._line() != READY:
            raise TrainingError(f"the process that reads image files does not start: {self._end()}")
        self._runs = True
        with suppress(BrokenPipeError):  # it crashed on one of them; its answers end there
            print(*(json.dumps(str(path)) for path in paths), sep="\n", file=self._process.stdin, flush=True)

    def _line(self) -> str:
        """The next line of the process without its end; empty if the process has ended."""
        assert self._process.stdout
        return self._process.stdout.readline().rstrip("\n")

    def _end(self) -> str:
        """Wait for the process, whose output has ended -> its exit status or signal."""
        self.close()
        self._runs = False
        status = self._process.returncode
        return f"exit status {status}" if status >= 0 else signal.Signals(-status).name

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            with suppress(BrokenPipeError):  # the process ended before it had read its input
                stream.close()
        self._process.wait()
