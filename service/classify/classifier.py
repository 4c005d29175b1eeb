"""The use case, without HTTP: encoded images -> preprocess (threads) -> batching -> top-k.

1. each image has its own outcome: a bad image fails no other;
2. a request that would probably miss its deadline is rejected before its images are decoded;
3. an image whose caller left, or whose deadline passed, is not decoded;
4. every caller is answered by its deadline, whatever the engine does;
5. nothing is served before the engine has reproduced the golden logits;
6. what was accepted before closing is answered within the grace time;
7. equal images that come together are computed once, and each caller gets its own answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import anyio
import numpy as np

from models.errors import ImageError
from models.explanation.head import Head
from models.scores.topk import doubt, entropy, scores_of
from models.store import MANIFEST, Bundle, sha256
from service.classify.admission import MARGIN, Admission
from service.classify.batching import Batcher
from service.classify.decoding import Decoded, DecodePool, DecodingStopped
from service.classify.deduplication import Content, Deduplicator, Source
from service.classify.memory import Memory
from service.classify.opening import OpenModel
from service.classify.outcomes import (
    LABELS_ONLY,
    Asked,
    Computed,
    Image,
    Outcome,
    Timings,
    classified,
    is_certain,
    judged_by_features,
)
from service.engines.base import Engine
from service.engines.selection import Choice
from service.errors import DeadlineExceeded, Draining, ServiceError
from service.machine.aside import aside
from service.machine.own_thread import in_own_thread
from service.observe.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from service.observe.tracing import RequestTrace

log = logging.getLogger(__name__)

# Larger images are not compared with others: hashing them would hold up the event loop for over a millisecond.
MOST_COMPARED_BYTES = 1 << 20
# Predictions of an image. A thousand take 0.5 ms, and up to a thousand images come from the engine together.
MOST_SORTED_AT_ONCE = 50
# Time for an engine to close: longer than its own process gets; and for one that is still opening.
CLOSE_S = 10.0
UNAVAILABLE_CLOSE_S = 0.25
# Memory of a kept answer, besides its logits.
OVERHEAD_BYTES = 512


_Result = Computed | ImageError | ServiceError

Stage = Literal["decode", "queue", "infer"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass
class _Progress:
    """The stage that one computation has reached; None when it is over."""

    stage: Stage | None = "decode"

    def enter_engine(self) -> None:
        self.stage = "infer"


@dataclass
class _Request:
    """`deadline` and `decode_by` are times of `time.monotonic`; `computations` are those that this request runs
    itself."""

    top_k: int
    deadline: float
    decode_by: float
    trace: RequestTrace | None = None
    asked: Asked = LABELS_ONLY
    computations: list[_Progress] = field(default_factory=list)

    @property
    def stage(self) -> Stage:
        """Of the image that is furthest behind. One that waits for another request's computation counts as queued."""
        reached = {progress.stage for progress in self.computations}
        return next((stage for stage in STAGES if stage in reached), "queue")


