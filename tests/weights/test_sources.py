"""Preprocessing and special cases of the sources; all names are tested in deploy/test_conversion.py."""

import numpy as np
import pytest

from weights import sources
from weights.errors import CheckpointError, UnknownVariant
from weights.sources import SOURCES
from weights.variants import VARIANTS

ONE = np.ones(1, np.float32)


def ours(name, source):
    found, _ = sources.translate({name: ONE}, SOURCES[source])
    return list(found)


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("pytorch", "module.stage0.rbr_dense.conv.weight", "stages.0.0.branch_3x3.conv.weight"),
        ("pytorch", "stage3.13.rbr_identity.running_var", "stages.3.13.branch_identity.moving_variance"),
        ("pytorch", "stage4.0.rbr_reparam.bias", "stages.4.0.conv.bias"),
        ("timm", "_orig_mod.module.stem.conv_kxk.bn.weight", "stages.0.0.branch_3x3.bn.gamma"),
        ("timm", "stages.3.0.conv_1x1.conv.weight", "stages.4.0.branch_1x1.conv.weight"),
        ("timm", "stages.0.1.attn.fc2.bias", "stages.1.1.squeeze_excite.up.bias"),
        ("mindcv", "stage1.0.rbr_1x1.1.moving_mean", "stages.1.0.branch_1x1.bn.moving_mean"),
        ("mindcv", "stage1.0.rbr_1x1.1.running_mean", "stages.1.0.branch_1x1.bn.moving_mean"),  # its newer mint layers
        ("modelzoo", "model.stage2.1.rbr_dense.0.convs.0.weight", "stages.2.1.branch_3x3.conv.weight"),
        ("own", "classifier.weight", "classifier.weight"),
        ("own", "stages.1.0.bn.moving_mean", "stages.1.0.bn.moving_mean"),  # QARepVGG's
    ],
)
def test_a_source_name_is_translated_to_ours(source, name, expected):
    assert ours(name, source) == [expected]


@pytest.mark.parametrize("source", ["pytorch", "timm", "mindcv", "modelzoo"])
def test_an_unknown_source_name_is_kept(source):
    assert ours("stage5.extra.weight", source) == ["stage5.extra.weight"]


@pytest.mark.parametrize(
    "name",
    [
        "stage0.rbr_dense.bn.num_batches_tracked",
        "moments.model.stage0.rbr_dense.0.convs.0.weight",
        "_ema_weights.model.linear.bias",
        "scale_sense",
        "global_step",
    ],
)
def test_entries_that_are_not_weights_are_ignored_and_listed(name):
    assert sources.translate({name: ONE}, SOURCES["modelzoo"]) == ({}, [name])


def test_two_names_of_one_weight_are_an_error():
    weights = {"linear.bias": ONE, "module.linear.bias": 2 * ONE}
    with pytest.raises(CheckpointError, match=r"linear\.bias and .*linear\.bias both mean classifier\.bias"):
        sources.translate(weights, SOURCES["pytorch"])


def test_the_groups_of_a_kernel_are_joined_in_the_order_of_their_numbers():
    parts = {f"stage1.0.rbr_dense.0.convs.{index}.weight": np.full((1, 2, 3, 3), index) for index in (10, 2, 0, 1)}
    found, _ = sources.translate(parts, SOURCES["modelzoo"])
    assert found["stages.1.0.branch_3x3.conv.weight"][:, 0, 0, 0].tolist() == [0, 1, 2, 10]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_all_weights_become_float32(dtype):
    found, _ = sources.translate({"linear.bias": np.ones(3, dtype)}, SOURCES["pytorch"])
    assert found["classifier.bias"].dtype == np.float32


@pytest.mark.parametrize(
    ("source", "arch", "size", "resize", "interpolation", "offset"),
    [
        ("pytorch", "RepVGG-A0", 224, 256, "bilinear", "round"),
        ("pytorch", "RepVGG-D2se", 320, 320, "bilinear", "round"),
        ("timm", "RepVGG-B3g4", 224, 256, "bilinear", "round"),
        ("timm", "RepVGG-D2se", 320, 320, "bilinear", "round"),
        ("mindcv", "RepVGG-A0", 224, 256, "bicubic", "floor"),
        ("mindcv", "RepVGG-A1", 224, 256, "bilinear", "floor"),
        ("modelzoo", "RepVGG-A0", 224, 256, "bicubic", "floor"),
        ("own", "QARepVGG-B1", 224, 256, "bilinear", "floor"),
    ],
)
def test_the_preprocessing_is_the_published_one(source, arch, size, resize, interpolation, offset):
    spec = sources.published_preprocess(SOURCES[source], arch)
    assert (spec.input_size, spec.resize_size, spec.interpolation) == (size, resize, interpolation)
    assert (spec.long_side_rounding, spec.crop_offset_rounding) == ("floor", offset)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("source", sorted(SOURCES.keys() - {"own", "pytorch"}))
def test_qarepvgg_is_read_from_its_authors_and_from_us(source):
    with pytest.raises(UnknownVariant, match=r"has no QARepVGG-A0: .*cxxgtxy/QARepVGG \(--from pytorch\)"):
        sources.published_preprocess(SOURCES[source], "QARepVGG-A0")
    assert sources.published_preprocess(SOURCES["pytorch"], "QARepVGG-A0").interpolation == "bilinear"


@pytest.mark.parametrize("name", ["RepVGGplus-L2pse", "repvggplus_l2pse"])
def test_a_published_network_that_is_not_in_the_table_is_named_as_absent(name):
    with pytest.raises(UnknownVariant, match=f"{name} is not supported: .*after the nonlinearity"):
        sources.check_arch(name)


@pytest.mark.parametrize(
    ("given", "names", "words"),
    [
        (
            "own",
            ["stage0.rbr_dense.conv.weight", "linear.bias"],
            "give --from pytorch or --from mindcv or --from modelzoo",
        ),
        ("own", ["stem.conv_kxk.conv.weight", "head.fc.bias"], "are not those of training.train: give --from timm"),
        ("timm", ["stages.0.0.branch_3x3.conv.weight", "classifier.bias"], "are not those of timm: give --from own"),
        ("pytorch", ["layer1.0.conv1.weight", "fc.bias"], "such as layer1.0.conv1.weight, are not those of a RepVGG"),
        ("own", [], "such as none, are not those of a RepVGG"),
    ],
)
def test_weights_of_another_project_are_one_line_that_names_it(given, names, words):
    with pytest.raises(CheckpointError, match=words) as refused:
        sources.check_names(dict.fromkeys(names, ONE), SOURCES[given])
    assert len(str(refused.value).splitlines()) == 1


def test_the_authors_names_of_qarepvgg_are_ours():
    assert ours("stage1.0.rbr_1x1.weight", "pytorch") == ["stages.1.0.branch_1x1.weight"]
    assert ours("stage1.0.bn.running_mean", "pytorch") == ["stages.1.0.bn.moving_mean"]
    assert ours("stage1.0.rbr_dense.bn.weight", "pytorch") == ["stages.1.0.branch_3x3.bn.gamma"]


@pytest.mark.parametrize("source", SOURCES)
def test_no_preprocessing_is_guessed_for_an_unpublished_variant(source):
    small = [name for name, variant in VARIANTS.items() if variant.block == "repvgg" and variant.strides[0] == 1]
    assert small
    for arch in small:
        with pytest.raises(UnknownVariant, match=r"only its recipe defines its .* use python -m training\.export"):
            sources.published_preprocess(SOURCES[source], arch)
