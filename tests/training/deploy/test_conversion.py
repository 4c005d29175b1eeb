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
    """-> weights under our names, and the remarks about what was left out."""
    from training.deploy import conversion

    found = conversion.read_weights(path, sources.SOURCES[source])
    return found.weights, found.remarks


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
    found, remarks = read_file(write_file(spell(reference, "pytorch", "train"), "pytorch"), "pytorch")
    expected = reference(images)
    assert 0.1 < np.abs(expected).max() < 100
    assert np.abs(logits_of(network_of(found, variant, 1000), images) - expected).max() < 1e-4
    counters = 22 * 2 + 17  # two branches a block, and 17 identities
    ignored = f"ignored {counters} entries that are not weights of the network, such as "
    assert [remark for remark in remarks if remark.startswith(ignored)] == remarks
    assert remarks[0].endswith(".num_batches_tracked")


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


QA_NAMES = (
    ("stages.0.0.", "stage0."),
    *((f"stages.{stage}.", f"stage{stage}.") for stage in range(1, 5)),
    ("branch_3x3.", "rbr_dense."),
    ("branch_1x1.", "rbr_1x1."),
    ("classifier.", "linear."),
    ("bn.gamma", "bn.weight"),
    ("bn.beta", "bn.bias"),
    ("bn.moving_mean", "bn.running_mean"),
    ("bn.moving_variance", "bn.running_var"),
)


def test_a_qarepvgg_of_its_authors_is_read(write_file):
    from training.network import repvgg

    rng = np.random.default_rng(0)
    network = repvgg.build("QARepVGG-Smoke", CLASSES)
    ours = {
        name: rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)
        for name, parameter in repvgg.weights(network).items()
    }
    theirs = {}
    for name, array in ours.items():
        for old, new in QA_NAMES:
            name = name.replace(old, new)
        theirs[name] = array
    assert "stage0.bn.running_mean" in theirs
    assert "stage1.0.rbr_1x1.weight" in theirs
    found, _ = read_file(write_file(theirs, "pytorch"), "pytorch")
    assert found.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    network_of(found, VARIANTS["QARepVGG-Smoke"], CLASSES)


def test_a_foreign_file_given_as_ours_is_one_line(write_file):
    path = write_file(spell(random_reference(narrow(VARIANTS["RepVGG-A0"]), CLASSES), "timm", "train"), "timm")
    with pytest.raises(CheckpointError) as refused:
        read_file(path, "own")
    assert str(refused.value) == f"{path}: its names are not those of training.train: give --from timm"


def test_a_backbone_becomes_a_checkpoint_to_train_a_new_classifier_on(write_file, tmp_path):
    from training.deploy import conversion
    from training.network import repvgg
    from training.run.checkpoints import checkpoint

    arrays = spell(random_reference(VARIANTS["RepVGG-Smoke"], CLASSES), "pytorch", "train")
    headless = {name: array for name, array in arrays.items() if not name.startswith("linear.")}
    found = conversion.read_weights(write_file(headless, "pytorch"), sources.SOURCES["pytorch"])
    with pytest.raises(CheckpointError, match=r"has no classifier: --checkpoint FILE\.ckpt --reset_classifier"):
        network_of(found.weights, VARIANTS["RepVGG-Smoke"], CLASSES)
    spec = sources.published_preprocess(sources.SOURCES["pytorch"], "RepVGG-A0")
    conversion.write_backbone(found, "RepVGG-Smoke", tmp_path / "backbone.ckpt", spec)
    parameters = repvgg.weights(repvgg.build("RepVGG-Smoke", 3))
    saved = checkpoint.network_weights(checkpoint.read(tmp_path / "backbone.ckpt"))
    assert "classifier.bias" not in saved
    fresh = checkpoint.start_from(parameters, saved, reset_classifier=True, source=tmp_path)
    assert fresh == ["classifier.weight", "classifier.bias"]
    name = "stages.1.0.branch_3x3.conv.weight"
    np.testing.assert_array_equal(parameters[name].asnumpy(), arrays["stage1.0.rbr_dense.conv.weight"])


def test_a_checkpoint_of_ours_brings_its_classes_and_its_preprocessing(tmp_path, capsys):
    """So even a variant without a published preprocessing can be converted."""
    from models.manifest import Preprocess
    from training.deploy import conversion
    from training.network import repvgg
    from training.run.checkpoints import about, checkpoint

    own, path = sources.SOURCES["own"], tmp_path / "net.ckpt"
    spec = Preprocess(input_size=40, interpolation="nearest", crop_pct=0.9, mean=(0.4,) * 3, std=(0.2,) * 3)
    said = about.of_weights(("ant", "bee"), "RepVGG-Smoke", spec)
    checkpoint.save(path, repvgg.weights(repvgg.build("RepVGG-Smoke", 2)), said.entry)
    found = conversion.read_weights(path, own)
    assert conversion.spec_of(found, own, "RepVGG-Smoke") == spec
    assert conversion.labels_of(found, None, None) == (["ant", "bee"], "the classes of its checkpoint")
    assert conversion.labels_of(found, ["bee", "ant"], "mine.txt") == (["bee", "ant"], "the classes of mine.txt")
    assert "names its classes ant, bee; --labels mine.txt takes their place" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="is a RepVGG-Smoke, not a RepVGG-A0"):
        conversion.spec_of(found, own, "RepVGG-A0")
