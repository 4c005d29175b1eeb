"""ncnn on the CPU. The only module that imports it.

RepVGG consists of 3x3 convolutions, which ncnn computes with Winograd's algorithm: less than half of the
multiplications, in fp32. It takes the networks that training exports: convolutions and ReLUs, a mean, a matrix.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from models.errors import BundleError
from service.engines.artifacts import check_outputs, check_tensors, choose_artifact
from service.engines.onnx_file import read_graph
from service.engines.runtimes.concurrency import AloneOrShared
from service.engines.runtimes.ncnn_layers import IMAGE, MASK, Program, divided, translated
from service.errors import EngineUnavailable
from service.machine.limits import memory_limits

# Read when ncnn is loaded. Its threads would otherwise spin while they wait, and take the CPU from those that decode.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import ncnn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from models.manifest import Artifact, Precision
    from models.store import Bundle
    from service.engines.runtimes.ncnn_layers import Layer

    Network: TypeAlias = "OneByOne | Strips"

# Memory of a loaded network by that of its weights: Winograd's algorithm turns the 9 numbers of a kernel into 36.
EXPANSION = 4
# Far over any activation, and far below overflow. A value that is infinite or not a number would spread to the images
# beside it, since 0 times it is not 0, and a caller may send any tensor.
MODERATE = 1e9


class NcnnEngine:
    name = "ncnn"
    precision: Precision = "fp32"
    device = "CPU"

    def __init__(self, alone: Network, shared: Network, bundle: Bundle, gives_features: bool) -> None:
        """`alone` computes a batch with all threads, `shared` one in each calling thread."""
        self.gives_features = gives_features
        self.input_size = bundle.manifest.preprocess.input_size
        self.num_classes = bundle.manifest.network.num_classes
        self._infer = AloneOrShared(alone.infer, shared.infer)
        self._networks = {id(network): network for network in (alone, shared)}

    @classmethod
    def open(cls, bundle: Bundle, precision: Precision, threads: int, slots: int = 1) -> NcnnEngine:
        """For `slots` calls at once; a call that is alone has all the threads, else they are divided.

        Raises BundleError for an artifact that is missing, cannot be loaded or does not fit the manifest,
        EngineUnavailable for a network with layers that it does not compute, or too large for the memory limit."""
        artifact = choose_artifact(cls.name, bundle, precision)
        layers = _read(bundle, artifact)
        _check_memory(sum(layer.weights_bytes for layer in layers), networks=2 if slots > 1 else 1)
        alone = open_network(layers, threads)
        shared = open_network(layers, max(1, threads // slots)) if slots > 1 else alone
        return cls(alone, shared, bundle, getattr(artifact, "features", None) is not None)

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 3, S, S) -> float32 logits (N, K); blocks, releases the GIL."""
        return self._infer(images, 1)[0]

    def infer_with_features(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """-> also feature maps float32 (N, C, h, w)."""
        logits, features = self._infer(images, 2)
        return logits, features

    def close(self) -> None:
        self._infer.close()
        for network in self._networks.values():
            network.close()
        self._networks.clear()


def open_network(layers: list[Layer], threads: int) -> Network:
    """Several threads would have to wake each other for each layer of a strip's masks, which takes longer than a strip
    saves."""
    return Strips(layers) if threads == 1 else OneByOne(layers, threads)


class OneByOne:
    """`threads`: that compute an image together."""

    def __init__(self, layers: list[Layer], threads: int) -> None:
        self._whole = _Part(Program(layers), threads)

    def infer(self, images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
        """float32 (N, 3, S, S) -> logits (N, K) and, if two outputs are wanted, feature maps (N, C, h, w)."""
        names = self._whole.program.outputs[:outputs]
        found = [self._whole.compute(names, image) for image in np.ascontiguousarray(images, np.float32)]
        return [np.stack(those) for those in zip(*found)]  # noqa: B905  # Python 3.7 has no strict

    def close(self) -> None:
        self._whole.close()


class Strips:
    """The images of a batch share the tail of the network: see ncnn_layers."""

    def __init__(self, layers: list[Layer]) -> None:
        programs = divided(layers)
        self._trunk, self._tail, self._head = (_Part(program, threads=1) for program in programs[:3])
        self._stride = programs.stride

    def infer(self, images: NDArray[np.float32], outputs: int) -> list[NDArray[np.float32]]:
        maps = [self._trunk.last(image) for image in np.ascontiguousarray(images, np.float32)]
        together = all(np.abs(one).max() < MODERATE for one in maps)
        features = self._on_strip(maps) if together else [alone for one in maps for alone in self._on_strip([one])]
        logits = [self._head.last(one) for one in features]
        return [np.stack(those) for those in (logits, features)[:outputs]]

    def _on_strip(self, maps: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """The tail's output for each of the maps (C, h, w)."""
        channels, rows, side = maps[0].shape
        # At least one empty column between two maps, before the stride and after it.
        pitch = 2 * (-(-side // 2) + 1)
        strip = np.zeros((channels, rows, len(maps) * pitch), np.float32)
        mask = np.zeros((1, rows, len(maps) * pitch), np.float32)
        for first, one in zip(range(0, strip.shape[2], pitch), maps):  # noqa: B905  # as above
            strip[:, :, first : first + side] = one
            mask[:, :, first : first + side] = 1.0
        computed = self._tail.last(strip, mask)
        pitch, side = pitch // self._stride, -(-side // self._stride)
        return [np.ascontiguousarray(computed[:, :, number * pitch :][:, :, :side]) for number in range(len(maps))]

    def close(self) -> None:
        for part in (self._trunk, self._tail, self._head):
            part.close()


class _Part:
    """A loaded program."""

    def __init__(self, program: Program, threads: int) -> None:
        self.program = program  # ncnn leaves some of the weights where they are
        self._net = _configured(threads)
        if self._net.load_param_mem(program.text) != 0:
            raise BundleError("ncnn does not load the network that was made for it")
        self._net.load_model_mem(program.weights)

    def last(self, image: NDArray[np.float32], mask: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The output of the last layer; the image, if there is none."""
        output = self.program.outputs[0]
        return image if output == IMAGE else self.compute([output], image, mask)[0]

    def compute(
        self, outputs: Sequence[str], image: NDArray[np.float32], mask: NDArray[np.float32] | None = None
    ) -> list[NDArray[np.float32]]:
        with self._net.create_extractor() as extractor:
            extractor.input(IMAGE, ncnn.Mat(image))
            if self.program.masked:
                extractor.input(MASK, ncnn.Mat(mask))
            found = [extractor.extract(name) for name in reversed(outputs)]  # the first one is computed first
            if any(status != 0 for status, _ in found):
                raise MemoryError("ncnn could not compute the image")
            return [np.array(values) for _, values in reversed(found)]  # copies: the extractor owns the others

    def close(self) -> None:
        self._net.clear()


def _read(bundle: Bundle, artifact: Artifact) -> list[Layer]:
    path = bundle.path(artifact)
    graph = read_graph(path)
    size, classes = bundle.manifest.preprocess.input_size, bundle.manifest.network.num_classes
    check_tensors(f"{path} input", graph.inputs, artifact.input, [3, size, size])
    check_outputs(f"{path} output", graph.outputs, artifact, classes)
    try:
        return list(translated(graph))
    except ValueError as error:
        raise EngineUnavailable(f"the engine ncnn cannot compute {path}: {error}; other engines can") from error


def _check_memory(weights_bytes: int, networks: int) -> None:
    needed = weights_bytes * (1 + EXPANSION) * networks
    limit = min(memory_limits(), default=2 * needed)
    if 2 * needed > limit:  # the rest is for the program and its images
        raise EngineUnavailable(
            f"the engine ncnn would need {needed >> 20} MiB for this network, over half of the memory limit of "
            f"{limit >> 20} MiB; raise the limit, or serve it with another engine"
        )


def _configured(threads: int) -> ncnn.Net:
    net = ncnn.Net()
    net.opt.num_threads = threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, half, False)
    return net
