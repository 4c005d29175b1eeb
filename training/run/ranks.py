"""What the processes of a run do together between its steps.

1. `share` gives every rank the parameters of rank 0, whatever it had;
2. `average` gives every rank the mean of all;
3. `total` counts over all ranks, exact up to 2**24;
4. they save together, and a wish of one to stop is one of all;
5. in a run of one process nothing is done.

All by AllReduce in float32: the one collective that MindSpore's CPU backend has for sums, and only of floats.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import ArrayLike, NDArray

from training.run.device import Place
from training.run.stopping import StopRequest


def total(array: ArrayLike, place: Place) -> NDArray[np.float32]:
    """The sum over all ranks, element by element."""
    mine = np.asarray(array, np.float32)
    return mine if place.size == 1 else ops.AllReduce()(Tensor(mine)).asnumpy()


def first(array: ArrayLike, place: Place) -> NDArray[np.float32]:
    """That of rank 0, exact up to 2**24 where it counts."""
    return total(array if place.leads else np.zeros_like(array), place)


def agreed(stop: StopRequest, due: bool, place: Place) -> tuple[bool, bool]:
    """Whether to stop now and whether to save, the same on all ranks: because one is asked to, or it is due on one.

    A signal that comes later is for the next time, also where `stop` knows of it before the others do.
    """
    asked, dues = total([stop.requested is not None, due], place)
    if asked and stop.requested is None:
        stop.requested = signal.SIGTERM
    return bool(asked), bool(asked or dues)


def wait(place: Place) -> None:
    """Until all ranks are here."""
    total(0, place)


def share(parameters: Iterable[ms.Parameter], place: Place) -> None:
    """Rank 0's parameters for all; the same ones, in the same order, must be given on every rank."""
    if place.size > 1:
        for parameter in parameters:
            _set(parameter, first(parameter.asnumpy(), place))


def average(parameters: Iterable[ms.Parameter], place: Place) -> None:
    """The mean over all ranks of every float parameter, as `share`; counts are the same on all ranks anyway."""
    if place.size > 1:
        for parameter in parameters:
            if parameter.dtype == ms.float32:
                _set(parameter, total(parameter.asnumpy(), place) / place.size)


def _set(parameter: ms.Parameter, array: NDArray[np.floating]) -> None:
    """By an operator: a graph that has run once does not see what `set_data` sets any more (MindSpore 2.10, CPU)."""
    ops.assign(parameter, Tensor(array, parameter.dtype))
