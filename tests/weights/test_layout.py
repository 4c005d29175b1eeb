"""Names, shapes and logits without a framework."""

import numpy as np
import pytest

from tests.training.published_weights import narrow, random_reference, spell
from weights import forward, layout, sources
from weights.errors import CheckpointError
from weights.variants import VARIANTS

CLASSES = 5


def published(arch, form):
    variant = narrow(VARIANTS[arch])
    reference = random_reference(variant, CLASSES)
    found, _ = sources.translate(spell(reference, "timm", form), sources.SOURCES["timm"])
    return variant, reference, found


@pytest.mark.parametrize("form", ["train", "deploy"])
@pytest.mark.parametrize("arch", ["RepVGG-A0", "RepVGG-B1g2", "RepVGG-B1g4", "RepVGG-D2se"])
def test_logits_are_those_of_the_reference_before_and_after_fusing(arch, form):
    variant, reference, found = published(arch, form)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    expected = reference(images)
    for weights in (found, layout.fused(found, variant, CLASSES)):
        np.testing.assert_allclose(forward.logits(weights, variant, images), expected, atol=1e-4, rtol=0)


def test_every_weight_that_does_not_fit_is_named():
    variant, _, found = published("RepVGG-A0", "train")
    del found["stages.1.0.branch_1x1.conv.weight"]
    found["stages.1.0.extra"] = np.ones(3, np.float32)
    found["classifier.bias"] = np.ones(4, np.float32)
    with pytest.raises(CheckpointError) as caught:
        layout.fused(found, variant, CLASSES)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: stages.1.0.branch_1x1.conv.weight",
        "  unused: stages.1.0.extra",
        "  classifier.bias: shape (4,), expected (5,)",
    ]
