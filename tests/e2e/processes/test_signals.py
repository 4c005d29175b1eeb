"""SIGTERM is obeyed at every moment: while the program starts, while a model opens, and in every process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import service

if TYPE_CHECKING:
    from conftest import Server

ROOT = Path(service.__file__).parents[1]
# The promise is a second. A busy machine gets more; what is not obeyed takes an hour here.
SOON_S = 10.0
LIMIT_S = 120.0

# Uninterruptible: the main thread waits in C for a mutex that it holds itself.
STUCK = """
import ctypes, pathlib
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
pathlib.Path(r"{reached}").touch()
libc.pthread_mutex_lock(mutex)
"""
SLOW = """
import pathlib, time
pathlib.Path(r"{reached}").touch()
time.sleep(3600)
"""


class Trap:
    """A module that is never imported to its end, in the place of another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reached = folder / "reached"

    def at(self, module: str, how: str = SLOW) -> dict[str, str]:
        """The environment for it."""
        self._folder.mkdir(exist_ok=True)
        (self._folder / f"{module}.py").write_text(how.format(reached=self._reached))
        return {"PYTHONPATH": f"{self._folder}{os.pathsep}{ROOT}"}

    def has_caught(self) -> bool:
        return self._reached.exists()


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


def ends_soon(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(SOON_S)


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def descendants(pid: int) -> list[int]:
    return [each for child in children(pid) for each in (child, *descendants(child))]


def runs(pid: int) -> bool:
    """A zombie, whose new parent has not looked yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", [SLOW, STUCK], ids=["slow", "stuck"])
@pytest.mark.parametrize("module", ["pydantic", "uvicorn"])
def test_while_it_imports(
    start: Callable[..., Server],
    trap: Trap,
    wait_until: Callable[..., None],
    module: str,
    how: str,
    number: signal.Signals,
) -> None:
    server = start(environ=trap.at(module, how))
    wait_until(trap.has_caught)
    server.signal(signal.SIGHUP)
    assert ends_soon(server.process, number) == 0
    assert server.wait() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_while_the_model_opens(
    start: Callable[..., Server], trap: Trap, wait_until: Callable[..., None], workers: int, number: signal.Signals
) -> None:
    server = start("--workers", workers, environ=trap.at("onnxruntime"))
    wait_until(trap.has_caught)
    pids = descendants(server.process.pid)
    assert ends_soon(server.process, number) == 0
    assert server.wait() == (0, "")
    wait_until(lambda: not any(map(runs, pids)))


def test_while_a_worker_imports(start: Callable[..., Server], trap: Trap, wait_until: Callable[..., None]) -> None:
    server = start("--workers", 2, environ=trap.at("uvicorn", STUCK))
    wait_until(trap.has_caught)
    assert ends_soon(server.process) == 0
    assert server.wait() == (0, "")


def test_while_the_engine_s_own_process_opens_it(
    start: Callable[..., Server], trap: Trap, wait_until: Callable[..., None]
) -> None:
    server = start("--engine-python", sys.executable, environ=trap.at("onnxruntime"))
    wait_until(trap.has_caught)
    (engine,) = descendants(server.process.pid)
    for number in (signal.SIGTERM, signal.SIGINT):  # as for a whole group: when it ends is up to its parent
        os.kill(engine, number)
    assert httpx.get(f"{server.wait_for_line('listening')['url']}/livez", timeout=LIMIT_S).status_code == 200
    assert runs(engine)
    assert ends_soon(server.process) == 0
    wait_until(lambda: not runs(engine))


def test_while_a_reload_opens_another_model(
    start: Callable[..., Server], write_version: Callable[..., Path], trap: Trap, wait_until: Callable[..., None]
) -> None:
    store = write_version(1).parent
    server = start("--model", store, "--engine", "auto", "--drain-seconds", 0, environ=trap.at("openvino"))
    wait_until(trap.has_caught)
    assert ends_soon(server.process) == 0


@contextmanager
def first_process(*command: str, environ: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """In a namespace of its own, where it is process 1, as in a container; and its id out here."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REPVGG_")}
    unshare = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *command],
        cwd=ROOT,
        env=inherited | environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        give_up_at = time.monotonic() + LIMIT_S
        while not (found := children(unshare.pid)):
            if unshare.poll() is not None:
                assert unshare.stderr is not None
                pytest.skip(f"no namespaces here: {unshare.stderr.read()}")
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        yield unshare, found[0]
    finally:
        unshare.kill()
        unshare.communicate()


@pytest.mark.parametrize("module", ["pydantic", "uvicorn", "onnxruntime"])
@pytest.mark.parametrize(
    "command", [(sys.executable, "-m", "service"), (str(Path(sys.executable).with_name("repvgg")),)]
)
def test_as_the_first_process_of_a_container(
    tiny_bundle: Path, trap: Trap, wait_until: Callable[..., None], module: str, command: tuple[str, ...]
) -> None:
    arguments = ("serve", "--engine", "onnxruntime", "--model", str(tiny_bundle), "--port", "0")
    with first_process(*command, *arguments, environ=trap.at(module)) as (unshare, pid):
        wait_until(trap.has_caught)
        time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        assert unshare.wait(SOON_S) == 0


def test_other_verbs_end_as_if_by_the_signal(
    trap: Trap, tiny_bundle: Path, jpeg_bytes: bytes, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes)
    arguments = ("classify", str(tmp_path / "photo.jpg"), "--engine", "onnxruntime", "--model", str(tiny_bundle))
    with first_process(sys.executable, "-m", "service", *arguments, environ=trap.at("onnxruntime")) as (unshare, pid):
        wait_until(trap.has_caught)
        os.kill(pid, signal.SIGTERM)
        assert unshare.wait(SOON_S) == 143
