"""Work that blocks and cannot be interrupted, such as opening a model, in a thread that nobody has to wait for.

1. whoever waits for it can leave at any time; what it then returns is disposed of in its thread;
2. the end of an event loop does not wait for it, but that of the interpreter might: see `is_at_work`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_at_work: set[threading.Thread] = set()


def is_at_work() -> bool:
    """Then a process that wants to end must not do so in the ordinary way: native code does not survive the teardown
    of the interpreter, and threads that it has started are waited for."""
    return bool(_at_work)


async def in_own_thread(work: Callable[[], T], dispose: Callable[[T], object] = lambda _: None) -> T:
    """What `work` returns, or raises. If the caller is cancelled first, `dispose` gets the result once it is there."""
    future: Future[T] = Future()
    _start(lambda: _settle(future, work, dispose))
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and not future.exception():  # at the same moment
            _start(lambda: dispose(future.result()))
        raise


def _settle(future: Future[T], work: Callable[[], T], dispose: Callable[[T], object]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # whatever it is, the caller gets it
        _set(partial(future.set_exception, error))
        return
    if not _set(partial(future.set_result, result)):
        dispose(result)


def _set(settle: Callable[[], None]) -> bool:
    """False if the caller has left."""
    try:
        settle()
    except InvalidStateError:
        return False
    return True


def _start(work: Callable[[], object]) -> None:
    def run() -> None:
        try:
            work()
        finally:
            _at_work.discard(threading.current_thread())

    thread = threading.Thread(target=run, name="own-thread", daemon=True)
    _at_work.add(thread)
    thread.start()
