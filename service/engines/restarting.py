"""An engine that is restarted after it fails: the service keeps running, whatever the native runtime does.

1. an engine that dies fails the batch that was in it, and no other;
2. it is started again in the background, with a longer delay each time it dies soon or cannot be opened;
3. after a restart it is used only once it has passed the golden check;
4. a caller that arrives in the meantime waits at most `wait_s`, then NotReady says when to retry;
5. `unavailable_s` is right even if the engine dies while it is idle;
6. an engine is never closed under a running call.

A `Life` is one engine from its opening to its end. A process of its own (`hosted.parent.EngineProcess`) may die at any
time; an engine in this process (`InThisProcess`) ends only when it is told to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from models.manifest import Precision
from service.engines.backoff import Backoff, Restarts
from service.engines.base import Engine, ExplainingEngine, explaining
from service.errors import NotReady

# Time for an engine to end in order, before it is ended by force.
CLOSE_S = 5.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class EngineEnded(Exception):
    """The engine ended with a batch in it."""


class Life(Protocol):
    """One engine from its opening to its end.

    Created, opened, waited for and freed by one thread, which lives longer than it; `end` may come from any thread.
    """

    def open(self) -> Engine:
        """Blocks; may raise anything. The engine's `infer` raises EngineEnded if it ends under the batch."""

    def wait(self) -> str:
        """Until the engine has ended -> how, as a line for the log; "" if there is nothing to say."""

    def end(self, grace_s: float) -> None:
        """End it, also while it opens; by force after `grace_s` seconds. Blocks no longer than that."""

    def free(self) -> None:
        """Called once it has ended, or was told to, and no call is running any more."""


