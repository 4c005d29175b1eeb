"""Starting from a checkpoint of training.train."""

from importlib.util import find_spec

import pytest

from models.manifest import Preprocess
from models.store import open_bundle
from training import start
from training.own.base import open_base

SPEC = Preprocess(
    input_size=16, crop_pct=1.0, interpolation="bilinear", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), icc="srgb"
)
needs_mindspore = pytest.mark.skipif(
    find_spec("mindspore") is None, reason="MindSpore is not installed: pip install 'repvgg[train]'"
)


@pytest.fixture
def write_checkpoint(cpu, tmp_path):
    """(what it says of itself) -> runs/mine/best.ckpt, of fresh weights."""
    from training.network import repvgg
    from training.run.checkpoints import about, checkpoint

    def write(*, says=True):
        entry = about.of_weights(("ant", "bee"), "RepVGG-Smoke", SPEC).entry if says else {}
        network = repvgg.build("RepVGG-Smoke", 2)
        path = tmp_path / "runs" / "mine" / "best.ckpt"
        checkpoint.save(path, repvgg.weights(network), entry)
        return path

    return write


@needs_mindspore
def test_a_checkpoint_of_our_training_is_a_start(write_checkpoint, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--out", "store/mine/1", "--from", str(write_checkpoint()), "--head-only"]
    assert start.main([str(photos), *flags]) == 0, capsys.readouterr().err
    bundle = open_bundle(tmp_path / "store/mine/1")
    assert bundle.labels == ("lemon", "lime", "plum")
    assert bundle.manifest.network.variant == "RepVGG-Smoke"
    assert bundle.manifest.training.recipe == "training.start: a new classifier on mine-best/1"
    assert bundle.manifest.preprocess.mean == SPEC.mean


@needs_mindspore
def test_a_checkpoint_that_does_not_say_what_it_is_is_named(write_checkpoint, tmp_path, monkeypatch, capsys, photos):
    monkeypatch.chdir(tmp_path)
    path = write_checkpoint(says=False)
    assert start.main([str(photos), "--out", "store/mine/1", "--from", str(path)]) == 66
    assert f"--from {path}: {path} does not say which variant it is of" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    from training.errors import DataError

    with pytest.raises(DataError, match=r"none.ckpt does not exist"):
        open_base(str(tmp_path / "none.ckpt"), tmp_path / "base")
