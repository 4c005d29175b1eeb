from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from service.priority import NICENESS, give_way


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_that_gives_way_and_those_that_it_starts_come_later_and_no_others() -> None:
    before = niceness()

    def mine_and_a_childs() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as child:
            return niceness(), child.submit(niceness).result()

    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        assert pool.submit(mine_and_a_childs).result() == (before + NICENESS, before + NICENESS)
    assert niceness() == before
