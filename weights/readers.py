"""Reads the weight files of other frameworks as name -> array, with numpy alone.

1. nothing in a file is executed: of its pickle, tensors and plain containers are read, and whatever else it refers to
   becomes an inert stand-in, which takes anything and does nothing;
2. float32, float16, bfloat16 and strided views are read exactly as by the framework that wrote them;
3. a broken file is a CheckpointError that names it; it never yields only some of the weights;
4. what is not returned is named, averaged weights among it.

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
# Keys under which training scripts save the weights in their checkpoints, and an average of them.
_PLAIN = ("state_dict", "model", "model_state_dict", "net", "network", "weights")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass(frozen=True)
class Contents:
    """`arrays` maps names to arrays; `part` is the key that they lay under, empty at the top level; `left_out` names
    the other entries."""

    arrays: dict[str, Array]
    part: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """A line for what a user would not expect: averaged weights that were taken, or not taken."""
        averaged = [name for name in self.left_out if name in _AVERAGED]
        lines = [f"took the averaged weights, `{self.part}`"] if self.part in _AVERAGED else []
        lines += [f"left out the averaged weights, `{averaged[0]}`: --ema takes those"] if averaged else []
        others = [name for name in self.left_out if name not in averaged]
        return lines + ([f"left out {', '.join(others)}"] if others else [])


def read(path: Path, *, averaged: bool = False) -> Contents:
    """Read a `.safetensors` file, or any other as a file of `torch.save`. Raises CheckpointError.

    With `averaged`, the averaged weights, which must be there.
    """
    try:
        with path.open("rb") as file:
            if path.suffix != ".safetensors":
                return read_torch(file, averaged=averaged)
            if averaged:
                raise CheckpointError("a safetensors file has one set of weights and no averaged ones")
            return Contents(read_safetensors(file))
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


def read_torch(file: BinaryIO, *, averaged: bool = False) -> Contents:
    """The tensors of a state dict, alone or wrapped as {"state_dict": ...}, {"model": ...} and the like."""
    start = file.read(4)
    file.seek(0)
    if start.startswith(b"PK"):
        contents, storages = _read_zip(file)
    elif start.startswith(b"\x80"):
        contents, storages = _read_legacy(file)
    else:
        raise CheckpointError("neither a zip nor a pickle, so not a file of torch.save")
    tensors, part, left_out = _unwrap(contents, averaged)
    arrays = {name: _strided(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}
    return Contents(arrays, part, left_out)


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


class _Inert:
    """Stands for an object of code that is not here: it may be made, called, filled and given a state, and nothing
    happens."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> _Inert:
        return _Inert()

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def append(self, _: object) -> None:
        pass

    extend = add = append


class _TensorsOnly(pickle.Unpickler):
    """Unpickles tensors (as _Tensor) in plain containers; `storages` collects the storages they use.

    No global of a pickle is imported: a handful are known by name, every other one becomes a class of stand-ins.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in _BUILDERS:
            return _BUILDERS[name]()
        if module == "torch" and name in _TORCH_STORAGES:
            return _TORCH_STORAGES[name]
        return type(name, (_Inert,), {"__module__": module})

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


def _parameter_builder() -> Callable[..., _Tensor]:
    """As `_tensor_builder`."""

    def build(data: _Tensor, *_gradient_and_hooks: object) -> _Tensor:
        return data

    return build


_BUILDERS = {
    "_rebuild_tensor_v2": _tensor_builder,
    "_rebuild_parameter": _parameter_builder,
    "_rebuild_parameter_with_state": _parameter_builder,
}


def _unwrap(contents: Any, averaged: bool) -> tuple[dict[str, _Tensor], str, tuple[str, ...]]:
    """-> the tensors, the innermost key they lay under, and the names of all other entries on the way."""
    part = ""
    left_out: list[str] = []
    wanted = (*_AVERAGED, *_PLAIN) if averaged else (*_PLAIN, *_AVERAGED)
    while isinstance(contents, dict):
        inner = [key for key in wanted if isinstance(contents.get(key), dict)]
        if not inner:
            break
        part = inner[0]
        left_out += [str(key) for key in contents if key != part]
        contents = contents[part]
    if averaged and part not in _AVERAGED:
        raise CheckpointError(f"holds no averaged weights: none of {', '.join(_AVERAGED)} is among its entries")
    entries = contents.items() if isinstance(contents, dict) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, _Tensor)}
    if not tensors:
        places = " or ".join(map(repr, (*_PLAIN, *_AVERAGED)))
        raise CheckpointError(
            f"holds no tensors, neither at the top level nor in {places}. A whole network that was pickled needs its "
            "own code: open it there and save only the weights, torch.save(model.state_dict(), ...)"
        )
    left_out += [str(name) for name, value in entries if not isinstance(value, _Tensor)]
    return tensors, part, tuple(left_out)


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
