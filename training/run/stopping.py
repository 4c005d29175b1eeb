"""SIGINT and SIGTERM as a wish to stop, granted between two steps.

1. the step under way is finished and saved before the run ends;
2. a second signal ends it at once;
3. the exit status is 128 + the signal's number, as shells have it.
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
    """Notes the first of the two signals while its context is open; `requested` is its number.

    A signal that the process was started to ignore, as SIGINT is in a shell script's background job, stays ignored.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._let_through()

    def _let_through(self) -> None:
        while self._former:
            signal.signal(*self._former.popitem())

    def _note(self, number: int, _: FrameType | None) -> None:
        self.requested = number
        self._let_through()
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: finishing this step; a second signal stops at once\n".encode())  # print may be busy

    def check(self, where: str) -> None:
        """Raises Stopped if a stop is requested. `where` tells how far the run is and how to go on."""
        if self.requested is not None:
            raise Stopped(self.requested, f"stopped by {signal.Signals(self.requested).name} {where}")

    def watch(self, items: Iterable[T], where: str) -> Iterator[T]:
        """The items, until a stop is requested: then as `check`."""
        for item in items:
            self.check(where)
            yield item
