"""Who gets the CPU first: the event loop, which has little to do and keeps everybody waiting, or those that compute.

1. a thread that computes comes after the event loop's, with the system and with the interpreter;
2. what lasts is left out of garbage collections, which everybody waits for.
"""

from __future__ import annotations

import gc
import os
import sys
import threading

NICENESS = 5
# How long a thread may keep the interpreter from another one that wants it. Python's own 5 ms are as long as an image's
# decoding.
SWITCH_INTERVAL_S = 0.0005


def give_way() -> None:
    """From now on the calling thread, and the threads that it starts, come after those that have not done this.

    Otherwise, with all CPUs at work, a request that is refused waits as long for its refusal as others for an answer.
    On Linux each thread has a niceness of its own (setpriority(2), "C library/kernel differences").
    """
    mine = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + NICENESS)


def hand_over_soon() -> None:
    """From now on the interpreter changes between threads that want it as often as SWITCH_INTERVAL_S says."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def leave_out_of_collections() -> None:
    """What exists now: a full collection among all that was imported stops the event loop for 60 to 80 ms.

    Called again, it first gives back what has become garbage since, which takes that long once.
    """
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
    gc.freeze()
