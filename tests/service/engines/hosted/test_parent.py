from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from models.errors import BundleError
from service.engines import restarting
from service.engines.backoff import Backoff
from service.engines.base import Engine
from service.engines.hosted import parent
from service.engines.hosted.parent import EngineProcess, open_hosted
from service.engines.hosted.protocol import Order
from service.engines.restarting import EngineEnded, RestartingEngine
from service.errors import ConfigError, EngineUnavailable, GoldenCheckFailed, NotReady

ROOT = Path(__file__).parents[4]
# An engine that does what the first value of its first image says.
ENGINE = """
import os, signal, sys, time
import numpy as np
from models.errors import BundleError
from service.errors import EngineUnavailable

class Engine:
    name, precision, device, input_size, num_classes = "test", "fp32", "none", 4, 2

    @classmethod
    def open(cls, bundle, precision, threads, fail=""):
        if fail:
            raise {"bundle": BundleError, "device": EngineUnavailable, "other": ZeroDivisionError}[fail]("as told")
        return cls()

    def infer(self, images):
        told = images.flat[0]
        if told == -1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if told == -2:
            raise ValueError("no such image")
        if told == -3:
            time.sleep(3600)
        if told == -4:
            os.write(2, b"x" * 5000 + b"\\n" + b"line\\n" * 1000)
        return images.reshape(len(images), -1)[:, : 3 if told == -5 else 2]

    def close(self):
        os.write(1, b"closed\\n")
"""
CRASH, RAISE, SLEEP, WRITE, MISSHAPE = -1, -2, -3, -4, -5
EAGER = Backoff(first_delay_s=0.01, longest_delay_s=0.01)
NEVER = Backoff(first_delay_s=3600.0, longest_delay_s=3600.0)
WAIT_S = 60.0


def images(count: int = 1, told: float = 1.0) -> np.ndarray:
    batch = np.random.default_rng(count).random((count, 3, 4, 4), np.float32)
    batch[0, 0, 0, 0] = told
    return batch


def accept(engine: Engine) -> None:
    """A golden check that every engine passes."""


Open = Callable[..., RestartingEngine]


@pytest.fixture
def start(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """`start(check, backoff, wait_s, **options)` -> the engine of ENGINE in a process of this interpreter."""
    (tmp_path / "engine_of_the_tests.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ExitStack() as stack:

        def run(
            check: Callable[[Engine], None] = accept, backoff: Backoff = EAGER, wait_s: float = WAIT_S, **options: str
        ) -> RestartingEngine:
            order = Order("engine_of_the_tests:Engine", str(tiny_bundle), "fp32", 1, options)
            engine = open_hosted(sys.executable, order, check, backoff, wait_s)
            stack.callback(engine.close)
            return engine

        yield run


def process_of(engine: RestartingEngine) -> EngineProcess:
    """The one that is answering now."""
    engine.infer(images())
    assert isinstance(engine._engine, EngineProcess)
    return engine._engine


def pid_of(engine: RestartingEngine) -> int:
    return process_of(engine).pid


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at, "timed out"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_answers_batches_of_any_size(start: Open) -> None:
    engine = start()
    assert (engine.name, engine.precision, engine.input_size, engine.num_classes) == ("test", "fp32", 4, 2)
    for count in (1, 5, 2, 33):
        batch = images(count)
        np.testing.assert_array_equal(engine.infer(batch), batch.reshape(count, -1)[:, :2])
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\)"):
        engine.infer(np.zeros((1, 3, 4, 5), np.float32))


def test_the_next_batch_does_not_change_the_answers_of_the_last_one(start: Open) -> None:
    engine = start()
    first = engine.infer(images(2))
    before = first.copy()
    engine.infer(images(3))
    np.testing.assert_array_equal(first, before)


def test_many_threads_each_get_their_own_answer(start: Open) -> None:
    engine = start()
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for _ in range(20):
            batch = images(seed)
            if not np.array_equal(engine.infer(batch), batch.reshape(seed, -1)[:, :2]):
                wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_process_that_dies_fails_the_batch_that_was_in_it_and_no_other(start: Open) -> None:
    engine = start()
    first = pid_of(engine)
    with pytest.raises(EngineEnded, match="SIGSEGV"):
        engine.infer(images(3, CRASH))
    np.testing.assert_array_equal(engine.infer(images(2)), images(2).reshape(2, -1)[:, :2])
    assert pid_of(engine) != first
    assert not is_alive(first)


def test_a_late_notice_of_the_end_does_not_touch_the_next_process(start: Open) -> None:
    engine = start()
    first = process_of(engine)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: engine.unavailable_s > 0)
    engine.infer(images())
    with pytest.raises(EngineEnded, match="SIGKILL"):
        first.infer(images())
    engine._lose(first)
    assert engine.unavailable_s == 0


def test_an_engine_that_raises_stays_alive(start: Open) -> None:
    engine = start()
    pid = pid_of(engine)
    with pytest.raises(RuntimeError, match="ValueError: no such image"):
        engine.infer(images(1, RAISE))
    with pytest.raises(RuntimeError, match=r"answered 1 images with shape \(1, 3\)"):
        engine.infer(images(1, MISSHAPE))
    assert pid_of(engine) == pid


def test_after_a_restart_it_is_used_only_once_it_has_passed_the_golden_check(start: Open) -> None:
    checked = []

    def check(engine: Engine) -> None:
        checked.append(engine.infer(images(3)))
        if len(checked) < 3:
            raise GoldenCheckFailed("not the network that was trained")

    engine = start(check)
    assert checked == []  # the caller of `open` checks the first one
    os.kill(pid_of(engine), signal.SIGKILL)
    wait_until(lambda: engine.unavailable_s > 0)
    engine.infer(images())
    assert len(checked) == 3


