"""What is specific to ncnn; what all engines have in common is in test_every_engine.py."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from models import golden
from models.errors import BundleError
from models.store import Bundle, open_bundle
from service.engine_table import ENGINES
from service.engines.conformance import Effort, verify_one
from service.engines.onnx_file import read_graph
from service.engines.runtimes import ncnn
from service.engines.runtimes.ncnn import EXPANSION, NcnnEngine, open_network
from service.engines.runtimes.ncnn_layers import divided, translated
from service.engines.selection import open_engine
from service.errors import EngineUnavailable
from service.settings import Settings

Rebuild = Callable[..., Bundle]
CALLERS = 4


def tiny(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load_model(tiny_bundle / "tiny.onnx")


def with_node(model: onnx.ModelProto, node: onnx.NodeProto, **arrays: np.ndarray) -> bytes:
    """The network with `node`, from `relu` to `more`, between its ReLU and its mean."""
    [mean] = [one for one in model.graph.node if one.op_type == "ReduceMean"]
    mean.input[0] = "more"
    model.graph.node.insert(2, node)
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def grouped(model: onnx.ModelProto) -> bytes:
    """The network with a grouped convolution that changes nothing, so that the golden logits hold."""
    return with_node(model, helper.make_node("Conv", ["relu", "one"], ["more"], group=8), one=np.ones((8, 1, 1, 1)))


def test_its_logits_equal_those_of_the_training_framework(full_bundle: Bundle) -> None:
    engine = NcnnEngine.open(full_bundle, "fp32", threads=1)
    tensors, expected = golden.load(full_bundle)
    np.testing.assert_allclose(engine.infer(tensors), expected, atol=1e-4)
    engine.close()


def network_of(
    nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], size: int, outputs: list[str]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def plain_chain(size: int) -> onnx.ModelProto:
    """What the shipped network lacks: kernels of 1 and 5, no bias, no ReLU, a matrix that is not transposed."""
    rng = np.random.default_rng(size)
    arrays = {
        "k3": rng.normal(size=(16, 3, 3, 3)),
        "b3": rng.normal(size=16),
        "k1": rng.normal(size=(24, 16, 1, 1)),
        "k5": rng.normal(size=(8, 24, 5, 5)),
        "matrix": rng.normal(size=(8, 7)),
        "shift": rng.normal(size=7),
    }
    nodes = [
        helper.make_node("Conv", ["image", "k3", "b3"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "k1"], ["c"], auto_pad="NOTSET"),
        helper.make_node("Conv", ["c", "k5"], ["d"], strides=[2, 2], pads=[2, 2, 2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix", "shift"], ["logits"]),
    ]
    return network_of(nodes, arrays, size, ["logits"])


@pytest.mark.parametrize("size", [32, 33, 71])
def test_any_plain_chain_is_computed_at_any_size(tmp_path: Path, size: int) -> None:
    model = plain_chain(size)
    onnx.save_model(model, tmp_path / "chain.onnx")
    network = open_network(list(translated(read_graph(tmp_path / "chain.onnx"))), threads=2)
    images = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"image": images})
    np.testing.assert_allclose(network.infer(images, 1)[0], expected, atol=1e-4 * np.abs(expected).max())
    turned = images[:, :, ::-1]
    np.testing.assert_allclose(network.infer(turned, 1)[0], network.infer(turned.copy(), 1)[0])
    network.close()


def stages(size: int, strides: list[int]) -> onnx.ModelProto:
    """RepVGG's form: 3x3 convolutions with ReLU, which reduce the map by `strides`, a mean, a matrix. 5 classes."""
    rng = np.random.default_rng(size)
    arrays, nodes, at = {"head": rng.normal(size=(5, 8)), "shift": rng.normal(size=5)}, [], "image"
    for number, stride in enumerate(strides):
        inputs = [at, f"k{number}", f"b{number}"]
        arrays |= {inputs[1]: rng.normal(size=(8, 3 if at == "image" else 8, 3, 3)) / 6, inputs[2]: rng.normal(size=8)}
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], strides=[stride] * 2, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [at := f"r{number}"]))
    nodes.append(helper.make_node("ReduceMean", [at], ["mean"], axes=[2, 3], keepdims=0))
    nodes.append(helper.make_node("Gemm", ["mean", "head", "shift"], ["logits"], transB=1))
    return network_of(nodes, arrays, size, ["logits", at])


