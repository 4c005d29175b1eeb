"""SIGTERM and Ctrl-C before and after the event loop, which handles signals while it runs.

1. they end the process immediately, whatever its main thread is doing: importing, resolving a name, waiting for a
   thread;
2. so does SIGTERM in the first process of a container, where the system has no default for it;
3. SIGHUP, which asks for a reload, ends nothing.

`service.__main__` imports this before anything else, so it keeps to the standard library.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)


def obey_signals(exit_code: int) -> None:
    """Until the process sets other handlers; in the main thread only. With an `exit_code` other than 0 for SIGTERM,
    SIGINT stays Python's KeyboardInterrupt."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's own handlers run in the main thread, between two instructions; what the C handler writes here is read in
    # any case.
    threading.Thread(target=_wait, args=(reading, exit_code), name="early-end", daemon=True).start()
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(exit_code)

    signal.signal(signal.SIGTERM, end)
    if exit_code == 0:
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def _wait(reading: int, exit_code: int) -> None:
    while numbers := os.read(reading, 64):
        if any(number in numbers and _is_ours(number) for number in ENDING):
            os._exit(exit_code)


def _is_ours(number: signal.Signals) -> bool:
    """Not if another handler has been set since."""
    return getattr(signal.getsignal(number), "__module__", "") == __name__
