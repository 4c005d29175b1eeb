import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from models.explanation.head import Head
from models.store import open_bundle
from tests.conftest import TINY_LABELS, tiny_network, write_tiny_bundle
from training.errors import DataError
from training.own.backbone import Backbone, session

RNG = np.random.default_rng(0)


@pytest.fixture
def backbone(tiny_bundle):
    return Backbone(open_bundle(tiny_bundle))


@pytest.mark.parametrize("size", [32, 48, 64])
def test_features_are_what_enters_the_classifier_at_any_size(backbone, size):
    images = RNG.normal(0, 1, (3, 3, size, size)).astype(np.float32)
    network = tiny_network()
    network.graph.output.append(onnx.helper.make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, None))
    logits, pooled = ReferenceEvaluator(network).run(None, {"image": images})
    assert np.abs(backbone.compute(images) - pooled).max() < 1e-5
    assert np.abs(backbone.classifier()(pooled) - logits).max() < 1e-5


def test_the_stride_is_that_of_all_layers(backbone):
    assert backbone.stride == 4
    assert Backbone(open_bundle("repvgg-tiny-cifar10")).stride == 8


def test_with_a_new_classifier_everything_before_it_stays_bit_for_bit(backbone):
    head = Head(RNG.normal(0, 1, (3, 8)).astype(np.float32), RNG.normal(0, 1, 3).astype(np.float32))
    model = backbone.with_head(head, 48)
    before = {one.name: one.raw_data for one in tiny_network().graph.initializer if one.name.startswith("conv")}
    assert before == {one.name: one.raw_data for one in model.graph.initializer if one.name.startswith("conv")}
    images = RNG.normal(0, 1, (2, 3, 48, 48)).astype(np.float32)
    found = session(model.SerializeToString()).run(["logits"], {"image": images})[0]
    assert np.abs(found - head(backbone.compute(images))).max() < 1e-5
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        3,
        48,
        48,
    ]


def test_a_product_and_a_sum_are_a_classifier_too(tmp_path):
    network = tiny_network()
    last = network.graph.node.pop()
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in network.graph.initializer}
    next(one for one in network.graph.initializer if one.name == last.input[1]).CopyFrom(
        onnx.numpy_helper.from_array(np.ascontiguousarray(weights["head.weight"].T), "head.weight")
    )
    network.graph.node.append(onnx.helper.make_node("MatMul", ["pooled", "head.weight"], ["product"]))
    network.graph.node.append(onnx.helper.make_node("Add", ["product", "head.bias"], ["logits"]))
    found = Backbone(open_bundle(write_tiny_bundle(tmp_path / "tiny" / "1", network)))
    assert (found.classifier().weight == weights["head.weight"]).all()
    assert (found.classifier().bias == weights["head.bias"]).all()
    images = RNG.normal(0, 1, (2, 3, 32, 32)).astype(np.float32)
    again = session(found.with_head(found.classifier(), 32).SerializeToString()).run(None, {"image": images})[0]
    assert np.abs(again - ReferenceEvaluator(tiny_network()).run(None, {"image": images})[0]).max() < 1e-5


def test_a_network_without_such_a_classifier_is_refused_by_name(tmp_path):
    network = tiny_network()
    network.graph.node[-1].output[0] = "scores"
    network.graph.node.append(onnx.helper.make_node("Tanh", ["scores"], ["logits"]))
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny" / "1", network))
    with pytest.raises(DataError, match="ends in Tanh"):
        Backbone(bundle)
    assert len(bundle.labels) == len(TINY_LABELS)
