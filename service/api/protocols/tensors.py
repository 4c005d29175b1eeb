"""Tensors of the Open Inference Protocol: as JSON, and in the bytes of its binary extension.

1. sizes are compared with the shape before any memory is allocated for them;
2. a mismatch is an error that names the tensor, what it has, and what it should have;
3. images may be BYTES [N] or [N, 1], as clients with a batch dimension send them.

Binary is little-endian and row-major; an element of BYTES is its length as uint32, then itself (KServe documentation,
"Binary Tensor Data Extension"). JSON is flat or nested, row-major; as JSON has no bytes, an encoded image is base64.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.problems import RequestError
from service.api.reading.payloads import too_many_images
from service.api.reading.transfer import decode_base64
from service.api.schemas import InputTensor, OutputTensor
from service.classify.outcomes import Image

# Beyond any normalised pixel, and far from where sums over a network's inputs overflow.
LARGEST_PIXEL = 1000.0
_LENGTH = struct.Struct("<I")
_NUMPY = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}
# Triton's names in a model configuration.
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64", "BOOL": "TYPE_BOOL"}


@dataclass(frozen=True)
class TensorType:
    """`shape`: -1 is any length."""

    datatype: str
    shape: tuple[int, ...]

    def check(self, tensor: InputTensor) -> None:
        shape = tensor.shape[:1] if self.datatype == "BYTES" and tensor.shape[1:] == [1] else tensor.shape
        fits = len(shape) == len(self.shape) and all(
            wanted in (-1, length) for wanted, length in zip(self.shape, shape, strict=True)
        )
        if tensor.datatype != self.datatype or not fits:
            wanted = f"{self.datatype} {list(self.shape)}"
            raise malformed(f"input {tensor.name} must be {wanted}, not {tensor.datatype} {tensor.shape}")


# An answer has these if the request names none.
OUTPUTS = {
    "label": TensorType("BYTES", (-1, -1)),
    "class_id": TensorType("INT64", (-1, -1)),
    "score": TensorType("FP32", (-1, -1)),
}
# Of a model that explains its answers: `logit` is the sum of `cam` over its cells, plus `bias`; `box` is the part of
# the image that the cells cover.
CAM_OUTPUTS = {
    "cam": TensorType("FP32", (-1, -1, -1, -1)),
    "bias": TensorType("FP32", (-1, -1)),
    "logit": TensorType("FP32", (-1, -1)),
    "box": TensorType("FP32", (-1, 4)),
}
EMBEDDING = "embedding"
EXPLANATIONS = {**CAM_OUTPUTS, EMBEDDING: TensorType("FP32", (-1, -1))}

# Of a bundle with a threshold and quantiles: is the best label confident; the labels of a set, padded with empty
# strings.
CONFIDENT, SET = "confident", "set"
DOUBTS = {CONFIDENT: TensorType("BOOL", (-1,)), SET: TensorType("BYTES", (-1, -1))}


def outputs_of(*, explains: bool, doubts: bool) -> Mapping[str, TensorType]:
    """All that a request may name."""
    return {**OUTPUTS, **(EXPLANATIONS if explains else {}), **(DOUBTS if doubts else {})}


def inputs_of(input_size: int) -> Mapping[str, TensorType]:
    """A request has one of them; `input_size` in pixels."""
    return {"image": TensorType("BYTES", (-1,)), "pixels": TensorType("FP32", (-1, 3, input_size, input_size))}


def malformed(detail: str, index: int | None = None) -> RequestError:
    return RequestError("malformed_request", detail, index=index)


def read_images(inputs: Sequence[InputTensor], binary: bytes, *, input_size: int, max_images: int) -> list[Image]:
    """The request's inputs and what follows its JSON -> at least one image. Raises RequestError."""
    known = inputs_of(input_size)
    if len(inputs) != 1 or inputs[0].name not in known:
        raise malformed(f"send one input, {' or '.join(known)}, not {[tensor.name for tensor in inputs]}")
    tensor = inputs[0]
    known[tensor.name].check(tensor)
    if not tensor.shape[0]:
        raise malformed(f"input {tensor.name} is empty: send at least one image")
    if tensor.shape[0] > max_images:
        raise too_many_images(max_images)
    refuse_shared_memory(tensor.name, tensor.parameters)
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return _read_json(tensor, binary)
    if size != len(binary):
        raise malformed(f"input {tensor.name}: binary_data_size is {size}, but {len(binary)} bytes follow the JSON")
    return _read_bytes(tensor, binary) if tensor.datatype == "BYTES" else _read_pixels(tensor, binary)