@pytest.mark.parametrize(
    ("strides", "in_tail"),
    [([2, 2, 1, 1, 2], 3), ([2, 1, 1, 1], 3), ([2, 2], 1), ([1, 1], 2), ([2, 1, 2, 2], 1)],
    ids=["last one halves", "no reduction at the end", "only reductions", "no reduction", "two at the end"],
)
@pytest.mark.parametrize("size", [24, 26, 28, 40])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_shares_the_tail_of_the_network_and_no_pixel(
    tmp_path: Path, strides: list[int], in_tail: int, size: int, threads: int
) -> None:
    model = stages(size, strides)
    onnx.save_model(model, tmp_path / "stages.onnx")
    layers = list(translated(read_graph(tmp_path / "stages.onnx")))
    assert divided(layers).tail.text.count("Convolution ") == in_tail
    network = open_network(layers, threads=threads)
    images = np.random.default_rng(0).normal(size=(5, 3, size, size)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"image": images})
    for count in (1, 2, 5):
        for found, true in zip(network.infer(images[:count], 2), expected, strict=True):
            np.testing.assert_allclose(found, true[:count], atol=1e-4 * np.abs(true).max())
    network.close()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e38])
def test_an_image_that_overflows_does_not_spoil_its_batch(tmp_path: Path, value: float) -> None:
    onnx.save_model(stages(24, [2, 1, 1, 2]), tmp_path / "stages.onnx")
    network = open_network(list(translated(read_graph(tmp_path / "stages.onnx"))), threads=1)
    images = np.random.default_rng(0).normal(size=(4, 3, 24, 24)).astype(np.float32)
    (expected,) = network.infer(images, 1)
    images[1] = value
    (logits,) = network.infer(images, 1)
    others = [0, 2, 3]
    np.testing.assert_array_equal(logits[others], expected[others])
    assert not np.array_equal(logits[1], expected[1])
    network.close()


def conv(**attributes: Any) -> Callable[[onnx.ModelProto], bytes]:
    node = helper.make_node("Conv", ["relu", "k"], ["more"], **attributes)
    return lambda model: with_node(model, node, k=np.zeros((8, 8, 3, 3)))


def squeezed(model: onnx.ModelProto) -> bytes:
    """As in squeeze-and-excitation, the channels are multiplied by what was computed from them."""
    excited = with_node(model, helper.make_node("Mul", ["relu", "weight"], ["more"]), weight=np.ones((1, 8, 1, 1)))
    model = onnx.load_model_from_string(excited)
    del model.graph.initializer[-1]
    model.graph.node.insert(2, helper.make_node("Sigmoid", ["relu"], ["weight"]))
    return model.SerializeToString()


def scaled(model: onnx.ModelProto) -> bytes:
    model.graph.node[-1].attribute.append(helper.make_attribute("alpha", 2.0))
    return model.SerializeToString()


def headless(model: onnx.ModelProto) -> bytes:
    """With a matrix that is computed."""
    model.graph.node.insert(3, helper.make_node("Identity", ["head.weight"], ["computed"]))
    model.graph.node[-1].input[1] = "computed"
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (grouped, "it has grouped convolutions"),
        (squeezed, "it has a layer Sigmoid"),
        (conv(dilations=[2, 2], pads=[2] * 4), "not square, or dilated"),
        (conv(strides=[1, 2]), "not square, or dilated"),
        (conv(pads=[0, 0, 1, 1]), "not square, or dilated"),
        (conv(auto_pad="SAME_UPPER"), "automatic padding"),
        (scaled, "a scaled or transposed Gemm"),
        (headless, "Identity does not follow the layer before it, and only a plain chain"),
        (lambda model: with_node(model, helper.make_node("Add", ["relu", "relu"], ["more"])), "relu is computed"),
        (lambda model: with_node(model, helper.make_node("Softplus", ["relu"], ["more"])), "a layer Softplus"),
    ],
    ids=["groups", "se", "dilated", "stride", "padding", "auto_pad", "gemm", "computed", "residual", "other"],
)
def test_a_network_that_it_cannot_compute_is_refused_with_the_reason(
    tiny_bundle: Path, rebuilt: Rebuild, change: Callable[[onnx.ModelProto], bytes], reason: str
) -> None:
    bundle = rebuilt(change(tiny(tiny_bundle)))
    with pytest.raises(EngineUnavailable, match=rf"the engine ncnn cannot compute .*tiny\.onnx: .*{reason}"):
        NcnnEngine.open(bundle, "fp32", threads=1)


