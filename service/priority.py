"""Who gets the CPU first: the event loop, which has little to do and keeps everybody waiting, or those that compute."""

from __future__ import annotations

import os
import threading

NICENESS = 5


def give_way() -> None:
    """From now on the calling thread, and the threads that it starts, come after those that have not done this.

    Otherwise, with all CPUs at work, a request that is refused waits as long for its refusal as others for an answer.
    On Linux each thread has a niceness of its own (setpriority(2), "C library/kernel differences").
    """
    mine = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + NICENESS)