def refuse_shared_memory(name: str, parameters: Mapping[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        raise malformed(f"{name}: shared memory is not supported; send and receive the data itself")


def _read_json(tensor: InputTensor, binary: bytes) -> list[Image]:
    if binary:
        raise malformed(f"{len(binary)} bytes follow the JSON, but input {tensor.name} has no binary_data_size")
    if not isinstance(tensor.data, list):
        raise malformed(f"input {tensor.name} has neither a list as data nor a binary_data_size")
    if tensor.datatype == "BYTES":
        return _read_base64(tensor)
    try:
        numbers = np.asarray(tensor.data)
    except ValueError as error:  # ragged
        raise malformed(f"input {tensor.name}: data is nested unevenly") from error
    if numbers.dtype.kind not in "iuf" or numbers.shape not in (tuple(tensor.shape), (math.prod(tensor.shape),)):
        raise malformed(f"input {tensor.name}: data must be numbers, flat or nested as the shape {tensor.shape}")
    with np.errstate(over="ignore"):  # an infinity is rejected below
        return _checked(numbers.astype(np.float32).reshape(tensor.shape))


def _read_base64(tensor: InputTensor) -> list[Image]:
    texts: list[Any] = [text[0] if isinstance(text, list) and len(text) == 1 else text for text in tensor.data]
    if len(texts) != tensor.shape[0] or not all(isinstance(text, str) for text in texts):
        raise malformed(f"input {tensor.name}: data must have as many base64 strings as the shape {tensor.shape} says")
    return [decode_base64(text, f"input {tensor.name}[{index}]", index) for index, text in enumerate(texts)]


def _read_bytes(tensor: InputTensor, binary: bytes) -> list[Image]:
    """BYTES [N] or [N, 1] -> its elements."""
    elements: list[Image] = []
    start = 0
    for index in range(tensor.shape[0]):
        begin = start + _LENGTH.size
        if begin > len(binary):
            raise malformed(f"input {tensor.name} ends after {index} of {tensor.shape[0]} elements", index)
        (length,) = _LENGTH.unpack_from(binary, start)
        start = begin + length
        if start > len(binary):
            raise malformed(
                f"input {tensor.name}: element {index} says {length} bytes, {len(binary) - begin} are left", index
            )
        elements.append(binary[begin:start])
    if start != len(binary):
        raise malformed(f"input {tensor.name}: {len(binary) - start} bytes follow the last element")
    return elements


def _read_pixels(tensor: InputTensor, binary: bytes) -> list[Image]:
    wanted = math.prod(tensor.shape) * np.dtype(np.float32).itemsize
    if len(binary) != wanted:
        raise malformed(f"input {tensor.name}: FP32 {tensor.shape} takes {wanted} bytes, not {len(binary)}")
    return _checked(np.frombuffer(binary, _NUMPY["FP32"]).astype(np.float32, copy=False).reshape(tensor.shape))


def _checked(pixels: NDArray[np.float32]) -> list[Image]:
    """(N, 3, S, S) -> its images. Without this check a client could make the engine's answers infinite, which would be
    an error of the server."""
    for index, image in enumerate(pixels):
        if not np.abs(image).max() <= LARGEST_PIXEL:  # NaN compares false
            raise malformed(
                f"input pixels[{index}] has values that are not finite or beyond {LARGEST_PIXEL:g}: "
                "send (pixel / 255 - mean) / std, as the manifest has them",
                index,
            )
    return list(pixels)


def output_tensor(
    name: str, datatype: str, rows: Sequence[Sequence[Any]], *, binary: bool
) -> tuple[OutputTensor, bytes]:
    """Rows of equal shape, of str for BYTES -> the tensor's JSON and what follows it."""
    tensor = OutputTensor(name=name, datatype=datatype, shape=list(np.shape(rows)))
    if datatype == "BYTES":
        texts = [text for row in rows for text in row]
        encoded = b"".join(_LENGTH.pack(len(raw)) + raw for raw in (text.encode() for text in texts)) if binary else b""
    else:
        array = np.array(rows, _NUMPY[datatype])
        texts, encoded = array.ravel().tolist(), array.tobytes() if binary else b""
    if binary:
        return tensor.model_copy(update={"parameters": {"binary_data_size": len(encoded)}}), encoded
    return tensor.model_copy(update={"data": texts}), b""