def test_a_caller_that_waits_too_long_is_told_when_to_retry(start: Open) -> None:
    engine = start(backoff=NEVER, wait_s=0.0)
    with pytest.raises(EngineEnded):
        engine.infer(images(1, CRASH))
    wait_until(lambda: engine._expected_back - time.monotonic() > 1000)
    with pytest.raises(NotReady, match="being restarted") as told:
        engine.infer(images())
    assert 1000 < told.value.retry_after_s < 4000


def test_unavailable_s_is_right_even_if_the_engine_dies_while_it_is_idle(start: Open) -> None:
    engine = start(backoff=NEVER)
    assert engine.unavailable_s == 0
    os.kill(pid_of(engine), signal.SIGKILL)
    wait_until(lambda: engine.unavailable_s > 0)


def test_its_output_goes_to_our_log_line_by_line_and_cannot_flood_it(
    start: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = start()
    engine.infer(images(1, WRITE))
    engine.close()
    words = [record.getMessage() for record in caplog.records if record.name == parent.__name__]
    written = [text.removeprefix("engine process: ") for text in words if text.startswith("engine process: ")]
    assert [len(text) for text in written[:3]] == [parent.LINE_BYTES, parent.LINE_BYTES, 1000]
    assert set(written[3:]) == {"line"}
    assert len(written) == parent.LINES_PER_MINUTE
    assert sum("the rest is lost" in text for text in words) == 1


def test_signals_to_the_whole_process_group_do_not_end_it(start: Open) -> None:
    engine = start()
    pid = pid_of(engine)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert pid_of(engine) == pid


def test_closing_ends_the_engine_gracefully(start: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = start()
    pid = pid_of(engine)
    engine.close()
    assert not is_alive(pid)
    assert "engine process: closed" in caplog.messages
    assert "the engine's process ended (exit code 0)" in caplog.messages
    with pytest.raises(NotReady):
        engine.infer(images())


def test_closing_kills_a_process_that_does_not_react(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "CLOSE_S", 0.1)
    monkeypatch.setattr(restarting, "CLOSE_S", 0.1)
    engine = start()
    process = process_of(engine)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            engine.infer(images(1, SLEEP))
        except EngineEnded as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(process._lock.locked)
    engine.close()
    asking.join(60)
    assert len(errors) == 1
    assert not is_alive(process.pid)


def test_closing_ends_the_wait_before_a_restart(start: Open) -> None:
    engine = start(backoff=NEVER)
    with pytest.raises(EngineEnded):
        engine.infer(images(1, CRASH))
    engine.close()


def test_no_file_or_thread_of_it_is_left_behind(start: Open) -> None:
    def open_files() -> Counter[str]:
        found = Counter[str]()
        for link in list(Path("/proc/self/fd").iterdir()):
            with suppress(FileNotFoundError):  # the one that listed them
                found[str(link.readlink())] += 1
        return found

    before = open_files()
    for _ in range(2):
        engine = start()
        with pytest.raises(EngineEnded):
            engine.infer(images(1, CRASH))
        engine.infer(images())
        engine.close()
    assert not open_files() - before  # files of an earlier test may be closed meanwhile
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("engine-")]


PARENT = """
import sys, threading
import numpy as np
from service.engines.hosted.parent import open_hosted
from service.engines.hosted.protocol import Order
order = Order("engine_of_the_tests:Engine", sys.argv[1], "fp32", 1, {})
engine = open_hosted(sys.executable, order, lambda engine: None)
print(engine._engine.pid, flush=True)
engine.infer(np.full((1, 3, 4, 4), float(sys.argv[2]), np.float32))
threading.Event().wait()
"""


@pytest.mark.parametrize("told", [1, SLEEP], ids=["idle", "busy"])
def test_it_never_outlives_us(start: Open, tiny_bundle: Path, told: int) -> None:
    command = [sys.executable, "-c", PARENT, str(tiny_bundle), str(told)]
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    ("fail", "error", "said"),
    [
        ("bundle", BundleError, "^as told$"),
        ("device", EngineUnavailable, "^as told$"),
        ("other", RuntimeError, "^ZeroDivisionError: as told$"),
    ],
)
def test_an_engine_that_cannot_be_opened_says_why(start: Open, fail: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        start(fail=fail)


@pytest.mark.parametrize(
    ("engine", "python", "error", "said"),
    [
        (
            "service.engines.runtimes.fake:FakeEngine",
            "/no/python",
            ConfigError,
            "/no/python cannot be run: No such file",
        ),
        (
            "service.engines.runtimes.fake:FakeEngine",
            "/bin/true",
            EngineUnavailable,
            "before the engine was open; it said not",
        ),
        ("service.engines.no_such:Engine", sys.executable, EngineUnavailable, r"No module named .*; install it there"),
    ],
)
def test_an_unsuitable_interpreter_is_named(
    tiny_bundle: Path, engine: str, python: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        open_hosted(python, Order(engine, str(tiny_bundle), "fp32", 1, {}), accept)


def test_the_error_has_the_last_words_of_a_process_that_dies_while_it_opens(tiny_bundle: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho this is no Python >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(EngineUnavailable, match=r"exit code 3\) before .*; its last words: this is no Python"):
        open_hosted(str(python), Order("x:y", str(tiny_bundle), "fp32", 1, {}), accept)
