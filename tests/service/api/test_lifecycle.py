from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.errors import BundleError
from models.store import MANIFEST, sha256
from service.api.lifecycle import Lifecycle
from service.engines.runtimes.fake import FakeEngine
from service.errors import Draining, ModelRejected, NotReady, ReloadRunning
from service.machine.own_thread import is_at_work
from service.observe.metrics import Metrics
from service.settings import Settings

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Write = Callable[..., Path]


def lifecycle_of(model: Path, engine: FakeEngine) -> Lifecycle:
    return Lifecycle(Settings(model=str(model)), Metrics(CollectorRegistry()), engine)


def test_the_model_is_opened_in_the_background_and_closed_at_the_end(
    tiny_bundle: Path, fake_engine: FakeEngine, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        lifecycle = lifecycle_of(tiny_bundle, fake_engine)
        async with lifecycle.running():
            with pytest.raises(NotReady, match="being opened"):
                lifecycle.serving()
            await lifecycle.opened.wait()
            deadline = time.monotonic() + 60
            assert await lifecycle.serving().classify([jpeg_bytes], top_k=1, deadline=deadline)
            assert not fake_engine.closed
        assert fake_engine.closed

    asyncio.run(scenario())


def test_a_start_that_fails_is_kept_with_its_reason(tmp_path: Path, fake_engine: FakeEngine) -> None:
    async def scenario() -> None:
        lifecycle = lifecycle_of(tmp_path, fake_engine)
        async with lifecycle.running():
            await lifecycle.opened.wait()
            assert lifecycle.state_of_opening == "failed"
            assert isinstance(lifecycle.failure, BundleError)
            with pytest.raises(NotReady, match="could not be opened"):
                lifecycle.serving()

    asyncio.run(scenario())


def test_an_end_before_the_model_is_open_waits_for_nothing_and_closes_it_later(
    tiny_bundle: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    gate = threading.Event()
    engine = FakeEngine(10, 32, gate=gate)

    async def scenario() -> None:
        lifecycle = lifecycle_of(tiny_bundle, engine)
        async with lifecycle.running():
            await asyncio.sleep(0)
        assert lifecycle.classifier is None

    asyncio.run(scenario())
    assert is_at_work()
    assert not engine.closed
    gate.set()  # the thread that warms the engine up cannot be interrupted
    wait_until(lambda: engine.closed and not is_at_work())


def test_draining_is_announced_while_requests_are_answered(
    tiny_bundle: Path, fake_engine: FakeEngine, jpeg_bytes: bytes
) -> None:
    async def scenario() -> None:
        lifecycle = lifecycle_of(tiny_bundle, fake_engine)
        async with lifecycle.running():
            await lifecycle.opened.wait()
            lifecycle.drain()
            assert lifecycle.draining
            (fate,) = await lifecycle.serving().classify([jpeg_bytes], top_k=1, deadline=time.monotonic() + 60)
            assert len(fate.predictions) == 1

    asyncio.run(scenario())


@asynccontextmanager
async def serving(model: Path, engine: FakeEngine | None = None, **settings: Any) -> AsyncIterator[Lifecycle]:
    """A lifecycle whose model serves: that `engine` at first, else and after a reload ONNX Runtime."""
    metrics = Metrics(CollectorRegistry())
    lifecycle = Lifecycle(Settings(model=str(model), engine="onnxruntime", **settings), metrics, engine)
    async with lifecycle.running():
        await lifecycle.opened.wait()
        yield lifecycle


def version_of(lifecycle: Lifecycle) -> str:
    return lifecycle.serving().bundle.manifest.version


def test_the_newest_version_takes_the_place_of_the_serving_one(
    write_version: Write, fake_engine: FakeEngine, run: Run
) -> None:
    async def scenario() -> None:
        async with serving(write_version(9).parent, fake_engine) as lifecycle:
            write_version(10)
            await lifecycle.reload()
            assert version_of(lifecycle) == "10"
            await lifecycle.reload()  # and waits until the one before is closed
            assert fake_engine.closed

    run(scenario())


def test_another_version_can_be_named_and_come_back(write_version: Write, run: Run) -> None:
    async def scenario() -> None:
        write_version(1)
        async with serving(write_version(2)) as lifecycle:
            await lifecycle.reload({"model": lifecycle.version_beside("1")})
            assert version_of(lifecycle) == "1"
            await lifecycle.reload()
            assert version_of(lifecycle) == "2"

    run(scenario())


def damage(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(b"x")


@pytest.mark.parametrize(
    ("break_it", "wrong", "said"),
    [
        (damage, False, "tiny/2/tiny.onnx is corrupt: its sha256 is "),
        (shutil.rmtree, False, "no model bundle at tiny/2: "),
        (lambda folder: None, True, "off the golden logits of tiny/2"),
    ],
)
def test_if_it_is_no_good_the_old_one_serves_on(
    write_version: Write, jpeg_bytes: bytes, run: Run, break_it: Callable[[Path], None], wrong: bool, said: str
) -> None:
    async def scenario() -> None:
        first = write_version(1)
        break_it(write_version(2, wrong=wrong))
        async with serving(first) as lifecycle:
            with pytest.raises(ModelRejected) as error:
                await lifecycle.reload({"model": lifecycle.version_beside("2")})
            assert said in error.value.detail
            assert str(first.parent.parent) not in error.value.detail
            (fate,) = await lifecycle.serving().classify([jpeg_bytes], top_k=1, deadline=time.monotonic() + 60)
            assert fate.predictions
            assert version_of(lifecycle) == "1"
            await lifecycle.reload()  # nothing is left of the attempt

    run(scenario())


def test_a_request_ends_on_the_model_that_served_when_it_began(
    write_version: Write, fake_engine: FakeEngine, jpeg_bytes: bytes, run: Run
) -> None:
    async def scenario() -> None:
        async with serving(write_version(1), fake_engine) as lifecycle:
            may_go_on = asyncio.Event()

            async def request() -> Any:
                with lifecycle.request():
                    classifier = lifecycle.serving()
                    await may_go_on.wait()  # its body arrives
                    return await classifier.classify([jpeg_bytes], top_k=1, deadline=time.monotonic() + 60)

            asking = asyncio.create_task(request())
            await asyncio.sleep(0)
            write_version(2)
            await lifecycle.reload({"model": lifecycle.version_beside("2")})
            assert version_of(lifecycle) == "2"
            assert not fake_engine.closed
            may_go_on.set()
            (fate,) = await asking
            assert fate.predictions
            await lifecycle.reload()
            assert fake_engine.closed

    run(scenario())


def test_a_request_that_does_not_end_keeps_the_old_model_no_longer_than_its_deadline(
    write_version: Write, fake_engine: FakeEngine, run: Run
) -> None:
    async def scenario() -> None:
        async with serving(write_version(1), fake_engine, timeout_ms=50) as lifecycle:

            async def request() -> None:
                with lifecycle.request():
                    await asyncio.Event().wait()

            asking = asyncio.create_task(request())
            await asyncio.sleep(0)
            await lifecycle.reload()
            await lifecycle.reload()
            assert fake_engine.closed
            asking.cancel()

    run(scenario())


def test_one_reload_runs_at_a_time(tiny_bundle: Path, run: Run) -> None:
    async def scenario() -> None:
        async with serving(tiny_bundle) as lifecycle:
            first = asyncio.create_task(lifecycle.reload())
            await asyncio.sleep(0)
            with pytest.raises(ReloadRunning, match="another reload is running"):
                await lifecycle.reload()
            await first
            await lifecycle.reload()

    run(scenario())


def test_draining_opens_no_other_model(tiny_bundle: Path, run: Run) -> None:
    async def scenario() -> None:
        async with serving(tiny_bundle) as lifecycle:
            first = lifecycle.serving()
            opening = asyncio.create_task(lifecycle.reload())
            await asyncio.sleep(0)
            lifecycle.drain()
            for attempt in (opening, lifecycle.reload()):
                with pytest.raises(Draining, match="shutting down"):
                    await attempt
            assert lifecycle.serving() is first

    run(scenario())


def test_before_the_first_model_is_open_there_is_no_reload(tiny_bundle: Path, run: Run) -> None:
    async def scenario() -> None:
        lifecycle = lifecycle_of(tiny_bundle, FakeEngine(10, 32))
        async with lifecycle.running():
            with pytest.raises(NotReady, match="being opened"):
                await lifecycle.reload()

    run(scenario())


def value(metrics: Metrics, sample: str, labels: dict[str, str]) -> float | None:
    return metrics.registry.get_sample_value(sample, labels)


def test_the_metrics_are_those_of_the_model_that_serves(
    write_version: Write, jpeg_bytes: bytes, run: Run, wait_until: Callable[..., None]
) -> None:
    gate = threading.Event()
    gate.set()
    metrics = Metrics(CollectorRegistry())

    async def scenario() -> None:
        settings = Settings(model=str(write_version(1).parent), engine="onnxruntime")
        lifecycle = Lifecycle(settings, metrics, FakeEngine(10, 32, gate=gate))
        async with lifecycle.running():
            await lifecycle.opened.wait()
            gate.clear()
            deadline = time.monotonic() + 60
            asking = asyncio.create_task(lifecycle.serving().classify([jpeg_bytes], top_k=1, deadline=deadline))
            await asyncio.to_thread(wait_until, lambda: value(metrics, "repvgg_engine_slots", {"state": "busy"}))
            digest = sha256(write_version(2) / MANIFEST)
            await lifecycle.reload()
            assert value(metrics, "repvgg_engine_slots", {"state": "busy"}) == 0
            (served,) = [family for family in metrics.registry.collect() if family.name == "repvgg_model_info"]
            (sample,) = served.samples
            assert (sample.labels["version"], sample.labels["sha256"]) == ("2", digest)
            gate.set()
            await asking
            await lifecycle.serving().classify([jpeg_bytes], top_k=1, deadline=deadline)
            assert value(metrics, "repvgg_predictions_total", {"label": "other"}) == 0

    run(scenario())
