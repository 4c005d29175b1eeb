"""The use case, without HTTP: encoded images -> preprocess (threads) -> batching -> top-k.

1. each image has its own fate: what is wrong with one fails no other;
2. an image that finds too many waiting is refused before it is decoded;
3. an image whose caller left, or whose deadline passed, is not decoded any more;
4. every caller is answered by its deadline, whatever the engine does;
5. nothing is served before the engine has reproduced the golden logits;
6. what was accepted before closing is answered within the grace time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import open_image, read_pixels, to_tensor
from models.store import MANIFEST, Bundle, open_bundle, sha256
from models.topk import Prediction, top_k
from service.batching import Batcher, Inferred
from service.engines.base import Engine
from service.engines.capabilities import CAPABILITIES
from service.engines.check import check_engine
from service.errors import DeadlineExceeded, Draining, Overloaded, ServiceError
from service.metrics import Metrics
from service.selection import Choice, open_engine
from service.settings import Settings, usable_cpus

log = logging.getLogger(__name__)

# The part of the moving average of decode times that the newest image makes.
NEWEST_WEIGHT = 0.1
MOST_WARM_UP_SIZES = 32


@dataclass(frozen=True)
class Timings:
    """Seconds that one image spent in each stage (decode with its wait for a thread), and the size of its batch."""

    decode_s: float
    queue_s: float
    infer_s: float
    batch_size: int


@dataclass(frozen=True)
class Classified:
    """`predictions`: the k best by falling score."""

    predictions: list[Prediction]
    timings: Timings


Fate = Classified | ImageError | ServiceError


@dataclass(frozen=True)
class _Decoded:
    """`seconds` is the work alone, without the wait for a thread."""

    tensor: NDArray[np.float32]
    image_format: str
    seconds: float


@dataclass
class _Request:
    """`deadline` is a time of `time.monotonic`; `undecoded` counts the images that are not tensors yet."""

    top_k: int
    deadline: float
    undecoded: int


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
        self._max_queue_images = settings.max_queue_images
        self._max_image_pixels = settings.max_image_pixels
        self._metrics = metrics
        self._closed = False
        self._images: set[asyncio.Task[Fate]] = set()
        self._decode_threads = settings.decode_threads or usable_cpus()
        self._decoders = ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode")
        self._decoding = 0
        self._decode_s = 0.0

    @classmethod
    async def open(cls, settings: Settings, metrics: Metrics, *, engine: Engine | None = None) -> Classifier:
        """Verify the bundle, load the engine (unless one is handed in), check it on the golden images, warm it up.

        Raises BundleError, ConfigError, EngineUnavailable or GoldenCheckFailed; the engine is closed then.
        """
        bundle = await asyncio.to_thread(open_bundle, settings.model)
        choice: Choice | None = None
        if engine is None:
            opened = await asyncio.to_thread(open_engine, bundle, settings)
            engine, choice = opened
        try:
            await asyncio.to_thread(check_engine, engine, bundle)
            sizes = warm_up_sizes(engine.name, settings.max_batch_size)
            seconds = [await asyncio.to_thread(_warm_up, engine, images) for images in sizes]
        except BaseException:
            engine.close()
            raise
        batcher = Batcher(
            engine,
            max_batch_size=settings.max_batch_size,
            max_queue_images=settings.max_queue_images,
            metrics=metrics,
        )
        for images, measured_s in zip(sizes, seconds, strict=True):
            batcher.learn_speed(images, measured_s)
        _publish(bundle, engine, metrics)
        return cls(bundle, engine, batcher, settings, metrics, choice)

    @property
    def predicted_wait_s(self) -> float:
        """Time until an image that came now would be in the engine: decoding, then the batcher's queue."""
        return self._decoding * self._decode_s / self._decode_threads + self.batcher.predicted_wait_s

    async def classify(self, images: Sequence[bytes], *, top_k: int, deadline: float) -> list[Fate]:
        """Encoded images -> the fate of each, in order, at the latest at `deadline`, a time of `time.monotonic`.

        Cancelling it takes its images out of the queues. Raises ValueError for a top_k out of 1..number of classes.
        """
        if not 1 <= top_k <= len(self.bundle.labels):
            raise ValueError(f"top_k must be in 1..{len(self.bundle.labels)}, not {top_k}")
        if self._closed:
            return [self._draining() for _ in images]
        request = _Request(top_k, deadline, len(images))
        tasks = [asyncio.create_task(self._classify_one(encoded, request)) for encoded in images]
        for task in tasks:
            self._images.add(task)
            task.add_done_callback(self._images.discard)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
        except asyncio.CancelledError:
            self._metrics.requests_cancelled.labels("decode" if request.undecoded else "queue").inc()
            raise
        finally:
            for task in tasks:
                task.cancel()
        return [self._fate(task) for task in tasks]

    def _fate(self, task: asyncio.Task[Fate]) -> Fate:
        if task.done() and not task.cancelled():
            return task.result()
        return self._draining() if self._closed else DeadlineExceeded("no answer before the deadline")

    def _draining(self) -> Draining:
        return Draining("the service is shutting down", self.predicted_wait_s)

    async def _classify_one(self, encoded: bytes, request: _Request) -> Fate:
        """Errors are returned, not raised: nobody awaits the task of a caller who left."""
        try:
            started = time.monotonic()
            decoded = await self._decode(encoded, request)
            decode_s = time.monotonic() - started
            inferred = await self.batcher.submit(decoded.tensor, request.deadline)
            return self._answer(decoded.image_format, decode_s, inferred, request.top_k)
        except (ImageError, ServiceError) as error:
            return error
        except Exception:
            log.exception("a bug, or no memory, while classifying an image")
            return ServiceError("internal error")

    async def _decode(self, encoded: bytes, request: _Request) -> _Decoded:
        """Raises Overloaded before, ImageError after the work. A future cancelled in the pool's queue is skipped."""
        waiting = self._decoding + self.batcher.queue_depth
        if waiting >= self._max_queue_images:
            request.undecoded -= 1
            raise Overloaded(f"{waiting} images are waiting already", self.predicted_wait_s)
        loop = asyncio.get_running_loop()
        self._decoding += 1
        try:
            decoded = await loop.run_in_executor(
                self._decoders, _to_tensor, encoded, self.bundle.manifest.preprocess, self._max_image_pixels
            )
        except ImageError as error:
            self._metrics.decode_failures.labels(error.code).inc()
            raise
        finally:
            self._decoding -= 1
            request.undecoded -= 1
        self._decode_s += NEWEST_WEIGHT * (decoded.seconds - self._decode_s) if self._decode_s else decoded.seconds
        return decoded

    def _answer(self, image_format: str, decode_s: float, inferred: Inferred, k: int) -> Classified:
        timings = Timings(decode_s, inferred.queue_s, inferred.infer_s, inferred.batch_size)
        predictions = top_k(inferred.logits, self.bundle.labels, k)
        self._metrics.images.labels(image_format).inc()
        self._metrics.count_prediction(predictions[0].label, predictions[0].score)
        for stage, seconds in (("decode", decode_s), ("queue", inferred.queue_s), ("infer", inferred.infer_s)):
            self._metrics.stage_duration.labels(stage).observe(seconds)
        return Classified(predictions, timings)

    async def close(self, grace_s: float) -> None:
        """Refuse new images, answer those accepted within `grace_s` seconds, tell the rest Draining; free the engine.

        An engine that is still at work then is not closed under it: it ends with the process.
        """
        self._closed = True
        give_up_at = time.monotonic() + grace_s
        if self._images:
            await asyncio.wait(self._images, timeout=grace_s)
        await self.batcher.close(max(0.0, give_up_at - time.monotonic()))
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if self.batcher.idle:
            await asyncio.to_thread(self.engine.close)
        else:
            log.error("the engine %s is still at work after the grace time of %g s", self.engine.name, grace_s)


