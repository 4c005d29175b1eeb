import numpy as np
import pytest

from models.store import open_bundle
from training import start
from training.own.backbone import Backbone


@pytest.fixture
def two(draw_photos, tiny_bundle, tmp_path, monkeypatch):
    """A bundle that knows lemons and limes."""
    monkeypatch.chdir(tmp_path)
    photos = draw_photos(tmp_path / "two", 20, classes=("lemon", "lime"))
    assert start.main([str(photos), "--out", "store/two/1", "--from", str(tiny_bundle), "--minutes", "0.01"]) == 0
    return tmp_path / "store/two/1"


def test_the_known_classes_stay_as_they_are_bit_for_bit(two, draw_photos, tmp_path, capsys):
    photos = draw_photos(tmp_path / "three", 15, first=300)
    assert start.main([str(photos), "--add", "--out", "store/three/1", "--from", str(two)]) == 0
    before, after = open_bundle(two), open_bundle(tmp_path / "store/three/1")
    assert after.labels == ("lemon", "lime", "plum")
    old, new = Backbone(before).classifier(), Backbone(after).classifier()
    assert (new.weight[:2] == old.weight).all()
    assert (new.bias[:2] == old.bias).all()
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)
    assert (Backbone(before).compute(image) == Backbone(after).compute(image)).all()
    assert after.manifest.training.top1 > 0.8
    assert "2 classes as they were, 3 now" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("lemon", "lime"), "only classes that the bundle has"), (("plum", "pear"), "none of the classes")],
)
def test_without_new_or_without_known_classes_there_is_nothing_to_add(
    tiny_bundle, draw_photos, tmp_path, capsys, classes, message, monkeypatch, two
):
    photos = draw_photos(tmp_path / "more", 3, classes=("lemon", "lime"), first=600)
    for name, other in zip(("lemon", "lime"), classes, strict=True):
        (photos / name).rename(photos / f"new {other}")
        (photos / f"new {other}").rename(photos / other)
    assert start.main([str(photos), "--add", "--out", "store/more/1", "--from", str(two)]) == 66
    assert message in capsys.readouterr().err
