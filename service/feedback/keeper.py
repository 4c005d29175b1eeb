"""Keeps images for labelling, with their answers, in a thread that no request waits for.

1. clients never notice: no disk is touched in the event loop, and no failure is an error of the request;
2. a bounded number of images and bytes wait for the disk; what does not fit is dropped and counted;
3. a full disk or a folder that cannot be written is counted and logged, at most once in LOG_EVERY_S, until it works
   again;
4. images that wait at shutdown are written within CLOSE_S.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from models.store import Bundle
from service.classify.classifier import Classifier
from service.classify.outcomes import Classified, Image, Outcome
from service.conditions import Condition
from service.feedback.folder import Kept, KeptFolder, TooLarge
from service.observe.feedback import KeptMetrics
from service.settings import MEBIBYTE, Settings

MOST_WAITING, MOST_WAITING_BYTES = 256, 64 * MEBIBYTE
LOG_EVERY_S = 60.0
CLOSE_S = 2.0

log = logging.getLogger(__name__)


class Keeper:
    """Images that meet `condition` go to `folder`. Works between `start` and `close`."""

    def __init__(self, folder: Path, condition: Condition, most_bytes: int, metrics: KeptMetrics) -> None:
        self._name = folder
        self._folder = KeptFolder(folder, most_bytes)
        self._condition = condition
        self._metrics = metrics
        self._queue: queue.Queue[Kept | None] = queue.Queue(MOST_WAITING)
        self._bytes = 0
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None
        self._failures = 0
        self._logged_at = -LOG_EVERY_S
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)

    @classmethod
    def of(cls, settings: Settings, metrics: KeptMetrics) -> Keeper | None:
        """None if nothing is to be kept."""
        if not settings.keep:
            return None
        return cls(Path(settings.keep).absolute(), Condition.read(settings.keep_if), settings.keep_bytes, metrics)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Blocks for up to CLOSE_S."""
        try:
            self._queue.put(None, timeout=CLOSE_S / 2)
        except queue.Full:
            log.warning("%s is too slow: the images waiting for it are lost", self._name)
        self._thread.join(CLOSE_S / 2)

    def follow(
        self, request_id: str, classifier: Classifier, images: Sequence[Image], outcomes: Sequence[Outcome]
    ) -> None:
        """A `Follower` of the API."""
        self._check_threshold(classifier.bundle)
        for index, (image, outcome) in enumerate(zip(images, outcomes, strict=False)):
            if isinstance(outcome, Classified) and self._condition.holds(outcome.best.score, outcome.confident):
                if isinstance(image, bytes):
                    self._put(_kept(image, request_id, index, classifier.bundle, outcome))
                else:
                    self._metrics.dropped.labels("tensor").inc()

    def _check_threshold(self, bundle: Bundle) -> None:
        if bundle is self._bundle:
            return
        self._bundle = bundle
        if self._condition.needs_threshold and bundle.manifest.confidence is None:
            log.warning(
                "keep_if=%s: %s %s has no threshold, so its answers are neither confident nor not; "
                "`repvgg evaluate --fit-confidence` writes a version that has one",
                self._condition.text,
                bundle.manifest.name,
                bundle.manifest.version,
            )

    def _put(self, kept: Kept) -> None:
        with self._lock:
            if self._bytes + len(kept.image) <= MOST_WAITING_BYTES:
                with suppress(queue.Full):
                    self._queue.put_nowait(kept)
                    self._bytes += len(kept.image)
                    return
        self._metrics.dropped.labels("busy").inc()

    def _work(self) -> None:
        try:
            self._metrics.bytes.set(self._folder.open())
        except OSError as error:
            self._report(error)
        while (kept := self._queue.get()) is not None:
            self._keep(kept)
            with self._lock:
                self._bytes -= len(kept.image)

    def _keep(self, kept: Kept) -> None:
        try:
            total, deleted = self._folder.add(kept)
        except TooLarge:
            self._metrics.dropped.labels("too_large").inc()
        except OSError as error:
            self._failures += 1
            self._metrics.dropped.labels("failed").inc()
            self._report(error)
        except Exception:
            self._metrics.dropped.labels("failed").inc()
            log.exception("a bug: an image of request %s was not kept", kept.request_id)
        else:
            self._metrics.images.inc()
            self._metrics.deleted.inc(deleted)
            self._metrics.bytes.set(total)
            self._note_success()

    def _report(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.error("images cannot be kept in %s: %s; %d lost so far", self._name, error, self._failures)

    def _note_success(self) -> None:
        if self._failures:
            log.info("images can be kept in %s again; %d were lost", self._name, self._failures)
            self._failures, self._logged_at = 0, -LOG_EVERY_S


def _kept(image: bytes, request_id: str, index: int, bundle: Bundle, outcome: Classified) -> Kept:
    labels = [{"label": one.label, "score": round(one.score, 6)} for one in outcome.predictions]
    answer = {
        "labels": labels,
        "confident": outcome.confident,
        "set": None if outcome.label_set is None else outcome.label_set.labels,
    }
    return Kept(
        image,
        request_id,
        index,
        f"{bundle.manifest.name} {bundle.manifest.version}",
        outcome.best.label,
        outcome.best.score,
        {name: value for name, value in answer.items() if value is not None},
    )
