from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.errors import ImageError
from models.scores.topk import Prediction
from models.store import Bundle, open_bundle
from service.classify.classifier import Classifier
from service.classify.outcomes import Classified, Timings
from service.conditions import Condition
from service.feedback import keeper as module
from service.feedback.keeper import Keeper
from service.observe.feedback import KeptMetrics
from service.settings import Settings

JPEG = b"\xff\xd8" + b"x" * 3000
LARGE = 1 << 30


class Opened:
    """As much of a Classifier as a follower reads."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle


@pytest.fixture
def classifier(tiny_bundle: Path) -> Classifier:
    return cast(Classifier, Opened(open_bundle(tiny_bundle)))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def keep(tmp_path: Path, registry: CollectorRegistry) -> Iterator[Callable[..., Keeper]]:
    """`keep(condition, folder)` -> a Keeper that works."""
    started: list[Keeper] = []
    metrics = KeptMetrics(registry)

    def start(condition: str = "all", folder: Path = tmp_path / "kept", most: int = LARGE) -> Keeper:
        started.append(Keeper(folder, Condition.read(condition), most, metrics))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.close()


def answer(score: float = 0.4, confident: bool | None = False) -> Classified:
    best = Prediction("cat", 3, score)
    return Classified([best], Timings(0.0, 0.0, 0.0, 1), "miss", best, confident=confident)


def tasks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["data"] for line in (folder / "tasks.jsonl").read_text().splitlines()]


def dropped(registry: CollectorRegistry, reason: str) -> float | None:
    return registry.get_sample_value("repvgg_kept_dropped_total", {"reason": reason})


def test_nothing_is_kept_unless_a_folder_is_given(registry: CollectorRegistry) -> None:
    assert Keeper.of(Settings(), KeptMetrics(registry)) is None


def test_images_are_kept_by_their_answers(
    keep: Callable[..., Keeper], classifier: Classifier, registry: CollectorRegistry, tmp_path: Path
) -> None:
    keeper = keep("not confident or score < 0.2")
    outcomes = [answer(), answer(0.9, True), answer(0.1, True), ImageError("undecodable_image", "broken"), answer()]
    pixels = np.zeros((3, 32, 32), np.float32)
    keeper.follow("r", classifier, [JPEG, JPEG, JPEG, b"no image", pixels], outcomes)
    keeper.close()
    assert [task["index"] for task in tasks(tmp_path / "kept")] == [0, 2]
    assert tasks(tmp_path / "kept")[0]["labels"] == [{"label": "cat", "score": 0.4}]
    assert registry.get_sample_value("repvgg_kept_images_total") == 2
    assert (registry.get_sample_value("repvgg_kept_bytes") or 0) > 2 * len(JPEG)
    assert dropped(registry, "tensor") == 1


def test_deleted_images_are_counted(
    keep: Callable[..., Keeper], classifier: Classifier, registry: CollectorRegistry
) -> None:
    keeper = keep(most=60_000)
    keeper.follow("r", classifier, [JPEG] * 20 + [b"x" * 60_000], [answer()] * 21)
    keeper.close()
    assert registry.get_sample_value("repvgg_kept_images_total") == 20
    assert (registry.get_sample_value("repvgg_kept_deleted_total") or 0) > 5
    assert dropped(registry, "too_large") == 1


def test_a_folder_that_cannot_be_written_is_logged_once_and_counted_until_it_can(
    keep: Callable[..., Keeper],
    classifier: Classifier,
    registry: CollectorRegistry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    keeper = keep(folder=tmp_path / "file" / "kept")
    for _ in range(3):
        keeper.follow("r", classifier, [JPEG], [answer()])
    while dropped(registry, "failed") != 3:
        time.sleep(0.005)
    (tmp_path / "file").unlink()
    keeper.follow("r", classifier, [JPEG], [answer()])
    keeper.close()
    assert len(tasks(tmp_path / "file" / "kept")) == 1
    messages = [record.message for record in caplog.records]
    assert (
        len([message for message in messages if "cannot be kept in" in message and "Not a directory" in message]) == 1
    )
    assert any(message.endswith("again; 3 were lost") for message in messages)


def test_what_the_disk_is_too_slow_for_is_dropped_and_nobody_waits(
    keep: Callable[..., Keeper], classifier: Classifier, registry: CollectorRegistry, tmp_path: Path
) -> None:
    """A pipe in the place of the list: opening it blocks until somebody writes, as a disk that hangs does."""
    (tmp_path / "kept").mkdir()
    os.mkfifo(tmp_path / "kept" / "tasks.jsonl")
    keeper = keep()
    for _ in range(module.MOST_WAITING + 20):
        keeper.follow("r", classifier, [JPEG], [answer()])
    assert 0 < (dropped(registry, "busy") or 0) <= 20
    keeper.follow("r", classifier, [bytes(module.MOST_WAITING_BYTES + 1)], [answer()])
    assert 1 < (dropped(registry, "busy") or 0) <= 21
    writer = threading.Thread(target=lambda: (tmp_path / "kept" / "tasks.jsonl").open("wb").close())
    keeper.close()  # not for ever
    writer.start()
    writer.join()


def test_a_bundle_that_cannot_be_doubted_is_warned_of_once(
    keep: Callable[..., Keeper], classifier: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keep("not confident")
    for _ in range(2):
        keeper.follow("r", classifier, [JPEG], [answer(confident=None)])
    keep("score < 0.5").follow("r", classifier, [JPEG], [answer(confident=None)])
    (record,) = caplog.records
    assert "tiny 1 has no threshold" in record.message
