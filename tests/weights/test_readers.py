"""Hand-made files of weights: they are read exactly, rejected, or reported as broken."""

import json
import pickle
import struct

import numpy as np
import pytest

from weights import readers
from weights.errors import CheckpointError

ARRAYS = {
    "single": np.linspace(-2, 2, 12, dtype="<f4").reshape(3, 4),
    "half": np.linspace(-2, 2, 6, dtype="<f2").reshape(1, 2, 3),
    "double": np.linspace(-2, 2, 5, dtype="<f8"),
    "counter": np.array(7, "<i8"),
    "nothing": np.empty((0, 3), "<f4"),
}
BFLOAT16 = {1.0: 0x3F80, -2.0: 0xC000, 0.5: 0x3F00, 3.140625: 0x4049}


def same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("layout", ["zipped", "legacy"])
@pytest.mark.parametrize("wrappers", [(), ("state_dict",), ("model",), ("state_dict", "model")])
def test_both_layouts_of_torch_are_read_wrapped_or_bare(torch_file, tmp_path, layout, wrappers):
    piece = torch_file.dict_of({name: torch_file.tensor(array) for name, array in ARRAYS.items()})
    for wrapper in wrappers:
        piece = torch_file.dict_of({"epoch": torch_file.integer(3), wrapper: piece})
    same(readers.read(getattr(torch_file, layout)(tmp_path / "net.pth", piece)), ARRAYS)


@pytest.mark.parametrize("layout", ["zipped", "legacy"])
def test_bfloat16_and_strided_views_are_read_as_torch_reads_them(torch_file, tmp_path, layout):
    numbers = np.arange(24, dtype="<f4")
    pieces = {
        "transposed": torch_file.view("<f4", numbers.tobytes(), 24, 0, (4, 6), (1, 4)),
        "every other column": torch_file.view("<f4", numbers.tobytes(), 24, 13, (2, 3), (6, 2)),
        "repeated": torch_file.view("<f4", numbers.tobytes(), 24, 5, (3, 2), (0, 1)),
        "brain": torch_file.view("bfloat16", struct.pack("<4H", *BFLOAT16.values()), 4, 0, (2, 2), (2, 1)),
    }
    expected = {
        "transposed": numbers.reshape(6, 4).T,
        "every other column": numbers.reshape(4, 6)[2:, 1::2],
        "repeated": np.array([[5, 6]] * 3, "<f4"),
        "brain": np.array(list(BFLOAT16), "<f4").reshape(2, 2),
    }
    same(readers.read(getattr(torch_file, layout)(tmp_path / "net.pth", torch_file.dict_of(pieces))), expected)


def test_safetensors_of_its_own_library_are_read_without_it(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "net.safetensors"
    library.save_file(ARRAYS, path, metadata={"format": "np"})
    same(readers.read(path), ARRAYS)


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_bfloat16_safetensors_are_read(tmp_path):
    header = {"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    path = write_safetensors(tmp_path / "net.safetensors", header, struct.pack("<4H", *BFLOAT16.values()))
    same(readers.read(path), {"a": np.array(list(BFLOAT16), "<f4").reshape(2, 2)})


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("layout", ["zipped", "legacy", "bare"])
def test_a_pickle_that_would_execute_code_is_rejected_and_nothing_is_executed(torch_file, tmp_path, layout):
    evidence = tmp_path / "evidence"
    code = pickle.dumps({"weight": Malicious(evidence)}, 2)
    path = tmp_path / "net.pth"
    if layout == "bare":
        path.write_bytes(code)
    else:
        getattr(torch_file, layout)(path, code[2:-1])
    with pytest.raises(CheckpointError, match=r"net\.pth: rejected .*posix\.system.*save only the weights"):
        readers.read(path)
    assert not evidence.exists()
    pickle.loads(code)
    assert evidence.exists(), "the file must be dangerous to prove something"


@pytest.mark.parametrize(
    "wanted",
    ["builtins.eval", "torch.load", "torch._utils._rebuild_parameter", "collections.namedtuple", "argparse.Namespace"],
)
def test_any_other_global_is_rejected_by_name(torch_file, tmp_path, wanted):
    module, name = wanted.rsplit(".", 1)
    path = torch_file.zipped(tmp_path / "net.pth", f"c{module}\n{name}\n".encode())
    with pytest.raises(CheckpointError, match=f"its pickle imports {wanted.replace('.', '[.]')}"):
        readers.read(path)


def test_a_pickle_cannot_change_how_later_files_are_read(torch_file, tmp_path):
    tensor = torch_file.tensor(ARRAYS["single"])
    builder = b"ctorch._utils\n_rebuild_tensor_v2\n"
    defaults = b"N}" + torch_file.text("__defaults__") + torch_file.integers([1, 2]) + b"s\x86b0"
    piece = builder + defaults + torch_file.dict_of({"single": tensor})
    same(readers.read(torch_file.zipped(tmp_path / "net.pth", piece)), {"single": ARRAYS["single"]})
    assert readers._tensor_builder().__defaults__ is None


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5, 5), (5, 1)), (20, (5,), (1,)), (-1, (2,), (1,)), (5, (3,), (-1,)), (0, (2**40, 2), (1, 0)), (0, (3,), ())],
)
def test_a_view_that_exceeds_its_storage_is_rejected(torch_file, tmp_path, offset, shape, strides):
    piece = torch_file.view("<f4", np.zeros(24, "<f4").tobytes(), 24, offset, shape, strides)
    path = torch_file.zipped(tmp_path / "net.pth", torch_file.dict_of({"a": piece}))
    with pytest.raises(CheckpointError, match=r"net\.pth"):
        readers.read(path)


@pytest.mark.parametrize("layout", ["zipped", "legacy"])
def test_a_truncated_storage_is_named(torch_file, tmp_path, layout):
    piece = torch_file.dict_of({"a": torch_file.view("<f4", b"\0" * 80, 24, 0, (4,), (1,))})
    with pytest.raises(CheckpointError, match=r"storage 0 is truncated"):
        readers.read(getattr(torch_file, layout)(tmp_path / "net.pth", piece))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.pth", b"", "neither a zip nor a pickle"),
        ("page.pth", b"<html>not found</html>", "neither a zip nor a pickle"),
        ("number.pth", pickle.dumps(3, 2), "a pickle, but not a file of torch.save"),
        ("half.pth", b"PK\x03\x04 and then nothing", "is broken or not a file of weights"),
        ("empty.safetensors", b"", "is broken or not a file of weights"),
        ("page.safetensors", b"<html>not found</html>", "is broken or not a file of weights"),
    ],
)
def test_a_file_that_does_not_hold_weights_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}.*{words}"):
        readers.read(tmp_path / name)


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=f"{name} cannot be read: No such file"):
        readers.read(tmp_path / name)


def test_the_error_for_a_file_without_tensors_says_where_they_were_expected(torch_file, tmp_path):
    path = torch_file.zipped(tmp_path / "net.pth", torch_file.dict_of({"net": torch_file.dict_of({})}))
    with pytest.raises(CheckpointError, match="no tensors, neither at the top level nor in 'state_dict' or 'model'"):
        readers.read(path)


def test_a_safetensors_type_that_no_network_uses_is_named(tmp_path):
    header = {"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}
    with pytest.raises(CheckpointError, match="a is of type F8_E4M3"):
        readers.read(write_safetensors(tmp_path / "net.safetensors", header, b"\0"))
