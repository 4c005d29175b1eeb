"""Converted weights of every source give the logits of a plain reference."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.published_weights import SPELLINGS, images_for, logits_of, narrow, random_reference, spell
from training.errors import CheckpointError, ConfigError
from weights import sources
from weights.variants import VARIANTS

PUBLISHED = [name for name in VARIANTS if name.startswith("RepVGG-") and name not in ("RepVGG-Tiny", "RepVGG-Smoke")]
CLASSES = 5


def read_file(path, source):
    from training.deploy import conversion

    return conversion.read_weights(path, sources.SOURCES[source])


def network_of(found, variant, classes, *, deploy=True, file=Path("test")):
    from training.deploy import conversion

    return conversion.build_network(found, variant, classes, deploy=deploy, file=file)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_every_variant_from_every_source_in_both_forms_gives_the_logits_of_the_reference(write_file, arch):
    variant, images = narrow(VARIANTS[arch]), images_for(32)
    reference = random_reference(variant, CLASSES)
    expected = reference(images)
    assert 0.1 < np.abs(expected).max() < 100, "logits of this size make 1e-4 mean something"
    for form in ("train", "deploy"):
        found, _ = read_file(write_file(spell(reference, "pytorch", form), "pytorch"), "pytorch")
        assert np.abs(logits_of(network_of(found, variant, CLASSES), images) - expected).max() < 1e-4
        for source in SPELLINGS:
            again, _ = read_file(write_file(spell(reference, source, form), source), source)
            assert again.keys() == found.keys()
            for name, array in found.items():  # the same weights have the same logits
                np.testing.assert_array_equal(again[name], array, err_msg=f"{source} {form} {name}")


def test_the_real_a0_gives_the_logits_of_the_reference(write_file):
    variant, images = VARIANTS["RepVGG-A0"], images_for(64)
    reference = random_reference(variant, 1000, seed=2)
    found, left_out = read_file(write_file(spell(reference, "pytorch", "train"), "pytorch"), "pytorch")
    expected = reference(images)
    assert 0.1 < np.abs(expected).max() < 100
    assert np.abs(logits_of(network_of(found, variant, 1000), images) - expected).max() < 1e-4
    counters = [name for name in left_out if name.endswith(".num_batches_tracked")]
    assert len(left_out) == len(counters) == 22 * 2 + 17  # two branches a block, and 17 identities


def test_every_missing_unused_and_misshapen_weight_is_named_and_no_network_is_built(write_file):
    variant = narrow(VARIANTS["RepVGG-A0"])
    arrays = spell(random_reference(variant, CLASSES), "pytorch", "train")
    del arrays["stage1.0.rbr_1x1.conv.weight"], arrays["stage2.1.rbr_identity.weight"]
    arrays["stage1.0.rbr_5x5.conv.weight"] = np.ones(3, np.float32)
    arrays["linear.weight"] = arrays["linear.weight"][:, 1:].copy()
    path = write_file(arrays, "pytorch")
    found, _ = read_file(path, "pytorch")
    with pytest.raises(CheckpointError) as caught:
        network_of(found, variant, CLASSES, file=path)
    for line in (
        f"{path} belongs to another network",
        "missing: stages.1.0.branch_1x1.conv.weight",
        "missing: stages.2.1.branch_identity.gamma",
        "unused: stages.1.0.rbr_5x5.conv.weight",
        "classifier.weight: shape (5, 31), expected (5, 32)",
    ):
        assert line in str(caught.value)


def test_weights_of_another_variant_are_rejected(write_file):
    found, _ = read_file(
        write_file(spell(random_reference(narrow(VARIANTS["RepVGG-A0"]), CLASSES), "timm", "deploy"), "timm"), "timm"
    )
    with pytest.raises(CheckpointError, match=r"missing: stages\.1\.2\.conv\.bias"):
        network_of(found, narrow(VARIANTS["RepVGG-B0"]), CLASSES)


def test_the_error_for_another_number_of_classes_asks_for_labels(write_file):
    variant = narrow(VARIANTS["RepVGG-A0"])
    found, _ = read_file(write_file(spell(random_reference(variant, CLASSES), "own", "train"), "own"), "own")
    with pytest.raises(ConfigError, match="has 5 classes, but there are 1000 labels: give --labels FILE"):
        network_of(found, variant, 1000)


def test_a_checkpoint_with_averaged_weights_is_read_as_its_averages(write_file):
    arrays = spell(random_reference(narrow(VARIANTS["RepVGG-A0"]), CLASSES), "own", "train")
    averages = {
        f"ema.{name}": 2 * array for name, array in arrays.items() if name.startswith(("stages.", "classifier."))
    }
    found, _ = read_file(write_file(arrays | averages, "own"), "own")
    assert found.keys() == {name.removeprefix("ema.") for name in averages}
    assert all(np.array_equal(array, averages[f"ema.{name}"].astype(np.float32)) for name, array in found.items())


def test_fused_weights_are_rejected_for_a_checkpoint(write_file):
    variant = narrow(VARIANTS["RepVGG-A0"])
    path = write_file(spell(random_reference(variant, CLASSES), "timm", "deploy"), "timm")
    found, _ = read_file(path, "timm")
    with pytest.raises(CheckpointError, match=f"{path} is fused .* the train form; .* can only become a bundle"):
        network_of(found, variant, CLASSES, deploy=False, file=path)
