"""The table describes the networks of the paper: parameters are counted by plain arithmetic, without a framework."""

from dataclasses import replace

import pytest

from weights.variants import VARIANTS

# Million parameters of the deploy form on ImageNet: RepVGG paper (CVPR 2021), tables 4 and 5, and its code's README.
PUBLISHED = {
    "RepVGG-A0": 8.30,
    "RepVGG-A1": 12.78,
    "RepVGG-A2": 25.49,
    "RepVGG-B0": 14.33,
    "RepVGG-B1": 51.82,
    "RepVGG-B1g2": 41.36,
    "RepVGG-B1g4": 36.12,
    "RepVGG-B2": 80.31,
    "RepVGG-B2g4": 55.77,
    "RepVGG-B3": 110.96,
    "RepVGG-B3g4": 75.62,
}


def deploy_parameters(variant, num_classes):
    total, channels, index = 0, 3, 0
    for width, depth in zip(variant.widths, variant.depths, strict=True):
        for _ in range(depth):
            groups = variant.groups if index > 0 and index % 2 == 0 else 1
            total += width * (channels // groups) * 9 + width
            if variant.squeeze_excite:
                total += 2 * width * (width // 16) + width // 16 + width
            channels, index = width, index + 1
    return total + channels * num_classes + num_classes


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_variant_has_the_published_number_of_parameters(name):
    # The paper cuts off after two digits: 8 309 384 is printed as 8.30.
    assert deploy_parameters(VARIANTS[name], 1000) // 10_000 == round(PUBLISHED[name] * 100)


def test_the_whole_family_is_in_the_table():
    names = [
        "A0",
        "A1",
        "A2",
        "B0",
        "B1",
        "B1g2",
        "B1g4",
        "B2",
        "B2g2",
        "B2g4",
        "B3",
        "B3g2",
        "B3g4",
        "D2se",
        "Tiny",
        "Small",
        "Smoke",
    ]
    assert set(VARIANTS) == {f"{form}-{name}" for form in ("RepVGG", "QARepVGG") for name in names}


def test_a_qarepvgg_differs_from_its_repvgg_only_in_the_block():
    for name, variant in VARIANTS.items():
        if variant.block == "qarepvgg":
            assert replace(variant, block="repvgg") == VARIANTS[name.removeprefix("QA")]
    assert sum(variant.block == "qarepvgg" for variant in VARIANTS.values()) == len(VARIANTS) / 2


def test_the_tiny_variant_fits_into_8_mb():
    assert deploy_parameters(VARIANTS["RepVGG-Tiny"], 10) * 4 < 8e6


def test_the_small_variant_is_within_its_budget_at_64_pixels():
    variant = VARIANTS["RepVGG-Small"]
    side, multiply_adds = 64, variant.widths[-1] * 200
    for block in variant.blocks():
        side //= block.stride
        multiply_adds += 9 * block.in_channels * block.out_channels * side**2
    assert side == 4
    assert multiply_adds < 170e6
    assert deploy_parameters(variant, 200) < 4e6
