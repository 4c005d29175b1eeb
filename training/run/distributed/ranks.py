"""Collective operations between the steps of a distributed run.

1. `broadcast` gives every rank the parameters of rank 0;
2. `average` gives every rank the mean over all ranks;
3. `total` sums over all ranks, exactly up to 2**24;
4. all ranks save together, and stop together when one of them is asked to;
5. in a run of one process, every operation is a no-op.

All use AllReduce in float32, the only summing collective of MindSpore's CPU backend, which takes floats only.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import ArrayLike, NDArray

from training.run.distributed.device import Process
from training.run.stopping import StopRequest


def total(array: ArrayLike, process: Process) -> NDArray[np.float32]:
    """The elementwise sum over all ranks."""
    own = np.asarray(array, np.float32)
    return own if process.size == 1 else ops.AllReduce()(Tensor(own)).asnumpy()


def from_rank_0(array: ArrayLike, process: Process) -> NDArray[np.float32]:
    """Rank 0's array on every rank; integers are exact up to 2**24."""
    return total(array if process.is_main else np.zeros_like(array), process)


def agree(stop: StopRequest, save_due: bool, process: Process) -> tuple[bool, bool]:
    """-> whether to stop now and whether to save now, the same on all ranks.

    They stop if any rank was asked to, and save if they stop or a save is due on any rank. A signal that arrives during
    this call counts at the next one, although `stop` on that rank has already recorded it.
    """
    stop_requests, saves_due = total([stop.requested is not None, save_due], process)
    if stop_requests and stop.requested is None:
        stop.requested = signal.SIGTERM
    return bool(stop_requests), bool(stop_requests or saves_due)


def barrier(process: Process) -> None:
    """Wait until all ranks reach this call."""
    total(0, process)


def broadcast(parameters: Iterable[ms.Parameter], process: Process) -> None:
    """Give every rank the parameters of rank 0; all ranks must pass the same parameters in the same order."""
    if process.size > 1:
        for parameter in parameters:
            _assign(parameter, from_rank_0(parameter.asnumpy(), process))


def average(parameters: Iterable[ms.Parameter], process: Process) -> None:
    """Replace every float parameter by its mean over all ranks; integers are equal on all ranks anyway."""
    if process.size > 1:
        for parameter in parameters:
            if parameter.dtype == ms.float32:
                _assign(parameter, total(parameter.asnumpy(), process) / process.size)


def _assign(parameter: ms.Parameter, array: NDArray[np.floating]) -> None:
    """With an operator, because a graph that has run once ignores later `set_data` calls (MindSpore 2.10, CPU)."""
    ops.assign(parameter, Tensor(array, parameter.dtype))