class InThisProcess:
    """The life of an engine in this process. `opener` gives the engine and may raise anything."""

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self._opener = opener
        self._engine: Engine | None = None
        self._told_to_end = threading.Event()

    def open(self) -> Engine:
        self._engine = self._opener()
        return self._engine

    def wait(self) -> str:
        self._told_to_end.wait()
        return ""

    def end(self, grace_s: float) -> None:
        self._told_to_end.set()

    def free(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def restart_in_this_process(
    engine: Engine, reopen: Callable[[], Engine], check: Callable[[Engine], object], backoff: Backoff | None = None
) -> RestartingEngine:
    """Of `engine`, which is open and checked already; `reopen` gives another one like it. Callers never wait."""
    opened = [engine]
    return RestartingEngine.open(
        lambda: InThisProcess(lambda: opened.pop() if opened else reopen()), check, backoff or Backoff(), wait_s=0.0
    )


class RestartingEngine:
    """Keeps one engine alive. `open` makes one.

    `name`, `precision`, `device`, `input_size`, `num_classes` and `gives_features` are those of the engine that lives
    now.
    """

    name: str
    precision: Precision
    device: str
    input_size: int
    num_classes: int
    gives_features: bool

    def __init__(
        self, begin: Callable[[], Life], check: Callable[[Engine], object], backoff: Backoff, wait_s: float
    ) -> None:
        self._begin = begin
        self._check = check
        self._restarts = Restarts(backoff)
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._life: Life | None = None
        self._engine: Engine | None = None  # None: unavailable
        self._calls = 0
        self._was_available = False
        self._closed = False
        self._failure: Exception | None = None
        self._unavailable_since = self._expected_back = time.monotonic()
        self._opening_s = 0.0
        self.on_restart: Callable[[], object] = lambda: None
        self._supervisor = threading.Thread(target=self._supervise, name="engine-supervisor", daemon=True)

    @classmethod
    def open(
        cls, begin: Callable[[], Life], check: Callable[[Engine], object], backoff: Backoff, wait_s: float
    ) -> RestartingEngine:
        """`begin` creates a life; `check` raises if an engine that was started again is not right.

        Raises what the first life raises when it is created or opened.
        """
        engine = cls(begin, check, backoff, wait_s)
        engine._supervisor.start()
        with engine._changed:
            engine._changed.wait_for(lambda: engine._was_available or engine._failure)
        if engine._failure:
            engine._supervisor.join()
            raise engine._failure
        return engine

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K). Raises EngineEnded, NotReady, and what the engine raises."""
        return self._call(lambda engine: engine.infer(images))

    def infer_with_features(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `infer`, with feature maps float32 (N, C, h, w)."""
        return self._call(lambda engine: cast(ExplainingEngine, engine).infer_with_features(images))

    def _call(self, compute: Callable[[Engine], T]) -> T:
        engine = self._begin_call()
        try:
            return compute(engine)
        except EngineEnded:
            self._lose(engine)
            raise
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    @property
    def unavailable_s(self) -> float:
        """How long the engine has been unavailable, seconds; 0 while it is available."""
        with self._changed:
            return 0.0 if self._engine else time.monotonic() - self._unavailable_since

    def restart(self) -> None:
        """Begin to start it again; does not wait. Does nothing while a restart is under way."""
        with self._changed:
            life, engine = self._life, self._engine
        if life is not None and engine is not None:
            self._lose(engine)
            life.end(grace_s=0.0)

    def close(self) -> None:
        """End it, by force if need be: at once if it is being opened."""
        with self._changed:
            self._closed = True
            life, grace_s = self._life, CLOSE_S if self._engine else 0.0
            self._changed.notify_all()
        if life is not None:
            life.end(grace_s)
        self._supervisor.join()

    def _begin_call(self) -> Engine:
        """Waits for the engine, at most until it has been unavailable for `wait_s`. Raises NotReady."""
        with self._changed:
            remaining_s = self._unavailable_since + self._wait_s - time.monotonic()
            self._changed.wait_for(lambda: self._engine or self._closed, max(0.0, remaining_s))
            if self._engine is None:
                back_in_s = max(0.0, self._expected_back - time.monotonic())
                raise NotReady("the engine failed and is being restarted", back_in_s)
            self._calls += 1
            return self._engine

    def _lose(self, engine: Engine) -> None:
        """Whoever notices first that `engine` is gone calls this; a late call does not touch the next engine."""
        with self._changed:
            if self._engine is engine:
                self._engine = None
                self._unavailable_since = time.monotonic()

    def _supervise(self) -> None:
        """The supervisor thread. It creates every life, because a process ends with the thread that created it."""
        while not self._closed:
            started = time.monotonic()
            self._live()
            if self._failure is not None:
                return
            self._pause(self._restarts.delay_after(time.monotonic() - started))
            if not self._closed:
                self.on_restart()

    def _pause(self, delay_s: float) -> None:
        with self._changed:
            self._expected_back = time.monotonic() + delay_s + self._opening_s
            self._changed.wait_for(lambda: self._closed, delay_s)

    def _live(self) -> None:
        """One life, from its beginning to its end."""
        life: Life | None = None
        try:
            life = self._begin()
            with self._changed:
                self._life = life
            if not self._closed:  # else `close` may have come too early to end it
                self._bring_in(life)
                if how := life.wait():
                    log.log(logging.INFO if self._closed else logging.ERROR, "%s", how)
        except Exception as error:  # noqa: BLE001  # a runtime may raise anything
            self._report(error)
        if life is not None:
            self._end(life)

    def _bring_in(self, life: Life) -> None:
        started = time.monotonic()
        engine = life.open()
        if self._was_available:
            self._check(engine)
            log.info("the engine is available again after %.1f s", self.unavailable_s)
        with self._changed:
            self.name, self.precision, self.device = engine.name, engine.precision, engine.device
            self.input_size, self.num_classes = engine.input_size, engine.num_classes
            self.gives_features = explaining(engine) is not None
            self._opening_s = time.monotonic() - started
            self._engine, self._was_available = engine, True
            self._changed.notify_all()

    def _end(self, life: Life) -> None:
        """Also of a life that could not be opened, or whose engine failed its check."""
        with self._changed:
            engine = self._engine
        if engine is not None:
            self._lose(engine)
        try:
            life.end(CLOSE_S)
            with self._changed:
                self._changed.wait_for(lambda: not self._calls)
            life.free()
        except Exception:  # a runtime may raise anything
            log.exception("the engine could not be closed")

    def _report(self, error: Exception) -> None:
        """`open` raises the first life's error; a later one is logged, and another restart is tried."""
        if self._was_available:
            log.error("the engine could not be restarted: %s", error)
            return
        with self._changed:
            self._failure = error
            self._changed.notify_all()