def test_auto_does_not_choose_it_for_such_a_network_and_verify_counts_it_as_unavailable(
    tiny_bundle: Path, rebuilt: Rebuild
) -> None:
    bundle = rebuilt(grouped(tiny(tiny_bundle)))
    engine, choice = open_engine(bundle, Settings(precision="fp32"))
    engine.close()
    assert choice.engine in ("onnxruntime", "openvino")
    [one] = [candidate for candidate in choice.candidates if candidate.engine == "ncnn"]
    assert "grouped convolutions" in str(one.objection)
    row = verify_one(bundle, "ncnn", "fp32", Effort(threads=1, max_batch_size=2, calls=10))
    assert "grouped convolutions" in (row.unavailable or "")
    assert row.failures == ()


def test_a_file_that_is_no_network_raises_bundle_error(rebuilt: Rebuild) -> None:
    with pytest.raises(BundleError, match=r"tiny\.onnx is not an ONNX file"):
        NcnnEngine.open(rebuilt(b"not ONNX"), "fp32", threads=1)


@pytest.mark.parametrize("which", ["input", "output"])
def test_tensor_names_that_differ_from_the_manifest_are_rejected(
    tiny_bundle: Path, rebuilt: Rebuild, which: str
) -> None:
    bundle = rebuilt((tiny_bundle / "tiny.onnx").read_bytes(), **{which: "other"})
    with pytest.raises(BundleError, match=rf"tiny\.onnx {which} .* the manifest wants .*'other'"):
        NcnnEngine.open(bundle, "fp32", threads=1)


def test_callers_side_by_side_and_one_alone_get_the_same_answers(full_bundle: Bundle) -> None:
    engine = NcnnEngine.open(full_bundle, "fp32", threads=2, slots=2)
    images = np.random.default_rng(0).normal(size=(CALLERS, 3, 32, 32)).astype(np.float32)
    alone = engine.infer(images)
    together = threading.Barrier(CALLERS)

    def call(index: int) -> np.ndarray:
        together.wait()
        return np.concatenate([engine.infer(images[index : index + 1]) for _ in range(50)])

    with ThreadPoolExecutor(CALLERS) as callers:
        for logits, expected in zip(callers.map(call, range(CALLERS)), alone, strict=True):
            np.testing.assert_allclose(logits, np.tile(expected, (50, 1)), atol=1e-5)
    engine.close()


def test_its_threads_wait_without_spinning() -> None:
    """The library itself says how it was told to wait, when it is loaded."""
    program = "import service.engines.runtimes.ncnn"
    environment = {"OMP_DISPLAY_ENV": "verbose", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


def test_it_takes_no_cpu_while_nobody_calls(full_bundle: Bundle) -> None:
    engine = NcnnEngine.open(full_bundle, "fp32", threads=2)
    engine.infer(np.zeros((4, 3, 32, 32), np.float32))
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25  # two spinning threads would take 1.0
    engine.close()


def test_a_network_too_large_for_the_memory_limit_is_refused_before_it_is_loaded(
    full_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = 4 * full_bundle.manifest.network.parameters
    monkeypatch.setattr(ncnn, "memory_limits", lambda: iter([2 * (2 * weights * (1 + EXPANSION)) - 1]))
    with pytest.raises(EngineUnavailable, match=r"ncnn would need \d+ MiB .* half of the memory limit of \d+ MiB"):
        NcnnEngine.open(full_bundle, "fp32", threads=2, slots=2)
    NcnnEngine.open(full_bundle, "fp32", threads=2).close()  # one network instead of two


def test_without_its_package_the_text_says_how_to_install_it(
    full_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "ncnn", replace(ENGINES["ncnn"], package="no_such_package"))
    with pytest.raises(EngineUnavailable, match=r"ncnn is not installed: pip install 'repvgg\[ncnn\]'"):
        open_engine(full_bundle, Settings(engine="ncnn"))


def test_a_closed_engine_says_so(tiny_bundle: Path) -> None:
    engine = NcnnEngine.open(open_bundle(tiny_bundle), "fp32", threads=1)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.infer(np.zeros((1, 3, 32, 32), np.float32))
