"""The threads that decode images, and what their work costs.

1. images wait in a line with others of about their size (LINES), each decoded first come, first served;
2. smaller images are not held up by larger ones: they have their own threads, with a higher priority;
3. an image whose caller leaves while it waits there is never decoded; once a thread has begun with it, it counts as
   work and as memory until that thread is done;
4. an image that cannot be decoded by its deadline is not begun;
5. a wrong image raises ImageError and counts as a decode failure; the next one is decoded as usual;
6. the time until all images here are decoded is known, from their sizes and the speed of all work so far.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError
from models.formats.sizes import UNKNOWN, Stated, stated_size
from models.manifest import Preprocess
from models.preprocess import Box, open_image, read_tensor, seen_box, upright_size
from service.classify.memory import LINES, Memory
from service.classify.speed.decoding import DecodeSpeed
from service.errors import DeadlineExceeded
from service.machine.limits import usable_cpus
from service.machine.priority import lower_priority
from service.observe.drift import input_signals
from service.observe.metrics import TENSOR, Metrics
from service.settings import Settings


class DecodingStopped(Exception):
    """The pool closed before a thread began with this image."""


class _TooLate(Exception):
    """Decoding would end after the deadline."""


class _Larger(Exception):
    """The file has more pixels than its header stated."""

    def __init__(self, found: Stated) -> None:
        super().__init__()
        self.found = found


@dataclass(frozen=True)
class Decoded:
    """`tensor` float32 (3, S, S). `pixels`: width times height of the encoded image, None if it came as a tensor.
    `seen`: the part of the upright image that became the tensor."""

    tensor: NDArray[np.float32]
    image_format: str
    pixels: int | None
    seen: Box

    @classmethod
    def from_tensor(cls, tensor: NDArray[np.float32]) -> Decoded:
        """A caller that preprocesses its images itself sends this."""
        return cls(tensor, TENSOR, None, (0.0, 0.0, float(tensor.shape[2]), float(tensor.shape[1])))

    def signals(self, spec: Preprocess) -> dict[str, float]:
        """The drift signals of this input."""
        size = {} if self.pixels is None else {"image_pixels": float(self.pixels)}
        return size | input_signals(self.tensor, spec)


@dataclass(eq=False)
class _Job:
    """One image in a line. `started_at`: set by its thread; `measured`: what the thread found, and its seconds."""

    encoded: bytes
    stated: Stated
    expected_s: float
    deadline: float
    started_at: float = math.inf
    measured: tuple[Stated, float] | None = None


class _Line:
    """Images of at most `most_pixels` before `threads` threads. Everything except `work` runs in the event loop's
    thread."""

    def __init__(self, number: int, most_pixels: int, threads: int) -> None:
        self.most_pixels = most_pixels
        self.threads = threads
        self.executor = ThreadPoolExecutor(
            threads, f"decode-{number}", initializer=lower_priority, initargs=(1 + number,)
        )
        self._jobs = 0
        self._expected_s = 0.0
        self._begun: dict[_Job, None] = {}

    @property
    def backlog_s(self) -> float:
        """Seconds until all current images are decoded. One that is late by some time is assumed to need that much time
        again."""
        now = time.monotonic()
        done_s = sum(job.expected_s - abs(job.started_at + job.expected_s - now) for job in list(self._begun))
        return max(0.0, self._expected_s - done_s) / self.threads

    def enter(self, job: _Job) -> None:
        self._jobs += 1
        self._expected_s += job.expected_s

    def begin(self, job: _Job) -> None:
        """In the thread."""
        job.started_at = time.monotonic()
        self._begun[job] = None

    def leave(self, job: _Job) -> None:
        self._begun.pop(job, None)
        self._jobs -= 1
        self._expected_s = self._expected_s - job.expected_s if self._jobs else 0.0


class DecodePool:
    """`images`: how many callers wait for. Use it within one event loop: only `_work` runs in the threads."""

    def __init__(self, spec: Preprocess, settings: Settings, metrics: Metrics, memory: Memory | None = None) -> None:
        self.threads = settings.decode_threads or usable_cpus()
        self.images = 0
        self.speed = DecodeSpeed()
        self._spec = spec
        self._settings = settings
        self._metrics = metrics
        self._memory = memory or Memory(settings.max_queue_bytes)
        self._closed = False
        self._lines = [
            _Line(number, most_pixels, math.ceil(self.threads * share))
            for number, (most_pixels, share) in enumerate(LINES)
        ]

    def stated(self, encoded: bytes) -> Stated:
        """What its header says. An image with too many pixels is rejected for that, which takes no time."""
        image = stated_size(encoded)
        return image if image.pixels <= self._settings.max_image_pixels else UNKNOWN

    def wait_s(self, images: Iterable[Stated] = (UNKNOWN,)) -> float:
        """Seconds until threads are free for these images."""
        return max((line.backlog_s for line in {self._line(image) for image in images}), default=0.0)

    def work_s(self, images: Iterable[Stated]) -> float:
        """Seconds until these images are decoded on an idle server."""
        expected_s = [(self._line(image), self.speed.expected_s(image)) for image in images]
        sums: dict[_Line, float] = {}
        for line, seconds in expected_s:
            sums[line] = sums.get(line, 0.0) + seconds / line.threads
        return max([0.0, *sums.values(), *(seconds for _, seconds in expected_s)])

    async def decode(self, encoded: bytes, deadline: float = math.inf) -> Decoded:
        """Raises ImageError, DeadlineExceeded for what cannot be decoded by then, and DecodingStopped if the pool
        closes first. Cancelling it takes the image out of the line."""
        try:
            try:
                return await self._decode(encoded, self.stated(encoded), deadline)
            except _Larger as larger:
                return await self._decode(encoded, larger.found, deadline)
        except _TooLate:
            raise DeadlineExceeded("the image cannot be decoded by the deadline") from None
        except ImageError as error:
            self._metrics.decode_failures.labels(error.code).inc()
            raise
        except asyncio.CancelledError:
            if self._closed:  # cancelled by `close`, not by the caller
                raise DecodingStopped from None
            raise

    async def _decode(self, encoded: bytes, stated: Stated, deadline: float) -> Decoded:
        line, job = self._line(stated), _Job(encoded, stated, self.speed.expected_s(stated), deadline)
        work = line.executor.submit(self._work, job, line)
        line.enter(job)
        self.images += 1
        try:
            return await asyncio.wrap_future(work)
        finally:
            self.images -= 1
            if work.done():
                self._leave(job, line)
            else:
                self._abandon(job, line, work)
            del work  # it keeps its exception, whose traceback keeps this frame: a cycle would keep the image in memory

    def _leave(self, job: _Job, line: _Line) -> None:
        line.leave(job)
        if job.measured:
            self.speed.learn(*job.measured)

    def _abandon(self, job: _Job, line: _Line, work: Future[Decoded]) -> None:
        """Its caller has left, but a thread is at work on it."""
        loop, held_bytes = asyncio.get_running_loop(), len(job.encoded)
        self._memory.take(held_bytes)

        def end() -> None:
            self._memory.give_back(held_bytes)
            self._leave(job, line)

        def ask_to_end(_: Future[Decoded]) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody needs the result
                loop.call_soon_threadsafe(end)

        work.add_done_callback(ask_to_end)

    def _line(self, image: Stated) -> _Line:
        return next(line for line in self._lines if image.pixels <= line.most_pixels)

    def _work(self, job: _Job, line: _Line) -> Decoded:
        """In a thread. Raises _TooLate, _Larger and ImageError."""
        line.begin(job)
        if job.started_at + job.expected_s > job.deadline:
            raise _TooLate
        try:
            decoded = self._read(job, line)
        except ImageError:
            seconds = time.monotonic() - job.started_at
            # A broken file says only how long the whole one would take at least.
            if seconds > job.expected_s or job.stated == UNKNOWN:
                job.measured = job.stated, seconds
            raise
        job.measured = _found(job, decoded), time.monotonic() - job.started_at
        return decoded

    def _read(self, job: _Job, line: _Line) -> Decoded:
        image = open_image(job.encoded, self._settings.max_image_pixels)
        decoded_as, pixels = str(image.format).lower(), image.width * image.height
        if pixels > line.most_pixels:
            raise _Larger(Stated(decoded_as, pixels))
        seen = seen_box(upright_size(image), self._spec)
        return Decoded(read_tensor(image, self._spec, self._settings.pixels), decoded_as, pixels, seen)

    def close(self) -> None:
        """Cancel what no thread has begun, without waiting for the rest."""
        self._closed = True
        for line in self._lines:
            line.executor.shutdown(wait=False, cancel_futures=True)


def _found(job: _Job, decoded: Decoded) -> Stated:
    """What the image turned out to be."""
    assert decoded.pixels is not None
    return Stated(decoded.image_format if job.stated == UNKNOWN else job.stated.kind, decoded.pixels)