def _to_tensor(encoded: bytes, spec: Preprocess, max_pixels: int) -> _Decoded:
    """In a thread of the pool. Raises ImageError."""
    started = time.monotonic()
    image = open_image(encoded, max_pixels)
    image_format = str(image.format).lower()
    tensor = to_tensor(read_pixels(image), spec)
    return _Decoded(tensor, image_format, time.monotonic() - started)


def warm_up_sizes(engine: str, max_batch_size: int) -> list[int]:
    """Batch sizes to run before anybody waits: the smallest and the largest, and where a new size costs those between,
    as far as start-up can bear it."""
    able = CAPABILITIES.get(engine)
    between = min(max_batch_size, MOST_WARM_UP_SIZES) if able and able.new_batch_sizes_cost else 1
    return sorted({*range(1, between + 1), max_batch_size})


def _warm_up(engine: Engine, images: int) -> float:
    """Seconds for a batch of `images`, the second time: the first one allocates. Blocks."""
    pixels = np.zeros((images, 3, engine.input_size, engine.input_size), np.float32)
    engine.infer(pixels)
    started = time.monotonic()
    engine.infer(pixels)
    return time.monotonic() - started


def _publish(bundle: Bundle, engine: Engine, metrics: Metrics) -> None:
    manifest = bundle.manifest
    digest = sha256(bundle.folder / MANIFEST)
    metrics.model_info.clear()  # of the one whose place it takes
    metrics.model_info.labels(manifest.name, manifest.version, engine.name, engine.precision, digest).set(1)
    metrics.expect_labels(bundle.labels)
