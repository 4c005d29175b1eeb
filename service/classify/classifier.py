"""The use case, without HTTP: encoded images -> preprocess (threads) -> batching -> top-k.

1. each image has its own fate: what is wrong with one fails no other;
2. a request that would not be answered in time, as measured, is refused before its images are decoded;
3. an image whose caller left, or whose deadline passed, is not decoded any more;
4. every caller is answered by its deadline, whatever the engine does;
5. nothing is served before the engine has reproduced the golden logits;
6. what was accepted before closing is answered within the grace time;
7. equal images that come together are computed once, and each caller gets its own answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import anyio
import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError
from models.golden import GoldenReport
from models.manifest import Preprocess
from models.preprocess import open_image, read_tensor
from models.store import MANIFEST, Bundle, open_bundle, sha256
from models.topk import Prediction, entropy, softmax, top_k
from service.classify.batching import Batcher
from service.classify.deduplication import Content, Sharing, Source
from service.classify.speed import FADING
from service.classify.tuning import tune
from service.engines.base import Engine
from service.engines.check import check_engine
from service.engines.selection import Choice, check_pixels, engine_slots, open_engine
from service.errors import DeadlineExceeded, Draining, Overloaded, ServiceError
from service.machine.limits import usable_cpus
from service.machine.priority import give_way
from service.observe.drift import input_signals
from service.observe.metrics import TENSOR, Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from service.observe.tracing import RequestTrace

log = logging.getLogger(__name__)

# The part of the moving average of decode times that the newest image makes.
NEWEST_WEIGHT = 0.1
# The part of a request's time that its predicted wait may fill: predictions are wrong, and a late answer is worth
# nothing. Simulated at 1.5 times the capacity, 98 % of it is answered in time with this, 29 % without.
MARGIN = 0.8
# Larger images are not compared with others: hashing them would hold up the event loop for over a millisecond.
MOST_SHARED_BYTES = 1 << 20
# Of a kept answer, beside its logits.
OVERHEAD_BYTES = 512


@dataclass(frozen=True)
class Timings:
    """Seconds that one image spent in each stage (decode with its wait for a thread), and the size of its batch."""

    decode_s: float
    queue_s: float
    infer_s: float
    batch_size: int


@dataclass(frozen=True)
class Classified:
    """`predictions`: the k best by falling score. `timings` are those of the computation, whoever asked for it."""

    predictions: list[Prediction]
    timings: Timings
    source: Source


Fate = Classified | ImageError | ServiceError
# Encoded, or preprocessed already: float32 (3, S, S) of finite values.
Image = bytes | NDArray[np.float32]


@dataclass(frozen=True)
class _Decoded:
    """`pixels` of the image as it came, None for a tensor; `seconds` of work, without the wait for a thread."""

    tensor: NDArray[np.float32]
    image_format: str
    pixels: int | None
    seconds: float

    def signals(self, spec: Preprocess) -> dict[str, float]:
        """Those of `drift` that the input has."""
        size = {} if self.pixels is None else {"image_pixels": float(self.pixels)}
        return size | input_signals(self.tensor, spec)


@dataclass(frozen=True)
class _Computed:
    """`signals`: those of the input; `logits` float32 (K,)."""

    image_format: str
    signals: dict[str, float]
    logits: NDArray[np.float32]
    timings: Timings


# What one computation comes to. Errors are values: raised to many callers, one's traceback would grow with each.
_Outcome = _Computed | ImageError | ServiceError


Stage = Literal["decode", "queue", "infer"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass
class _Progress:
    """Where one computation is; None: over."""

    stage: Stage | None = "decode"

    def start(self) -> None:
        self.stage = "infer"


@dataclass
class _Request:
    """`deadline` is a time of `time.monotonic`; `computations` are those that it began itself."""

    top_k: int
    deadline: float
    trace: RequestTrace | None = None
    computations: list[_Progress] = field(default_factory=list)

    @property
    def stage(self) -> Stage:
        """Of the image that has got least far. One that waits for another request's computation is in a queue."""
        reached = {progress.stage for progress in self.computations}
        return next((stage for stage in STAGES if stage in reached), "queue")


