"""Hand-made files of weights: they are read exactly, rejected, or reported as broken."""

import argparse
import json
import pickle
import struct
from datetime import datetime, timezone
from pathlib import Path

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


def arrays_in(path, **how):
    return readers.read(path, **how).arrays


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
    same(arrays_in(getattr(torch_file, layout)(tmp_path / "net.pth", piece)), ARRAYS)


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
    same(arrays_in(getattr(torch_file, layout)(tmp_path / "net.pth", torch_file.dict_of(pieces))), expected)


def test_safetensors_of_its_own_library_are_read_without_it(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "net.safetensors"
    library.save_file(ARRAYS, path, metadata={"format": "np"})
    same(arrays_in(path), ARRAYS)


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_bfloat16_safetensors_are_read(tmp_path):
    header = {"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    path = write_safetensors(tmp_path / "net.safetensors", header, struct.pack("<4H", *BFLOAT16.values()))
    same(arrays_in(path), {"a": np.array(list(BFLOAT16), "<f4").reshape(2, 2)})


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("layout", ["zipped", "legacy"])
def test_nothing_in_a_pickle_is_executed_and_the_tensors_beside_it_are_read(torch_file, tmp_path, layout, protocol):
    evidence = tmp_path / "evidence"
    code = pickle.dumps(Malicious(evidence), protocol)
    body = code[2:-1] if protocol < 4 else code[11:-1]  # without the header and the frame of protocol 4
    piece = torch_file.dict_of({"args": body, "single": torch_file.tensor(ARRAYS["single"])})
    found = readers.read(getattr(torch_file, layout)(tmp_path / "net.pth", piece))
    same(found.arrays, {"single": ARRAYS["single"]})
    assert found.remarks == ["left out args"]
    assert not evidence.exists()
    pickle.loads(code)
    assert evidence.exists(), "the file must be dangerous to prove something"


def test_a_bare_pickle_is_not_a_file_of_weights(tmp_path):
    evidence = tmp_path / "evidence"
    (tmp_path / "net.pth").write_bytes(pickle.dumps({"weight": Malicious(evidence)}, 2))
    with pytest.raises(CheckpointError, match="a pickle, but not a file of torch"):
        readers.read(tmp_path / "net.pth")
    assert not evidence.exists()


CALLS = [
    b"cbuiltins\neval\n(" + b"X\x0f\x00\x00\x00open('x', 'w+')" + b"tR",  # REDUCE
    b"cbuiltins\neval\n(X\x03\x00\x00\x001+1t\x81",  # NEWOBJ
    b"(ios\nsystem\n",  # INST
    b"(cos\nsystem\nX\x04\x00\x00\x00trueo",  # OBJ
    b"cbuiltins\ngetattr\n(cos\npath\nX\x06\x00\x00\x00existstR(X\x01\x00\x00\x00/tR",  # a call of what a call gave
    b"cbuiltins\nset\n)R(X\x01\x00\x00\x00ae",  # filled like a list
    b"cbuiltins\ndict\n)R(X\x01\x00\x00\x00aX\x01\x00\x00\x00bu",  # filled like a dict
    b"cargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrK\x01sb",  # given a state
]


@pytest.mark.parametrize("call", CALLS)
def test_whatever_is_done_with_a_stand_in_it_stays_one(torch_file, tmp_path, call):
    piece = torch_file.dict_of({"odd": call, "single": torch_file.tensor(ARRAYS["single"])})
    found = readers.read(torch_file.zipped(tmp_path / "net.pth", piece))
    same(found.arrays, {"single": ARRAYS["single"]})
    assert found.left_out == ("odd",)


@pytest.mark.parametrize("odd", [b"cargparse\nNamespace\n}X\x01\x00\x00\x00aK\x01sb", b"cos\nsystem\nK\x01a"])
def test_a_stand_ins_class_cannot_be_changed(torch_file, tmp_path, odd):
    with pytest.raises(CheckpointError, match="is broken or not a file of weights"):
        readers.read(torch_file.zipped(tmp_path / "net.pth", torch_file.dict_of({"odd": odd})))


class Settings(dict):
    """Like yacs.config.CfgNode, a dict with attributes, in the checkpoints of the authors' trainer."""


def training_script(torch_file, weights, **more):
    """What training scripts save beside the weights."""
    settings = Settings({"lr": 0.1})
    settings.frozen = True
    values = {
        "epoch": 3,
        "arch": "repvgg_a0",
        "args": argparse.Namespace(lr=0.1, opt="sgd"),
        "metric": np.float64(0.72),
        "config": settings,
        "where": Path("x"),
        "when": datetime(2026, 1, 1, tzinfo=timezone.utc),
    }
    pieces = {name: pickle.dumps(value, 2)[2:-1] for name, value in values.items()}
    state = torch_file.dict_of({"step": torch_file.tensor(np.ones(1, "<f4"))})
    return torch_file.dict_of(pieces | {"optimizer": state} | weights | more)


def test_checkpoints_of_training_scripts_are_read_and_what_is_left_out_is_said(torch_file, tmp_path):
    plain = torch_file.dict_of({"single": torch_file.tensor(ARRAYS["single"])})
    averaged = torch_file.dict_of({"single": torch_file.tensor(ARRAYS["single"] + 1)})
    both = torch_file.zipped(
        tmp_path / "both.pth", training_script(torch_file, {"state_dict": plain, "state_dict_ema": averaged})
    )
    found = readers.read(both)
    same(found.arrays, {"single": ARRAYS["single"]})
    assert found.remarks == [
        "left out the averaged weights, `state_dict_ema`: --ema takes those",
        "left out epoch, arch, args, metric, config, where, when, optimizer",
    ]
    found = readers.read(both, averaged=True)
    same(found.arrays, {"single": ARRAYS["single"] + 1})
    assert found.remarks[0] == "took the averaged weights, `state_dict_ema`"
    only = torch_file.zipped(tmp_path / "only.pth", torch_file.dict_of({"model_ema": averaged}))
    assert readers.read(only).remarks == ["took the averaged weights, `model_ema`"]
    same(arrays_in(only), {"single": ARRAYS["single"] + 1})


def test_averaged_weights_that_are_not_there_are_an_error(torch_file, tmp_path):
    path = torch_file.zipped(tmp_path / "net.pth", torch_file.dict_of({"a": torch_file.tensor(ARRAYS["single"])}))
    with pytest.raises(CheckpointError, match="holds no averaged weights: none of state_dict_ema, model_ema"):
        readers.read(path, averaged=True)


@pytest.mark.parametrize("builder", ["_rebuild_parameter", "_rebuild_parameter_with_state"])
def test_a_parameter_is_its_tensor(torch_file, tmp_path, builder):
    rest = b"\x88ccollections\nOrderedDict\n)R" + (b"}" if builder.endswith("state") else b"")
    parameter = f"ctorch._utils\n{builder}\n(".encode() + torch_file.tensor(ARRAYS["single"]) + rest + b"tR"
    path = torch_file.zipped(tmp_path / "net.pth", torch_file.dict_of({"single": parameter}))
    same(arrays_in(path), {"single": ARRAYS["single"]})


def test_a_pickle_cannot_change_how_later_files_are_read(torch_file, tmp_path):
    tensor = torch_file.tensor(ARRAYS["single"])
    builder = b"ctorch._utils\n_rebuild_tensor_v2\n"
    defaults = b"N}" + torch_file.text("__defaults__") + torch_file.integers([1, 2]) + b"s\x86b0"
    piece = builder + defaults + torch_file.dict_of({"single": tensor})
    same(arrays_in(torch_file.zipped(tmp_path / "net.pth", piece)), {"single": ARRAYS["single"]})
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
    with pytest.raises(CheckpointError, match="no tensors, neither at the top level nor in 'state_dict' or 'model' or"):
        readers.read(path)


def test_a_safetensors_type_that_no_network_uses_is_named(tmp_path):
    header = {"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}
    with pytest.raises(CheckpointError, match="a is of type F8_E4M3"):
        readers.read(write_safetensors(tmp_path / "net.safetensors", header, b"\0"))
