"""Whether a request is accepted: can it be answered by its deadline, and is there memory for its images?

1. a request that would probably miss its deadline is rejected before its images are decoded, and the error says when
   to retry;
2. a request that would miss it even on an idle server is rejected as such: a retry would not help;
3. all images of a request count, each with the pixels that its header states; before the body is read, one image of
   the usual kind counts, which alone rejects no one;
4. accepted images take at most `max_queue_bytes` of memory, but a single request always fits;
5. an estimate that causes rejections is measured again after a while: one request is let through despite it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from models.formats.sizes import UNKNOWN, Stated
from service.classify.batching import Batcher
from service.classify.decoding import DecodePool
from service.classify.memory import Memory
from service.errors import DeadlineExceeded, Overloaded
from service.observe.lag import LoopLag

# The share of a request's remaining time that its predicted wait may fill. Predictions err, and a late answer is
# worthless. Simulated at 1.5 times the capacity: with this, 98 % of it is answered in time, with 1.0 only 29 %.
MARGIN = 0.8
# How often an image waits for the event loop: its request, its decoding, its batch, its answer.
TURNS = 2
# The share of the remaining time that an unseen image may take in the prediction: it may turn out smaller.
MOST_UNSEEN_SHARE = 1 / 3


class Admission:
    """Knows what is waiting in `decoders` and in `batcher`, and how much memory the accepted images take."""

    def __init__(self, decoders: DecodePool, batcher: Batcher, memory: Memory, tensor_bytes: int, lag: LoopLag) -> None:
        """`tensor_bytes`: the memory of one decoded image; `lag`: of the event loop."""
        self._lag = lag
        self._decoders = decoders
        self._batcher = batcher
        self._memory = memory
        self._tensor_bytes = tensor_bytes

    def predicted_wait_s(self, stated: Sequence[Stated] = (UNKNOWN,)) -> float:
        """Seconds until decoders and engine have finished what such images wait for. They work in parallel, and the
        images that are not decoded yet go through the engine too."""
        engine_s = self._batcher.backlog_s + self._decoders.images * self._batcher.speed.image_s
        return max(self._decoders.wait_s(stated), engine_s) + TURNS * self._lag.seconds

    def check(
        self,
        images: int,
        encoded_bytes: int,
        deadline: float,
        stated: Sequence[Stated] = (),
        margin: float = MARGIN,
        unseen_s: float = 0.0,
    ) -> bool:
        """`deadline` is a time of `time.monotonic`; `stated`: what is known of the images; `unseen_s`: the time of one
        of which nothing is. -> Is it let through despite an estimate, to measure that again?

        Raises Overloaded, or DeadlineExceeded for what even an idle server could not do in time.
        """
        remaining_s = deadline - time.monotonic()
        decode_s, engine_s = self._decoders.work_s(stated), self._engine_s(images)
        idle_s = decode_s + engine_s
        measures_again = idle_s > remaining_s > 0
        if measures_again and self._may_reject(stated, decode_s, engine_s, remaining_s):
            raise DeadlineExceeded(
                f"this takes about {idle_s:.3g} s here, and {remaining_s:.3g} s are left to the deadline"
            )
        wait_s = self.predicted_wait_s(stated or (UNKNOWN,))
        late_s = wait_s + unseen_s + (0.0 if measures_again else idle_s) - margin * remaining_s
        if wait_s and late_s > 0:
            raise Overloaded(f"{wait_s:.3g} s of work are already waiting", late_s)
        self._memory.check(self._bytes(images, encoded_bytes), retry_after_s=wait_s)
        return measures_again

    def check_unread(self, deadline: float, margin: float = MARGIN) -> None:
        """The same before the body is read."""
        most_s = MOST_UNSEEN_SHARE * max(0.0, deadline - time.monotonic())
        self.check(1, 0, deadline, margin=margin, unseen_s=min(self._decoders.speed.usual_s, most_s))

    @contextmanager
    def holding(self, images: int, encoded_bytes: int) -> Iterator[None]:
        """Inside it, this memory counts as taken."""
        with self._memory.holding(self._bytes(images, encoded_bytes)):
            yield

    def _engine_s(self, images: int) -> float:
        """Seconds for `images` on an idle engine."""
        speed = self._batcher.speed
        return speed.batch_s(1) + (images - 1) * speed.image_s

    def _may_reject(self, stated: Sequence[Stated], decode_s: float, engine_s: float, remaining_s: float) -> bool:
        """Have the estimates that make it too late been confirmed recently: one of them, or both if needed?"""
        engine, decoders = self._batcher.speed, self._decoders.speed
        if decode_s <= remaining_s and not engine.may_reject:
            return False
        if engine_s > remaining_s >= decode_s:
            return True
        return all(decoders.may_reject(image, alone=len(stated) == 1) for image in set(stated))

    def _bytes(self, images: int, encoded_bytes: int) -> int:
        return encoded_bytes + images * self._tensor_bytes