class Classifier:
    """One open bundle on one engine; images are answered until `close`. `choice`: why this engine, unless it was
    handed in."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        batcher: Batcher,
        settings: Settings,
        metrics: Metrics,
        choice: Choice | None = None,
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.choice = choice
        self.batcher = batcher
        self._settings = settings
        self._metrics = metrics
        self._closed = self._gave_up = False
        self._requests = 0
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._held_bytes = 0
        self._tensor_bytes = 3 * engine.input_size**2 * np.dtype(np.float32).itemsize
        self._shares = settings.single_flight == "on" or settings.cache_bytes > 0
        self._sharing: Sharing[_Outcome] = Sharing(settings.cache_bytes, _size)
        self.decode_threads = settings.decode_threads or usable_cpus()
        self._decoders = ThreadPoolExecutor(self.decode_threads, thread_name_prefix="decode", initializer=give_way)
        self._decoding = 0
        self._decode_s = 0.0
        metrics.predicted_wait.set_function(lambda: self.predicted_wait_s)

    @classmethod
    async def open(
        cls, settings: Settings, metrics: Metrics, *, engine: Engine | None = None, measuring: bool = False
    ) -> Classifier:
        """Verify the bundle, load the engine (unless one is handed in), check it on the golden images, warm it up.

        `measuring`: pixels that the manifest does not vouch for are no error, since that is to be found out.
        Raises BundleError, ConfigError, EngineUnavailable or GoldenCheckFailed; the engine is closed then.
        """
        bundle = await asyncio.to_thread(open_bundle, settings.model)
        if not measuring:
            check_pixels(bundle, settings)
        choice: Choice | None = None
        if engine is None:
            opened = await asyncio.to_thread(open_engine, bundle, settings)
            engine, choice = opened
        try:
            slots = engine_slots(engine.name, settings)
            if choice is None:
                report = await asyncio.to_thread(check_engine, engine, bundle)
            else:
                report = choice.golden  # what open_engine opens, it has checked
            tuning = await asyncio.to_thread(tune, engine, slots, settings.max_batch_size, settings.objective_ms / 1000)
        except BaseException:
            engine.close()
            raise
        batcher = Batcher(engine, max_batch_size=tuning.max_batch_size, metrics=metrics, slots=slots)
        tuning.teach(batcher.speed)
        _publish(bundle, engine, report, metrics)
        return cls(bundle, engine, batcher, settings, metrics, choice)

    @property
    def keeps_answers(self) -> bool:
        return self._settings.cache_bytes > 0

    @property
    def predicted_wait_s(self) -> float:
        """Seconds until decoders and engine have done what is here. They work at the same time, and what is not decoded
        yet comes to the engine too."""
        return max(
            self._decoding * self._decode_s / self.decode_threads,
            self.batcher.backlog_s + self._decoding * self.batcher.speed.image_s,
        )

    def admit(self, images: int, encoded_bytes: int, deadline: float) -> None:
        """Would `images` more be answered by `deadline`, a time of `time.monotonic`, and is there memory for them?

        Raises NotReady, Draining, Overloaded, or DeadlineExceeded for what even an idle server could not do in time.
        """
        if self._closed:
            raise self._draining()
        remaining_s = deadline - time.monotonic()
        alone_s = self._decode_s + self.batcher.speed.batch_s(1) + (images - 1) * self.batcher.speed.image_s
        if alone_s > remaining_s > 0:
            self._fade()
            raise DeadlineExceeded(
                f"this takes about {alone_s:.3g} s here, and {remaining_s:.3g} s are left to the deadline"
            )
        ahead_s = self.predicted_wait_s
        late_s = ahead_s + alone_s - MARGIN * remaining_s
        if ahead_s and late_s > 0:
            raise Overloaded(f"{ahead_s:.3g} s of work are waiting already", late_s)
        if self._held_bytes and self._held_bytes + self._bytes(images, encoded_bytes) > self._settings.max_queue_bytes:
            raise Overloaded(f"{self._held_bytes} bytes of images are waiting already", ahead_s)

    def _fade(self) -> None:
        """An estimate that only refuses is never corrected by a measurement."""
        self._decode_s *= FADING
        self.batcher.speed.fade()

    def _bytes(self, images: int, encoded_bytes: int) -> int:
        return encoded_bytes + images * self._tensor_bytes

    async def classify(
        self, images: Sequence[Image], *, top_k: int, deadline: float, trace: RequestTrace | None = None
    ) -> list[Fate]:
        """Images -> the fate of each, in order, at the latest at `deadline`, a time of `time.monotonic`.

        Cancelling it takes its images out of the queues. Raises ValueError for a top_k out of 1..number of classes.
        """
        if not 1 <= top_k <= len(self.bundle.labels):
            raise ValueError(f"top_k must be in 1..{len(self.bundle.labels)}, not {top_k}")
        encoded_bytes = sum(len(image) for image in images if isinstance(image, bytes))
        try:
            self.admit(len(images), encoded_bytes, deadline)
        except ServiceError as error:
            return [error for _ in images]
        held_bytes = self._bytes(len(images), encoded_bytes)
        self._held_bytes += held_bytes
        self._requests += 1
        self._none_left.clear()
        try:
            return await self._classify_all(images, _Request(top_k, deadline, trace))
        finally:
            self._held_bytes -= held_bytes
            self._requests -= 1
            if not self._requests:
                self._none_left.set()

    async def _classify_all(self, images: Sequence[Image], request: _Request) -> list[Fate]:
        try:
            if len(images) == 1:  # without a task of its own
                return [await self._classify_in_time(images[0], request)]
            return await asyncio.gather(*(self._classify_in_time(image, request) for image in images))
        except asyncio.CancelledError:
            self._metrics.requests_cancelled.labels(request.stage).inc()
            raise

    async def _classify_in_time(self, image: Image, request: _Request) -> Fate:
        remaining_s = request.deadline - time.monotonic()
        if remaining_s > 0:
            with anyio.move_on_after(remaining_s):
                return await self._classify_one(image, request)
        return self._draining() if self._closed else DeadlineExceeded("no answer before the deadline")

    def _draining(self) -> Draining:
        return Draining("the service is shutting down", self.predicted_wait_s)

    async def _classify_one(self, image: Image, request: _Request) -> Fate:
        """Errors are returned, not raised: no image's ends another's."""
        outcome, source = await self._share(image, request)
        while isinstance(outcome, DeadlineExceeded) and source == "collapsed" and time.monotonic() < request.deadline:
            outcome, source = await self._share(image, request)  # the deadline was another caller's
        if not isinstance(outcome, _Computed):
            return outcome
        scores = softmax(outcome.logits, self.bundle.manifest.temperature)
        predictions = top_k(scores, self.bundle.labels, request.top_k)
        best = predictions[0]
        self._metrics.images.labels(outcome.image_format).inc()
        self._metrics.count_prediction(
            best.label, top1_score=best.score, prediction_entropy=entropy(scores), **outcome.signals
        )
        return Classified(predictions, outcome.timings, source)

    async def _share(self, image: Image, request: _Request) -> tuple[_Outcome, Source]:
        """The computation of this image, or of an equal encoded one."""
        if not self._shares or isinstance(image, np.ndarray) or len(image) > MOST_SHARED_BYTES:
            return await self._compute(image, request), "miss"
        # What is kept must not keep the images too.
        key = hashlib.sha256(image).digest() if self.keeps_answers else Content(image)
        outcome, source = await self._sharing.get(key, partial(self._compute, image, request))
        self._metrics.images_shared.labels(source).inc()
        return outcome, source

    async def _compute(self, image: Image, request: _Request) -> _Outcome:
        progress = _Progress()
        request.computations.append(progress)
        outcome = await self._outcome_of(image, request, progress)
        progress.stage = None
        return outcome

    async def _outcome_of(self, image: Image, request: _Request, progress: _Progress) -> _Outcome:
        try:
            started = time.monotonic()
            decoded = _Decoded(image, TENSOR, None, 0.0) if isinstance(image, np.ndarray) else await self._decode(image)
            decode_s = time.monotonic() - started
            progress.stage = "queue"
            inferred = await self.batcher.submit(decoded.tensor, request.deadline, progress.start, request.trace)
            timings = Timings(decode_s, inferred.queue_s, inferred.infer_s, inferred.batch_size)
            if request.trace:
                request.trace.image(
                    started, decode_s=decode_s, queue_s=inferred.queue_s, infer_s=inferred.infer_s, batch=inferred.span
                )
            self._metrics.observe_stages(decode=decode_s, queue=inferred.queue_s, infer=inferred.infer_s)
            signals = decoded.signals(self.bundle.manifest.preprocess)
            return _Computed(decoded.image_format, signals, inferred.logits, timings)
        except (ImageError, ServiceError) as error:
            return error
        except Exception:
            log.exception("a bug, or no memory, while classifying an image")
            return ServiceError("internal error")

    async def _decode(self, encoded: bytes) -> _Decoded:
        """Raises ImageError. A future that is cancelled in the pool's queue is skipped."""
        loop = asyncio.get_running_loop()
        self._decoding += 1
        try:
            decoded = await loop.run_in_executor(
                self._decoders, _to_tensor, encoded, self.bundle.manifest.preprocess, self._settings
            )
        except ImageError as error:
            self._metrics.decode_failures.labels(error.code).inc()
            raise
        except asyncio.CancelledError:
            if self._gave_up:  # `close` has cancelled what no thread had begun
                raise self._draining() from None
            raise
        finally:
            self._decoding -= 1
        self._decode_s += NEWEST_WEIGHT * (decoded.seconds - self._decode_s) if self._decode_s else decoded.seconds
        return decoded

    async def close(self, grace_s: float) -> None:
        """Refuse new images, answer those accepted within `grace_s` seconds, tell the rest Draining; free the engine.

        An engine that is still at work then is not closed under it: it ends with the process.
        """
        self._closed = True
        give_up_at = time.monotonic() + grace_s
        with anyio.move_on_after(grace_s):
            await self._none_left.wait()
        await self.batcher.close(max(0.0, give_up_at - time.monotonic()))
        self._gave_up = True
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if self.batcher.idle:
            await asyncio.to_thread(self.engine.close)
        else:
            log.error("the engine %s is still at work after the grace time of %g s", self.engine.name, grace_s)


def _size(outcome: _Outcome) -> int:
    """Bytes of an answer worth keeping."""
    return outcome.logits.nbytes + OVERHEAD_BYTES if isinstance(outcome, _Computed) else 0


def _to_tensor(encoded: bytes, spec: Preprocess, settings: Settings) -> _Decoded:
    """In a thread of the pool. Raises ImageError."""
    started = time.monotonic()
    image = open_image(encoded, settings.max_image_pixels)
    image_format, pixels = str(image.format).lower(), image.width * image.height
    tensor = read_tensor(image, spec, settings.pixels)
    return _Decoded(tensor, image_format, pixels, time.monotonic() - started)


def _publish(bundle: Bundle, engine: Engine, report: GoldenReport | None, metrics: Metrics) -> None:
    manifest = bundle.manifest
    digest = sha256(bundle.folder / MANIFEST)
    metrics.model_info.clear()  # of the one whose place it takes
    metrics.model_info.labels(manifest.name, manifest.version, engine.name, engine.precision, digest).set(1)
    metrics.golden_delta.set(report.max_delta if report else 0.0)
    metrics.golden_tolerance.set(report.tolerance if report else 0.0)
    metrics.expect_labels(bundle.labels)
