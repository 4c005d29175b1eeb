"""SIGINT and SIGTERM as requests to stop, honoured between two steps.

1. the current step is finished and saved before the run ends;
2. a second signal ends the run immediately;
3. the exit status is 128 plus the signal's number, as in a shell.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

from training.errors import Stopped

T = TypeVar("T")


class StopRequest:
    """Records the first of the two signals while its context is open; `requested` is the signal's number.

    A signal that was ignored when the process started stays ignored, as SIGINT is for a shell script's background job.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._previous_handlers[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._previous_handlers:
            signal.signal(*self._previous_handlers.popitem())

    def _record(self, number: int, _: FrameType | None) -> None:
        self.requested = number
        self._restore_handlers()
        name = signal.Signals(number).name
        message = f"\n{name}: finishing the current step; a second signal stops immediately\n"
        os.write(2, message.encode())  # print is not reentrant, and the signal may have interrupted one

    def check(self, where: str) -> None:
        """Raises Stopped if a stop was requested. `where` says how far the run is and how to resume it."""
        if self.requested is not None:
            raise Stopped(self.requested, f"stopped by {signal.Signals(self.requested).name} {where}")

    def watch(self, items: Iterable[T], where: str) -> Iterator[T]:
        """Yield the items until a stop is requested; then raise as `check` does."""
        for item in items:
            self.check(where)
            yield item
