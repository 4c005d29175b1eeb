"""Whether a request is accepted: can it be answered by its deadline, and is there memory for its images?

1. a request that would probably miss its deadline is rejected before its images are decoded, and the error says when
   to retry;
2. a request that would miss it even on an idle server is rejected as such: a retry would not help;
3. accepted images take at most `max_queue_bytes` of memory, but a single request always fits;
4. an estimate that causes rejections fades with each of them, because no measurement would correct it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.classify.batching import Batcher
from service.classify.decoding import DecodePool
from service.errors import DeadlineExceeded, Overloaded
from service.observe.lag import LoopLag

# The share of a request's remaining time that its predicted wait may fill. Predictions are wrong, and a late answer is
# worth nothing. Simulated at 1.5 times the capacity: with this 98 % of it is answered in time, with 1.0 only 29 %.
MARGIN = 0.8
# How often an image waits for the event loop: its request, its decoding, its batch, its answer.
TURNS = 2


class Admission:
    """Knows what is waiting in `decoders` and in `batcher`, and how much memory the accepted images take."""

    def __init__(
        self, decoders: DecodePool, batcher: Batcher, max_queue_bytes: int, tensor_bytes: int, lag: LoopLag
    ) -> None:
        """`tensor_bytes`: the memory of one decoded image; `lag`: of the event loop."""
        self._lag = lag
        self._decoders = decoders
        self._batcher = batcher
        self._max_queue_bytes = max_queue_bytes
        self._tensor_bytes = tensor_bytes
        self._held_bytes = 0

    @property
    def predicted_wait_s(self) -> float:
        """Seconds until decoders and engine have finished what is here. They work in parallel, and the images that are
        not decoded yet go through the engine too."""
        engine_s = self._batcher.backlog_s + self._decoders.images * self._batcher.speed.image_s
        return max(self._decoders.backlog_s, engine_s) + TURNS * self._lag.seconds

    def check(self, images: int, encoded_bytes: int, deadline: float, margin: float = MARGIN) -> None:
        """`deadline` is a time of `time.monotonic`. Raises Overloaded, or DeadlineExceeded for what even an idle server
        could not do in time."""
        remaining_s = deadline - time.monotonic()
        idle_s = self._idle_server_s(images)
        if idle_s > remaining_s > 0:
            self._fade()
            raise DeadlineExceeded(
                f"this takes about {idle_s:.3g} s here, and {remaining_s:.3g} s are left to the deadline"
            )
        wait_s = self.predicted_wait_s
        late_s = wait_s + idle_s - margin * remaining_s
        if wait_s and late_s > 0:
            raise Overloaded(f"{wait_s:.3g} s of work are waiting already", late_s)
        if self._held_bytes and self._held_bytes + self._bytes(images, encoded_bytes) > self._max_queue_bytes:
            raise Overloaded(f"{self._held_bytes} bytes of images are waiting already", wait_s)

    @contextmanager
    def holding(self, images: int, encoded_bytes: int) -> Iterator[None]:
        """Within it, this memory counts as taken."""
        held_bytes = self._bytes(images, encoded_bytes)
        self._held_bytes += held_bytes
        try:
            yield
        finally:
            self._held_bytes -= held_bytes

    def _idle_server_s(self, images: int) -> float:
        """Seconds for `images` on a server that does nothing else."""
        speed = self._batcher.speed
        return self._decoders.image_s + speed.batch_s(1) + (images - 1) * speed.image_s

    def _fade(self) -> None:
        self._decoders.fade()
        self._batcher.speed.fade()

    def _bytes(self, images: int, encoded_bytes: int) -> int:
        return encoded_bytes + images * self._tensor_bytes
