"""MindSpore's own runtime on the CPU, for the MINDIR artifact. The only module of the service that imports it.

It compiles one graph for all batch sizes, in graph mode. Its import takes seconds.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from models.errors import BundleError
from service.engines.artifacts import choose_artifact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.manifest import Precision
    from models.store import Bundle

# MindSpore reads both when it is imported. With AVX-512 its oneDNN computes 3x3 convolutions in a reference loop, a
# hundred times slower. And it need not log errors on stderr, because it raises them as exceptions too.
os.environ.setdefault("DNNL_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("GLOG_v", "4")
import mindspore
from mindspore import nn


class MindSporeEngine:
    name = "mindspore"
    precision: Precision = "fp32"
    device = "CPU"

    def __init__(self, network: nn.Cell, bundle: Bundle) -> None:
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self._network: nn.Cell | None = network
        # Two threads in one graph crash the process (MindSpore 2.10).
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(cls, bundle: Bundle, precision: Precision, threads: int) -> MindSporeEngine:
        """Compiles. Raises BundleError for an artifact that is missing, cannot be loaded or does not fit."""
        artifact = choose_artifact(cls.name, bundle, precision)
        path = bundle.path(artifact)
        size = bundle.manifest.preprocess.input_size
        _prepare(threads)
        try:
            network = nn.GraphCell(mindspore.load(str(path)))
            network.set_inputs(mindspore.Tensor(shape=[None, 3, size, size], dtype=mindspore.float32))
            engine = cls(network, bundle)
            found = engine.infer(np.zeros((1, 3, size, size), np.float32)).shape
        except Exception as error:
            raise BundleError(f"{path} cannot be loaded by MindSpore: {error}") from error
        if found != (1, engine.num_classes):
            raise BundleError(f"{path} gives logits of shape {found}; the manifest wants {(1, engine.num_classes)}")
        return engine

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K); blocks, releases the GIL."""
        with self._one_at_a_time:
            if self._network is None:
                raise RuntimeError("the engine is closed")
            return np.asarray(self._network(mindspore.Tensor(np.ascontiguousarray(images))).asnumpy(), np.float32)

    def close(self) -> None:
        self._network = None


def _prepare(threads: int) -> None:
    """Graph mode on the CPU."""
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.set_device("CPU")
    with suppress(RuntimeError):  # it can be set once per process: the first engine's number applies
        mindspore.device_context.cpu.op_tuning.threads_num(threads)
