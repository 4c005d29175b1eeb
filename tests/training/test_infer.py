"""`training.infer` as a user runs it. The Ascend engines follow the vendor's documentation and are not tested here."""

import shutil

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from models.store import find_bundle
from training import infer
from training.deploy.offline.engine import Engine
from training.deploy.offline.inference import infer_files
from training.errors import TrainingError

SHIPPED = find_bundle("repvgg-tiny-cifar10")


@pytest.fixture(scope="module")
def tensors():
    return np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def folder(tensors, tmp_path):
    """<tmp_path>/in with five files."""
    (tmp_path / "in").mkdir()
    for index, tensor in enumerate(tensors):
        (tmp_path / "in" / f"x_{index}.bin").write_bytes(tensor.tobytes())
    return tmp_path


def run(folder, model, *more):
    paths = ["--input_path", str(folder / "in"), "--result_path", str(folder / "out"), "--model", str(model)]
    return infer.main([*paths, "--device_target", "CPU", *more])


@pytest.fixture
def fixed_batch(tmp_path):
    """The shipped ONNX file for batches of exactly two images."""
    model = onnx.load(SHIPPED / "model.onnx")
    for tensor in (model.graph.input[0], model.graph.output[0]):
        tensor.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "fixed.onnx")
    return tmp_path / "fixed.onnx"


def check(folder, tensors):
    expected = ReferenceEvaluator(onnx.load(SHIPPED / "model.onnx")).run(None, {"image": tensors})[0]
    assert sorted(path.name for path in (folder / "out").iterdir()) == [f"x_{index}_0.bin" for index in range(5)]
    for index, logits in enumerate(expected):
        found = np.frombuffer((folder / "out" / f"x_{index}_0.bin").read_bytes(), "<f4")
        np.testing.assert_allclose(found, logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_every_file_gets_its_result_including_the_last_batch(folder, tensors, batch_size, capsys):
    assert run(folder, SHIPPED / "model.onnx", "--batch_size", str(batch_size)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ONNX Runtime ")
    assert "out: 5 results, " in printed
    assert f"images/s of the network alone, batch {batch_size}" in printed
    check(folder, tensors)


def test_a_model_with_a_fixed_batch_size_gets_it(folder, tensors, fixed_batch, capsys):
    assert run(folder, fixed_batch) == 0
    assert "batch 2" in capsys.readouterr().out
    check(folder, tensors)


@pytest.mark.usefixtures("cpu")
def test_mindspore_runs_a_mindir_file(folder, tensors, capsys):
    assert run(folder, SHIPPED / "model.mindir", "--batch_size", "2") == 0
    assert "on CPU" in capsys.readouterr().out
    check(folder, tensors)


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("model", ["model.onnx", "model.mindir"])
def test_images_of_another_size_than_the_model_takes_are_named(folder, model, capsys):
    for path in (folder / "in").iterdir():
        path.write_bytes(np.zeros(3 * 24 * 24, "<f4").tobytes())
    assert run(folder, SHIPPED / model) == 66
    assert "x_0.bin has 24 x 24 pixels, but the model takes 32 x 32" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("name", "floats", "words"),
    [
        ("x_0.bin", 3 * 32 * 31, "x_0.bin holds 2976 numbers, which is not a square image with 3 channels"),
        ("x_4.bin", 3 * 24 * 24, "x_4.bin holds 1728 numbers, but the files before it hold 3072"),
    ],
)
def test_a_file_of_another_size_leaves_no_results(folder, name, floats, words, capsys):
    (folder / "in" / name).write_bytes(np.zeros(floats, "<f4").tobytes())
    assert run(folder, SHIPPED / "model.onnx", "--batch_size", "2") == 66
    assert words in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["in"]


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    ("model", "more", "code", "words"),
    [
        ("gone.onnx", (), 66, "gone.onnx does not exist"),
        ("text.onnx", (), 66, "cannot load"),
        ("text.mindir", (), 66, "text.mindir is not a MINDIR file that MindSpore"),
        ("weights.ckpt", (), 78, "weights.ckpt must end in .mindir or .onnx"),
        (
            "text.onnx",
            ("--device_target", "GPU"),
            69,
            "no CUDAExecutionProvider: device_target GPU needs a different build",
        ),
        ("text.onnx", ("--batch_size", "0"), 78, "--batch_size 0 must be at least 1"),
    ],
)
def test_a_user_error_is_one_line_and_an_exit_code(folder, model, more, code, words, capsys):
    if model.startswith("text"):
        (folder / model).write_text("no model")
    assert run(folder, folder / model, *more) == code
    assert words in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_model_that_takes_no_images_is_named(folder, capsys):
    numbers = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 8]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", numbers[:1], numbers[1:])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "relu.onnx")
    assert run(folder, folder / "relu.onnx") == 66
    assert "relu.onnx takes [['N', 8]], not one tensor (N, 3, S, S)" in capsys.readouterr().err


def test_a_folder_without_images_is_named(folder, capsys):
    shutil.rmtree(folder / "in")
    assert run(folder, SHIPPED / "model.onnx") == 66
    assert "in holds no *.bin files: use the img_data/" in capsys.readouterr().err


def test_the_error_for_a_rejected_batch_size_suggests_a_remedy(folder, capsys):
    def refuse(images):
        raise RuntimeError("dynamic_dims has no 32")

    engine = Engine("refuser", None, 32, refuse)
    with pytest.raises(TrainingError, match="refuser cannot run a batch of 32, try --batch_size 1: dynamic_dims"):
        infer_files(engine, sorted((folder / "in").iterdir()), folder / "out", 32)
