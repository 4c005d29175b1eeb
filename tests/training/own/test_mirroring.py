"""Photos whose class is a direction, and photos whose class is a colour."""

import numpy as np
import pytest
from PIL import Image

from models.store import open_bundle
from training.own import mirroring
from training.own.backbone import Backbone
from training.own.fitting import fit_head
from training.own.photos.collection import collect
from training.own.seen import see


def measured(root, bundle):
    bundle = open_bundle(bundle)
    backbone, spec = Backbone(bundle), bundle.manifest.preprocess
    seen = see(collect(root), backbone, spec, seed=0, seconds=0)
    return mirroring.measure(seen, fit_head(seen, 0), backbone, spec, 0)


@pytest.fixture
def arrows(tmp_path):
    """Grey ramps that get brighter to the left or to the right, on a ground of random squares."""
    for name, sign in (("left", -1), ("right", 1)):
        (tmp_path / "arrows" / name).mkdir(parents=True)
        for index in range(20):
            rng = np.random.default_rng(index + 100 * sign + 200)
            ground = np.kron(rng.normal(0, 45, (6, 8, 3)), np.ones((12, 12, 1)))
            ramp = 128 + sign * np.linspace(-90, 90, 96)[None, :, None] + ground
            photo = Image.fromarray(ramp.clip(0, 255).astype(np.uint8))
            photo.save(tmp_path / "arrows" / name / f"{index}.jpg")
    return tmp_path / "arrows"


def test_photos_whose_class_is_a_side_are_not_mirrored(arrows):
    found = measured(arrows, "repvgg-tiny-cifar10")
    assert found.harms, found
    assert "training does not mirror" in str(found)


def test_photos_without_left_and_right_are_mirrored(photos, tiny_bundle):
    found = measured(photos, tiny_bundle)
    assert not found.harms, found
    assert found.mirrored > 0.9
