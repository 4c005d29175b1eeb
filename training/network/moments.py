"""Mean and variance of what each batch norm of a train form gets, over images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mindspore as ms
import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray

from training.network.repvgg import RepVGG
from weights.split import Moments


def measure(network: RepVGG, batches: Iterable[Tensor]) -> Moments:
    """Name of each batch norm -> mean and variance (C,) of its input over batches (B, 3, S, S), in inference mode."""
    network.set_train(False)
    sums: dict[str, list[NDArray[np.float64]]] = defaultdict(list)  # mean and mean square in each batch
    with _without_compilation():
        for batch in batches:
            x = batch
            for name, block in network.blocks():
                for norm, y in block.batch_norm_inputs(x).items():
                    values = y.asnumpy().astype(np.float64)
                    sums[f"{name}.{norm}"].append(np.stack([values.mean((0, 2, 3)), (values**2).mean((0, 2, 3))]))
                x = block(x)
    moments = {name: np.mean(found, axis=0) for name, found in sums.items()}
    return {name: (mean, square - mean**2) for name, (mean, square) in moments.items()}


@contextmanager
def _without_compilation() -> Iterator[None]:
    """A graph with all these results would take longer to compile than they take to compute."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
