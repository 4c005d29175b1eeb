"""Reads the weight files of other frameworks as name -> array, with numpy alone.

1. nothing in a file is executed: its pickle may contain tensors and plain containers, and anything else is rejected
   with an error that names it;
2. float32, float16, bfloat16 and strided views are read exactly as by the framework that wrote them;
3. a broken file is a CheckpointError that names it; it never yields only some of the weights.

Formats: `torch.save` since PyTorch 1.6 (a zip with `data.pkl` and one file per storage), `torch.save` before that
(pickles, followed by the storages), and safetensors (length of the header, JSON header, data).
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from weights.errors import CheckpointError

Array = NDArray[Any]

_BFLOAT16 = "bfloat16"
_TORCH_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": _BFLOAT16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "?",
}
_WRAPPERS = ("state_dict", "model")  # keys under which training scripts save the weights in their checkpoints
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read(path: Path) -> dict[str, Array]:
    """Read a `.safetensors` file, or any other as a file of `torch.save`: name -> array. Raises CheckpointError."""
    reader = read_safetensors if path.suffix == ".safetensors" else read_torch
    try:
        with path.open("rb") as file:
            return reader(file)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # broken pickles, zips and headers raise anything: EOFError, KeyError, struct.error, ...
        raise CheckpointError(f"{path} is broken or not a file of weights ({type(error).__name__}: {error})") from error


def read_safetensors(file: BinaryIO) -> dict[str, Array]:
    """As https://huggingface.co/docs/safetensors describes the format; values are views of the file's bytes."""
    content = file.read()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise CheckpointError(f"{name} is of type {entry['dtype']}; known: {', '.join(_SAFETENSORS_DTYPES)}")
        begin, stop = (end + offset for offset in entry["data_offsets"])
        arrays[name] = _numbers(content[begin:stop], _SAFETENSORS_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def read_torch(file: BinaryIO) -> dict[str, Array]:
    """The tensors of a state dict, alone or wrapped as {"state_dict": ...} or {"model": ...}."""
    start = file.read(4)
    file.seek(0)
    if start.startswith(b"PK"):
        contents, storages = _read_zip(file)
    elif start.startswith(b"\x80"):
        contents, storages = _read_legacy(file)
    else:
        raise CheckpointError("neither a zip nor a pickle, so not a file of torch.save")
    tensors = _unwrap(contents)
    return {name: _strided(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class _Storage:
    """`count` consecutive numbers in the file."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides are in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, Array]]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("a zip without data.pkl, so not a file of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise CheckpointError("written on a big-endian machine; save it again on a little-endian one")
        with archive.open(pickles[0]) as stream:
            unpickler = _TensorsOnly(stream)
            contents = unpickler.load()
        storages = unpickler.storages.values()
        return contents, {each.key: _read_storage(each, archive.read(f"{folder}data/{each.key}")) for each in storages}


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, Array]]:
    if _TensorsOnly(file).load() != _LEGACY_MAGIC or _TensorsOnly(file).load() != _LEGACY_PROTOCOL:
        raise CheckpointError("a pickle, but not a file of torch.save")
    if not _TensorsOnly(file).load()["little_endian"]:
        raise CheckpointError("written on a big-endian machine; save it again on a little-endian one")
    unpickler = _TensorsOnly(file)
    contents = unpickler.load()
    storages = {}
    for key in _TensorsOnly(file).load():
        storage = unpickler.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise CheckpointError(f"the length of storage {key} does not match its tensors")
        storages[key] = _read_storage(storage, file.read(storage.count * _bytes_each(storage.dtype)))
    return contents, storages


class _TensorsOnly(pickle.Unpickler):
    """Unpickles tensors (as _Tensor) in plain containers; `storages` collects the storages they use.

    Raises CheckpointError that names the first other global, before anything is called.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor_builder()
        if module == "torch" and name in _TORCH_STORAGES:
            return _TORCH_STORAGES[name]
        raise CheckpointError(
            f"rejected because loading it would execute code: its pickle imports {module}.{name}. If you trust the "
            "file, open it in PyTorch and save only the weights: torch.save(model.state_dict(), ...)"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or dtype not in _TORCH_STORAGES.values() or any(part is not None for part in view):
            raise CheckpointError(f"its pickle refers to something that is not a storage: {pid!r}")
        return self.storages.setdefault(key, _Storage(key, dtype, count))


def _tensor_builder() -> Callable[..., _Tensor]:
    """A new function for each use, because a pickle can set attributes on the object it gets."""

    def build(storage: _Storage, offset: int, shape: Any, strides: Any, *_gradient_and_hooks: object) -> _Tensor:
        return _Tensor(storage, offset, tuple(shape), tuple(strides))

    return build


def _unwrap(contents: Any) -> dict[str, _Tensor]:
    while isinstance(contents, dict):
        inner = [contents[key] for key in _WRAPPERS if isinstance(contents.get(key), dict)]
        if not inner:
            break
        contents = inner[0]
    tensors = {}
    if isinstance(contents, dict):
        tensors = {str(name): value for name, value in contents.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise CheckpointError(f"holds no tensors, neither at the top level nor in {' or '.join(map(repr, _WRAPPERS))}")
    return tensors


def _bytes_each(dtype: str) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _read_storage(storage: _Storage, content: bytes) -> Array:
    if len(content) != storage.count * _bytes_each(storage.dtype):
        raise CheckpointError(f"storage {storage.key} is truncated: copy the file again")
    return _numbers(content, storage.dtype)


def _numbers(content: bytes, dtype: str) -> Array:
    """Little-endian bytes -> (N,) array; bfloat16, the upper half of a float32, becomes float32."""
    if dtype != _BFLOAT16:
        return np.frombuffer(content, dtype)
    return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")


def _strided(tensor: _Tensor, numbers: Array) -> Array:
    """The read-only view that `tensor` describes. Raises CheckpointError if it exceeds `numbers`."""
    if 0 in tensor.shape:
        return np.empty(tensor.shape, numbers.dtype)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.offset, 0, *tensor.shape, *tensor.strides) < 0 or last >= len(numbers):
        raise CheckpointError("a tensor exceeds its storage")
    bytes_each = numbers.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, [stride * bytes_each for stride in tensor.strides], writeable=False
    )