class Classifier:
    """One open bundle on one engine; answers images until `close`. `choice`: why this engine, unless it was handed
    in; `passed_over`: newer versions that cannot serve; `head`: explains its answers, where the engine gives features.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        batcher: Batcher,
        settings: Settings,
        metrics: Metrics,
        choice: Choice | None = None,
        memory: Memory | None = None,
        passed_over: Sequence[str] = (),
        head: Head | None = None,
    ) -> None:
        self.passed_over = passed_over
        self.head = head
        self.bundle = bundle
        self.engine = engine
        self.choice = choice
        self.batcher = batcher
        self._metrics = metrics
        self._closed = False
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        memory = memory or Memory(settings.max_queue_bytes)
        self._decoders = DecodePool(bundle.manifest.preprocess, settings, metrics, memory)
        tensor_bytes = 3 * engine.input_size**2 * np.dtype(np.float32).itemsize
        self._admission = Admission(self._decoders, batcher, memory, tensor_bytes, metrics.loop_lag)
        self.keeps_answers = settings.cache_bytes > 0
        self._deduplicates = settings.single_flight == "on" or self.keeps_answers
        self._deduplicator: Deduplicator[_Result] = Deduplicator(settings.cache_bytes, _kept_bytes)
        metrics.predicted_wait.set_function(lambda: self.predicted_wait_s)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        metrics: Metrics,
        *,
        engine: Engine | None = None,
        measuring: bool = False,
        starting: bool = False,
        memory: Memory | None = None,
    ) -> Classifier:
        """Verify the bundle, load the engine (unless one is handed in), check it on the golden images, warm it up.

        `memory`: the account of a process that receives requests. `measuring`: accept pixels that the manifest does not
        approve, because they are about to be measured. `starting`: skip versions that cannot serve. Raises BundleError,
        ConfigError, EngineUnavailable or GoldenCheckFailed; the engine is closed then. Cancelling it takes effect
        immediately; its thread closes the engine later.
        """
        if starting:
            work = partial(OpenModel.open_newest_good, settings, engine)
        else:
            work = partial(OpenModel.open, settings, engine, measuring)
        opened = await in_own_thread(work, OpenModel.close)
        opened.warn()
        tuning, engine = opened.tuning, opened.engine
        batcher = Batcher(engine, max_batch_size=tuning.max_batch_size, metrics=metrics, slots=opened.slots)
        tuning.teach(batcher.speed)
        _publish(opened, metrics)
        passed_over = [version for version, _ in opened.passed_over]
        return cls(opened.bundle, engine, batcher, settings, metrics, opened.choice, memory, passed_over, opened.head)

    @property
    def decode_threads(self) -> int:
        return self._decoders.threads

    @property
    def predicted_wait_s(self) -> float:
        """Seconds until decoders and engine have finished the current images."""
        return self._admission.predicted_wait_s()

    def admit(self, deadline: float, margin: float = MARGIN) -> None:
        """Before a body is read: can an image be answered by `deadline`, a time of `time.monotonic`? `margin`: as in
        classify.admission.

        Raises Draining, Overloaded, or DeadlineExceeded for what even an idle server could not do in time.
        """
        if self._closed:
            raise self._draining()
        self._admission.check_unread(deadline, margin)

    async def classify(
        self,
        images: Sequence[Image],
        *,
        top_k: int,
        deadline: float,
        trace: RequestTrace | None = None,
        asked: Asked = LABELS_ONLY,
    ) -> list[Outcome]:
        """Images -> the outcome of each, in order, by `deadline`, a time of `time.monotonic`.

        There are fewer than `top_k` predictions if fewer classes have a weight. Cancelling it takes its images out of
        the queues. Raises ValueError for a top_k out of 1..number of classes, and for features without a head.
        """
        if asked.features and self.head is None:
            raise ValueError("this engine or this bundle has no features")
        if not 1 <= top_k <= len(self.bundle.labels):
            raise ValueError(f"top_k must be in 1..{len(self.bundle.labels)}, not {top_k}")
        encoded = [image for image in images if isinstance(image, bytes)]
        encoded_bytes = sum(map(len, encoded))
        stated = [self._decoders.stated(image) for image in encoded]
        if self._closed:
            return [self._draining() for _ in images]
        try:
            measures_again = self._admission.check(len(images), encoded_bytes, deadline, stated)
        except ServiceError as error:
            return [error for _ in images]
        self._requests += 1
        self._idle.clear()
        try:
            with self._admission.holding(len(images), encoded_bytes):
                # An image that measures decoding again is decoded even if that seems to take too long.
                decode_by = math.inf if measures_again and len(images) == 1 else deadline
                return await self._classify_all(images, _Request(top_k, deadline, decode_by, trace, asked))
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def _classify_all(self, images: Sequence[Image], request: _Request) -> list[Outcome]:
        try:
            if len(images) == 1:  # saves a task
                return [await self._classify_in_time(images[0], request)]
            return await asyncio.gather(*(self._classify_in_time(image, request) for image in images))
        except asyncio.CancelledError:
            self._metrics.requests_cancelled.labels(request.stage).inc()
            raise

    async def _classify_in_time(self, image: Image, request: _Request) -> Outcome:
        remaining_s = request.deadline - time.monotonic()
        if remaining_s > 0:
            with anyio.move_on_after(remaining_s):
                return await self._classify_one(image, request)
        return self._draining() if self._closed else DeadlineExceeded("no answer before the deadline")

    def _draining(self) -> Draining:
        return Draining("the service is shutting down", self.predicted_wait_s)

    async def _classify_one(self, image: Image, request: _Request) -> Outcome:
        result, source = await self._result_of(image, request)
        while isinstance(result, DeadlineExceeded) and source == "collapsed" and time.monotonic() < request.deadline:
            result, source = await self._result_of(image, request)  # the deadline was another caller's
        if not isinstance(result, Computed):
            return result
        scores = scores_of(result.logits, self.bundle.manifest)
        uncertainty = doubt(scores) if self.bundle.manifest.labels.multi else float(entropy(scores))
        certain = is_certain(result, 1.0 - uncertainty, self.bundle.manifest)
        describe = partial(
            classified, result, source, scores, certain, self.bundle, request.top_k, request.asked, self.head
        )
        answer = await aside(describe) if request.top_k > MOST_SORTED_AT_ONCE else describe()
        self._metrics.format(result.image_format).inc()
        # The network's own opinion: a caller's labels and priors say nothing about drift.
        best = int(scores.argmax())
        self._metrics.count_prediction(
            self.bundle.labels[best],
            top1_score=float(scores[best]),
            prediction_entropy=uncertainty,
            **result.signals,
        )
        labels = answer.label_set.labels if answer.label_set else None
        self._metrics.doubt.count(self.bundle.manifest, certain, None if labels is None else len(labels))
        return answer

    async def _result_of(self, image: Image, request: _Request) -> tuple[_Result, Source]:
        """Of computing this image, or an equal encoded one."""
        if not self._deduplicates or isinstance(image, np.ndarray) or len(image) > MOST_COMPARED_BYTES:
            return await self._compute(image, request), "miss"
        # A cached answer must not keep its image in memory too.
        content = hashlib.sha256(image).digest() if self.keeps_answers else Content(image)
        key = content, self._gives_features(request)
        result, source = await self._deduplicator.get(key, partial(self._compute, image, request))
        self._metrics.source(source).inc()
        return result, source

    def _gives_features(self, request: _Request) -> bool:
        judged = self.head is not None and judged_by_features(self.bundle.manifest)
        return judged or request.asked.features

    async def _compute(self, image: Image, request: _Request) -> _Result:
        progress = _Progress()
        request.computations.append(progress)
        result = await self._result_or_error(image, request, progress)
        progress.stage = None  # after a cancellation it keeps its stage, which is counted
        return result

    async def _result_or_error(self, image: Image, request: _Request, progress: _Progress) -> _Result:
        """Errors are returned, not raised, so that one image's error does not end the others."""
        try:
            return await self._decode_and_infer(image, request, progress)
        except DecodingStopped:
            return self._draining()
        except (ImageError, ServiceError) as error:
            return error
        except Exception:
            log.exception("a bug, or no memory, while classifying an image")
            return ServiceError("internal error")

    async def _decode_and_infer(self, image: Image, request: _Request, progress: _Progress) -> Computed:
        started = time.monotonic()
        if isinstance(image, np.ndarray):
            decoded = Decoded.from_tensor(image)
        else:
            decoded = await self._decoders.decode(image, request.decode_by)
        decode_s = time.monotonic() - started
        progress.stage = "queue"
        inferred = await self.batcher.submit(
            decoded.tensor, request.deadline, progress.enter_engine, request.trace, self._gives_features(request)
        )
        timings = Timings(decode_s, inferred.queue_s, inferred.infer_s, inferred.batch_size)
        if request.trace:
            request.trace.image(
                started, decode_s=decode_s, queue_s=inferred.queue_s, infer_s=inferred.infer_s, batch=inferred.span
            )
        self._metrics.observe_stages(decode=decode_s, queue=inferred.queue_s, infer=inferred.infer_s)
        signals = decoded.signals(self.bundle.manifest.preprocess)
        return Computed(decoded.image_format, signals, inferred.logits, timings, decoded.seen, inferred.features)

    async def close(self, grace_s: float) -> None:
        """Reject new images, answer those accepted within `grace_s` seconds, fail the rest with Draining; free the
        engine.

        An engine that is still at work then is not closed under its batch: it ends with the process.
        """
        self._closed = True
        give_up_at = time.monotonic() + grace_s
        with anyio.move_on_after(grace_s):
            await self._idle.wait()
        await self.batcher.close(max(0.0, give_up_at - time.monotonic()))
        self._decoders.close()
        if self.batcher.idle:
            await self._close_engine()
        else:
            log.error("the engine %s is still at work after the grace time of %g s", self.engine.name, grace_s)

    async def _close_engine(self) -> None:
        """An engine that is being reopened cannot be closed before it is open, and nothing waits for that."""
        limit_s = UNAVAILABLE_CLOSE_S if self.batcher.engine_unavailable_s else CLOSE_S
        try:
            await asyncio.wait_for(in_own_thread(self.engine.close), limit_s)
        except asyncio.TimeoutError:
            log.warning("the engine %s is not closed after %g s", self.engine.name, limit_s)


def _kept_bytes(result: _Result) -> int:
    """Memory of a result worth keeping, 0 for an error."""
    if not isinstance(result, Computed):
        return 0
    return result.logits.nbytes + (0 if result.features is None else result.features.nbytes) + OVERHEAD_BYTES


def _publish(opened: OpenModel, metrics: Metrics) -> None:
    manifest, engine, report = opened.bundle.manifest, opened.engine, opened.report
    digest = sha256(opened.bundle.folder / MANIFEST)
    metrics.model_info.clear()  # of the model that this one replaces
    metrics.model_info.labels(manifest.name, manifest.version, engine.name, engine.precision, digest).set(1)
    metrics.golden_delta.set(report.max_delta if report else 0.0)
    metrics.golden_tolerance.set(report.tolerance if report else 0.0)
    metrics.life.older_bundle.set(bool(opened.passed_over))
    metrics.expect_labels(opened.bundle.labels)
    metrics.doubt.expect(manifest)
