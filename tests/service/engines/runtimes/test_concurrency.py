from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engines.runtimes.concurrency import AloneOrShared

PIXELS: NDArray[np.float32] = np.zeros((1, 3, 4, 4), np.float32)


def test_a_batch_that_runs_alone_uses_one_form_and_all_others_use_the_other() -> None:
    calls: list[str] = []
    alone_runs, alone_may_end = threading.Event(), threading.Event()

    def alone(images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
        calls.append("alone")
        alone_runs.set()
        alone_may_end.wait(30)
        return [images]

    def shared(images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
        calls.append("shared")
        return [images]

    infer = AloneOrShared(alone, shared)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(infer, PIXELS, 1)
        alone_runs.wait(30)
        infer(PIXELS, 1)
        infer(PIXELS, 1)
        alone_may_end.set()
        first.result()
        infer(PIXELS, 1)
    assert calls == ["alone", "shared", "shared", "alone"]


def test_a_failed_batch_no_longer_counts_as_running() -> None:
    def fail(images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
        raise RuntimeError("as told")

    infer = AloneOrShared(fail, lambda images, outputs: [images])
    for _ in range(2):  # alone again, the second time too
        with pytest.raises(RuntimeError, match="as told"):
            infer(PIXELS, 1)


def test_once_closed_it_computes_nothing_and_holds_neither_form() -> None:
    def form(images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
        return [images]

    held = weakref.ref(form)
    infer = AloneOrShared(form, form)
    del form
    infer.close()
    assert held() is None
    with pytest.raises(RuntimeError, match="the engine is closed"):
        infer(PIXELS, 1)
