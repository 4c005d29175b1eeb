"""Mean and variance of what each batch norm of a train form gets, over images.

Layer by layer: one graph with all these results takes minutes to compile for a deep network, and without graphs
MindSpore 2.10 prints a page of warnings at the first sum of two tensors, because it was built for NumPy 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray

from training.network.repvgg import RepVGG
from weights.split import Moments


def measure(network: RepVGG, batches: Iterable[Tensor]) -> Moments:
    """Name of each batch norm -> mean and variance (C,) of its input over batches (B, 3, S, S), in inference mode."""
    network.set_train(False)
    sums: dict[str, list[NDArray[np.float64]]] = defaultdict(list)  # mean and mean square in each batch
    for batch in batches:
        x = batch
        for name, block in network.blocks():
            for norm, y in block.batch_norm_inputs(x).items():
                values = y.astype(np.float64)
                sums[f"{name}.{norm}"].append(np.stack([values.mean((0, 2, 3)), (values**2).mean((0, 2, 3))]))
            x = block(x)
    moments = {name: np.mean(found, axis=0) for name, found in sums.items()}
    return {name: (mean, square - mean**2) for name, (mean, square) in moments.items()}
