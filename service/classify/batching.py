"""The queue before the engine: images of many callers become batches, and each image has its own outcome.

1. an idle engine never waits: there is no timer, a batch is what arrived while the engine was busy;
2. the time until a new image would be answered is known;
3. a caller that leaves never hurts its batch-mates, and costs no engine time if it was still queued;
4. an image that cannot meet its deadline is dropped before the engine;
5. a batch that fails never stops the next one, and of its images only those fail that also fail alone;
6. while the engine stays unavailable its images are not tried one by one: all of them fail with NotReady;
7. an engine that fails MOST_FAILURES batches in a row is restarted;
8. whatever happens, every caller is answered: nothing is left pending.

The queue has no limit of its own: admission decides what gets in. Images that arrive in one turn of the event loop
share a batch, because the pump runs in the next turn. A batch is built only when a slot of the engine is free, so late
arrivals still get in. All state belongs to the event loop's thread; only `_infer` runs in the executor. A caller that
must be woken at its deadline even while the engine is stuck puts a timeout around `submit` (the classifier does, one
per request): a cancelled `submit` leaves the queue at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from service.classify.speed.batches import ENGINE_SHARE, BatchSpeed
from service.engines.base import Engine, ExplainingEngine, RestartableEngine
from service.errors import DeadlineExceeded, Draining, EngineFailed, NotReady
from service.machine.priority import lower_priority
from service.observe.metrics import Metrics

if TYPE_CHECKING:
    from service.observe.tracing import BatchSpan, RequestTrace

log = logging.getLogger(__name__)

# Failed batches, with no image of any of them answered in between.
MOST_FAILURES = 5


@dataclass(frozen=True)
class Inferred:
    """`logits` float32 (K,), `features` (C, h, w) if they were asked for. `queue_s`: the image's time in the queue;
    `infer_s`: its batch's time in the engine; `span`: its batch's, if that is traced."""

    logits: NDArray[np.float32]
    batch_size: int
    queue_s: float
    infer_s: float
    span: BatchSpan | None = None
    features: NDArray[np.float32] | None = None


@dataclass(eq=False)
class _Waiting:
    """One image and its caller's future. `deadline` and `queued_at` are times of the batcher's clock, seconds."""

    image: NDArray[np.float32]
    deadline: float | None
    queued_at: float
    future: asyncio.Future[Inferred]
    on_start: Callable[[], None]
    trace: RequestTrace | None
    with_features: bool

    def settle(self, outcome: Inferred | Exception) -> None:
        if self.future.done():  # the caller left, or `close` has settled it
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


@dataclass(eq=False)
class _Batch:
    items: list[_Waiting]
    started_at: float


# Logits float32 (K,) and features if they are wanted; None if the engine gave no usable answer, NotReady if it was
# unavailable.
_Row = tuple[NDArray[np.float32], NDArray[np.float32] | None] | NotReady | None


@dataclass
class _BatchResult:
    """`rows`: one for each image. `measures_speed`: `infer_s` is the time of a normal batch."""

    rows: list[_Row]
    infer_s: float
    measures_speed: bool


class Batcher:
    """Runs `slots` batches at once, each of at most `max_batch_size` images. `speed`: as measured so far.

    `clock` gives seconds; deadlines are times of that clock. Create and use it within one event loop.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch_size: int,
        metrics: Metrics,
        slots: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.slots = slots
        self.speed = BatchSpeed(max_batch_size, clock)
        self._engine = engine
        self._restartable = engine if isinstance(engine, RestartableEngine) else None
        if self._restartable:
            self._restartable.on_restart = metrics.engine_restarts.inc
        self._metrics = metrics
        self._clock = clock
        self._image_shape = (3, engine.input_size, engine.input_size)
        self._queue: OrderedDict[_Waiting, None] = OrderedDict()  # in order of arrival; removal is O(1)
        self._running: dict[asyncio.Future[_BatchResult], _Batch] = {}
        self._pump_is_due = False
        self._saturated_since: float | None = None  # since then all slots have been busy and images have waited
        self._failures = 0
        self._closed = False
        self._executor = _started_executor(slots)
        self._publish_gauges()

    def _publish_gauges(self) -> None:
        self._metrics.queue_depth.set_function(lambda: self.queue_depth)
        self._metrics.engine_slots.labels("busy").set_function(lambda: len(self._running))
        self._metrics.engine_slots.labels("idle").set_function(lambda: self.slots - len(self._running))
        self._metrics.batch_expected.clear()  # of a batcher that this one replaces, perhaps with another size
        for images in {1, self.max_batch_size}:
            self._metrics.batch_expected.labels(images).set_function(partial(self.speed.batch_s, images))

    @property
    def queue_depth(self) -> int:
        """Images waiting for a slot."""
        return len(self._queue)

    @property
    def backlog_s(self) -> float:
        """Seconds until all current images have left the engine, at the measured speed."""
        now = self._clock()
        running = sum(self._remaining_s(batch, now) for batch in list(self._running.values()))
        return running / self.slots + self.queue_depth * self.speed.image_s

    def _remaining_s(self, batch: _Batch, now: float) -> float:
        """A batch that is late by some time is assumed to need that much time again."""
        return abs(batch.started_at + self.speed.batch_s(len(batch.items)) - now)

    @property
    def longest_running_s(self) -> float:
        """Age of the oldest batch in the engine, 0 when it is idle. If the engine is stuck, the age only grows."""
        started = [batch.started_at for batch in list(self._running.values())]
        return max(0.0, self._clock() - min(started)) if started else 0.0

    @property
    def engine_unavailable_s(self) -> float:
        """How long the engine has been unavailable, seconds; 0 while it is available."""
        return self._restartable.unavailable_s if self._restartable else 0.0

    @property
    def idle(self) -> bool:
        """Nothing is in the engine."""
        return not self._running

    async def submit(
        self,
        image: NDArray[np.float32],
        deadline: float | None = None,
        on_start: Callable[[], None] = lambda: None,
        trace: RequestTrace | None = None,
        with_features: bool = False,
    ) -> Inferred:
        """float32 (3, S, S) -> logits. `on_start` is called when its batch goes to the engine; `trace`: its request's;
        `with_features`: only of an engine that gives them.

        Raises immediately ValueError for another shape or dtype and Draining if closed; later DeadlineExceeded if it
        cannot meet its deadline, EngineFailed, and NotReady if the engine stays unavailable.
        """
        now = self._clock()
        if image.shape != self._image_shape or image.dtype != np.float32:
            raise ValueError(f"an image must be float32 {self._image_shape}, not {image.dtype} {image.shape}")
        if self._closed:
            raise Draining("the service is shutting down", self.backlog_s)
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded("the deadline passed before the image was queued")
        loop = asyncio.get_running_loop()
        item = _Waiting(image, deadline, now, loop.create_future(), on_start, trace, with_features)
        self._queue[item] = None
        if not self._pump_is_due:
            self._pump_is_due = True
            loop.call_soon(self._pump)
        try:
            return await item.future
        finally:
            self._queue.pop(item, None)

    def _pump(self) -> None:
        """Give batches to the engine while a slot is idle and images wait."""
        self._pump_is_due = False
        while (idle := self.slots - len(self._running)) and (items := self._take(idle)):
            self._start(_Batch(items, self._clock()))
        if idle or not self._queue:
            self._saturated_since = None
        elif self._saturated_since is None:
            self._saturated_since = self._clock()

    def _take(self, idle_slots: int) -> list[_Waiting]:
        """The next batch, in order of arrival. Images that cannot meet their deadline in it are dropped."""
        now = self._clock()
        limit = self._batch_limit(idle_slots)
        expected_s = self.speed.batch_s(limit) if self.speed.may_reject else 0.0
        items: list[_Waiting] = []
        too_late: list[_Waiting] = []
        while self._queue and len(items) < limit:
            item, _ = self._queue.popitem(last=False)
            if not item.future.done():
                in_time = item.deadline is None or now + expected_s <= item.deadline
                (items if in_time else too_late).append(item)
        for item in too_late:
            item.settle(DeadlineExceeded("the deadline passed in the queue, or can no longer be met"))
        return items

    def _batch_limit(self, idle_slots: int) -> int:
        """The idle slots share the queue, and a batch may take at most ENGINE_SHARE of the first image's whole time.

        Not of its remaining time: under load that would shrink the batches just when throughput is needed.
        """
        limit = min(-(-len(self._queue) // idle_slots), self.max_batch_size)
        first = next(iter(self._queue), None)
        if first is None or first.deadline is None:
            return limit
        return min(limit, self.speed.most_images_within(ENGINE_SHARE * (first.deadline - first.queued_at)))

    def _start(self, batch: _Batch) -> None:
        self._metrics.batch_size.observe(len(batch.items))
        for item in batch.items:
            item.on_start()
        images = [item.image for item in batch.items]
        wanted = [item.with_features for item in batch.items]
        done = asyncio.get_running_loop().run_in_executor(self._executor, self._infer, images, wanted)
        self._running[done] = batch
        done.add_done_callback(partial(self._finish, batch))

    def _finish(self, batch: _Batch, done: asyncio.Future[_BatchResult]) -> None:
        """Free the slot and start the next batch first, then answer this one."""
        del self._running[done]
        result = done.result()
        self._learn(len(batch.items), result)
        self._metrics.engine_busy.inc(max(0.0, result.infer_s))
        self._restart_after_repeated_failures(result)
        self._pump()
        self._answer(batch, result)

    def _answer(self, batch: _Batch, result: _BatchResult) -> None:
        traces = [item.trace for item in batch.items if item.trace]
        span = traces[0].batch(traces, batch.started_at, result.infer_s, len(batch.items)) if traces else None
        for item, row in zip(batch.items, result.rows, strict=True):
            # A new error for each image: an exception's traceback grows wherever it is raised.
            if row is None:
                item.settle(EngineFailed("the engine gave no usable answer for this image"))
            elif isinstance(row, NotReady):
                item.settle(NotReady(row.detail, row.retry_after_s))
            else:
                queue_s = batch.started_at - item.queued_at
                logits, features = row
                item.settle(Inferred(logits, len(batch.items), queue_s, result.infer_s, span, features))

    def _learn(self, images: int, result: _BatchResult) -> None:
        if result.measures_speed:
            self.speed.learn(images, result.infer_s)
            if self._saturated_since is not None:
                self.speed.learn_drained(images, self._clock() - self._saturated_since)
        self._saturated_since = None

    def _restart_after_repeated_failures(self, result: _BatchResult) -> None:
        if any(row is not None for row in result.rows):  # NotReady counts too: the restart is under way already
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= MOST_FAILURES and self._restartable:
            self._failures = 0
            log.error("the engine failed on %d batches in a row: restarting it", MOST_FAILURES)
            self._restartable.restart()

    def _infer(self, images: list[NDArray[np.float32]], wanted: list[bool]) -> _BatchResult:
        """In the executor: the whole batch; if that fails, each image alone, once. `wanted`: whose features. Raises
        nothing."""
        started = self._clock()
        measures_speed = not self.engine_unavailable_s  # otherwise the time includes the wait for it
        rows = self._try_infer(images, wanted)
        if rows is None:
            measures_speed, rows = False, [None]
            if len(images) > 1:
                pairs = zip(images, wanted, strict=True)
                rows = [row for image, one in pairs for row in self._try_infer([image], [one]) or [None]]
        return _BatchResult(rows, self._clock() - started, measures_speed)

    def _try_infer(self, images: list[NDArray[np.float32]], wanted: list[bool]) -> list[_Row] | None:
        """A row for each image; None if the batch failed."""
        try:
            # np.stack and np.array copy: neither side keeps the other's buffers.
            found, features = self._ask(np.stack(images), any(wanted))
            logits = np.array(found, dtype=np.float32)
            if logits.shape != (len(images), self._engine.num_classes):
                raise ValueError(f"the engine answered {len(images)} images with shape {logits.shape}")
        except NotReady as error:
            log.warning("%d images were not classified: %s", len(images), error)
            return [error] * len(images)
        except BaseException:  # an engine may raise anything, and no caller may be left without an answer
            log.exception("the engine failed on a batch of %d", len(images))
            return None
        rows: list[_Row] = [
            (row, np.array(features[index]) if features is not None and wanted[index] else None)
            if np.isfinite(row).all()
            else None
            for index, row in enumerate(logits)
        ]
        if bad := sum(row is None for row in rows):
            log.error("the engine gave logits that are not finite for %d of %d images", bad, len(rows))
        return rows

    def _ask(
        self, images: NDArray[np.float32], with_features: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        if with_features:
            return cast(ExplainingEngine, self._engine).infer_with_features(images)
        return self._engine.infer(images), None

    async def close(self, grace_s: float) -> None:
        """Reject new images, finish those accepted within `grace_s` seconds, then fail the rest with Draining.

        A thread that is stuck in the engine cannot be stopped: it stays behind with its batch, and `idle` stays False.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + grace_s
        try:
            while (unsettled := self._unsettled()) and (remaining_s := give_up_at - loop.time()) > 0:
                await asyncio.wait(unsettled, timeout=remaining_s)
        finally:
            for item in [*(item for batch in self._running.values() for item in batch.items), *self._queue]:
                item.settle(Draining("the service shut down before the image was classified", self.backlog_s))
            self._executor.shutdown(wait=False)

    def _unsettled(self) -> list[asyncio.Future[_BatchResult] | asyncio.Future[Inferred]]:
        return [*self._running, *(item.future for item in self._queue)]


def _started_executor(threads: int) -> ThreadPoolExecutor:
    """With all its threads running, so that a system without spare threads fails at start-up, not in the middle of a
    batch."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="engine", initializer=lower_priority)
    all_started = threading.Barrier(threads)
    for _ in range(threads):
        executor.submit(all_started.wait)
    return executor
