"""The promises of hub.conversion.graphs_of_others, on graphs in the dialects of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from hub.conversion import graphs_of_others
from hub.errors import Unusable
from tests.hub import graphs
from tests.hub.graphs import CLASSES, SIZE


def scores(model: ModelProto, images: np.ndarray) -> np.ndarray:
    """Of the graph as its exporter wrote it, softmaxed where it gives logits."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    source = session.get_inputs()[0]
    shaped = images.transpose(0, 2, 3, 1) if source.shape[3] == 3 else images
    kind = np.float16 if source.type == "tensor(float16)" else np.float32
    name = next((out.name for out in session.get_outputs() if out.name == "logits"), session.get_outputs()[0].name)
    rows = [session.run([name], {source.name: shaped[i : i + 1].astype(kind)})[0] for i in range(len(images))]
    found = np.concatenate(rows).astype(np.float64)
    return found if np.allclose(found.sum(1), 1, atol=0.02) and (found >= 0).all() else softmax(found)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


DIALECTS = [
    (graphs.torch_dynamic, "fp32", ""),
    (graphs.torch_fixed, "fp32", "made symbolic"),
    (graphs.with_our_names, "fp32", "a transpose"),
    (graphs.tf_nhwc, "fp32", "Softmax was removed"),
    (graphs.decomposed_softmax, "fp32", ""),
    (graphs.half_with_casts, "fp32", ""),
    (graphs.quantized, "int8", "Softmax was removed"),
    (graphs.mixing_its_batch, "fp32", "one by one"),
    (graphs.two_outputs, "fp32", ""),
]


@pytest.mark.parametrize(("write", "precision", "note"), DIALECTS, ids=[write.__name__ for write, *_ in DIALECTS])
def test_every_dialect_answers_as_before_for_any_batch(
    write: Callable[[], ModelProto], precision: str, note: str
) -> None:
    prepared = graphs_of_others.prepare(write(), SIZE, CLASSES)
    images = np.random.default_rng(5).standard_normal((5, 3, SIZE, SIZE), np.float32)
    session = onnxruntime.InferenceSession(prepared.content)
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.type, source.shape) == ("image", "tensor(float)", ["N", 3, SIZE, SIZE])
    assert (target.name, target.type, target.shape) == ("logits", "tensor(float)", ["N", CLASSES])
    found = softmax(session.run(None, {"image": images})[0])
    np.testing.assert_allclose(found, scores(write(), images), atol=1e-2 if precision == "int8" else 1e-3)
    assert prepared.precision == precision
    assert note in "; ".join(prepared.notes)


REFUSED = [
    (graphs.multi_label, "ends in a Sigmoid"),
    (graphs.two_inputs, "has 2: pixel_values, mask"),
    (graphs.text_input, "takes 4 dimensions"),
    (graphs.batch_of_four, "batches of exactly 4"),
    (graphs.grey_input, "has 1 channels"),
]


@pytest.mark.parametrize(("write", "why"), REFUSED, ids=[write.__name__ for write, _ in REFUSED])
def test_what_is_no_image_classifier_is_refused_with_what_was_found(write: Callable[[], ModelProto], why: str) -> None:
    with pytest.raises(Unusable, match=why):
        graphs_of_others.prepare(write(), SIZE, CLASSES)


def test_labels_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Unusable, match="5 scores for an image, there are 4 labels"):
        graphs_of_others.prepare(graphs.torch_dynamic(), SIZE, 4)
    with pytest.raises(Unusable, match="takes 16 x 16 pixels, the preprocessing gives 32 x 32"):
        graphs_of_others.prepare(graphs.torch_fixed(), 32, CLASSES)
    with pytest.raises(Unusable, match="no output 'nothing'; it has: pooled, logits"):
        graphs_of_others.prepare(graphs.two_outputs(), SIZE, CLASSES, "nothing")


def test_weights_beside_the_graph_are_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    options = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    onnx.save_model(graphs.torch_dynamic(), path, **options)
    assert graphs_of_others.external_files(path) == ["model.onnx_data"]
    assert graphs_of_others.read(path).graph.initializer[0].raw_data
    (tmp_path / "model.onnx_data").unlink()
    with pytest.raises(Unusable, match=r"keeps weights in model.onnx_data, which is missing next to it"):
        graphs_of_others.read(path)
    path.write_bytes(path.read_bytes().replace(b"model.onnx_data", b"../../etc/hosts"))
    with pytest.raises(Unusable, match="which is outside its folder"):
        graphs_of_others.read(path)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x08\x12"])
def test_what_is_no_onnx_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(Unusable, match=r"model.onnx is not (valid )?ONNX"):
        graphs_of_others.read(path)
