"""The event loop comes first: it has little to do, and every request waits for it.

1. threads that compute have a lower priority than the event loop's, in the system and in the interpreter;
2. garbage collections, which stop the event loop, leave out the objects that live as long as the process.
"""

from __future__ import annotations

import gc
import os
import sys
import threading

NICENESS = 5
# How long a thread may hold the interpreter while another one wants it. Python's default, 5 ms, is as long as it takes
# to decode an image; and a thread that decodes wants the interpreter ten times for each image, while the event loop
# holds it.
SWITCH_INTERVAL_S = 0.0002


def lower_priority(steps: int = 1) -> None:
    """From now on the calling thread, and the threads that it starts, run at a lower priority.

    Otherwise, with all CPUs busy, a request that is rejected waits as long for its rejection as others for an answer.
    On Linux each thread has a niceness of its own (setpriority(2), "C library/kernel differences").
    """
    mine = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + steps * NICENESS)


def shorten_switch_interval() -> None:
    """From now on a thread hands the interpreter over after SWITCH_INTERVAL_S if another one wants it."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def freeze_live_objects() -> None:
    """Leaves out all objects that exist now: a full collection over everything imported stops the event loop for 60 to
    80 ms.

    If called again, it first frees what has become garbage since, which takes that long once.
    """
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
    gc.freeze()
