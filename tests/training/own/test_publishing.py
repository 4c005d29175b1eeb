"""int8 and MINDIR beside the fp32 network with its new classifier."""

import io
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from models import golden
from models.explanation.head import Head, read_head
from models.store import open_bundle
from training import start
from training.deploy.offline.onnx_engine import open_engine
from training.own import tuning
from training.own.backbone import Backbone
from training.own.backbone import session as open_session
from training.own.classifier.figures import Answers
from training.own.fitting import fit_head
from training.own.photos.collection import collect
from training.own.publishing import int8 as publishing
from training.own.publishing.bundle import draft, facts_of_tuned, publish
from training.own.seen import see


@pytest.fixture
def world(photos, tiny_bundle, tmp_path):
    """What was seen and fitted, and its draft."""
    base = open_bundle(tiny_bundle)
    backbone = Backbone(base)
    seen = see(collect(photos), backbone, base.manifest.preprocess, seed=0, seconds=0)
    outcome = fit_head(seen, 0)
    folder = tmp_path / "drafts" / "fp32" / "1"
    return seen, outcome, draft(base, backbone, outcome.fitted.head, seen, outcome.judged, folder, "fruit")


def int8(world, answers, heads, tmp_path, seconds=1e6):
    said = []
    seen, _, drafted = world
    found = publishing.int8(drafted, seen, answers, heads, tmp_path / "drafts", seconds, said.append)
    return found, said


def test_an_int8_network_that_loses_little_is_in_the_bundle_and_vouched_for(world, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "MAX_TOP1_DROP", 0.2)
    _, outcome, drafted = world
    found, said = int8(world, outcome.judged, outcome.judging, tmp_path)
    assert said[0].startswith("int8: ")
    written = publish(drafted, tmp_path / "store" / "mine" / "1", [found, None], {})
    assert [(one.format, one.precision) for one in written.manifest.artifacts] == [("onnx", "fp32"), ("onnx", "int8")]
    assert written.manifest.doubt("int8") is None
    artifact = written.artifact(("onnx",), "int8")
    assert artifact.features is not None
    engine = open_engine(written.path(artifact), "CPU", 0)
    assert golden.check(written, "int8", engine.infer).ok
    assert written.manifest.accuracy.top1["fp32"] == outcome.judged.accuracy


def test_under_cross_validation_each_photo_is_answered_by_the_head_that_did_not_see_it(world):
    seen, outcome, _ = world
    rows = seen.features[outcome.judged.photos]
    for answered, head in outcome.judging.values():
        np.testing.assert_array_equal(head(rows[answered]), outcome.judged.logits[answered])
    assert sum(answered.sum() for answered, _ in outcome.judging.values()) == 60


def test_an_int8_network_that_loses_too_much_is_left_out_and_that_is_said(world, tmp_path):
    _, outcome, _ = world
    certain = Answers(
        outcome.judged.photos, outcome.judged.labels, np.eye(3, dtype=np.float32)[outcome.judged.labels], 1.0, "a test"
    )
    blind = Head(np.zeros((3, 8), np.float32), np.array([1, 0, 0], np.float32))
    found, said = int8(world, certain, {0: (np.ones(60, bool), blind)}, tmp_path)
    assert found is None
    assert said == ["no int8: 33.3% right, 100.0% in fp32, and 0.5% less is allowed"]


def test_without_time_there_is_no_int8(world, tmp_path):
    _, outcome, _ = world
    found, said = int8(world, outcome.judged, outcome.judging, tmp_path, seconds=0)
    assert found is None
    assert "no int8: measuring it takes about" in said[0]


@pytest.mark.skipif(find_spec("mindspore") is None, reason="MindSpore is not installed: pip install 'repvgg[train]'")
@pytest.mark.usefixtures("every_engine_is_checked")
def test_where_mindspore_is_the_bundle_has_a_mindir_with_the_new_classifier(photos, tmp_path, cpu):
    import mindspore as ms

    out, record = tmp_path / "store" / "mine" / "1", tmp_path / "record"
    flags = ["--out", str(out), "--from", "repvgg-tiny-cifar10", "--head-only", "--record", str(record)]
    assert start.main([str(photos), *flags]) == 0
    bundle = open_bundle(out)
    artifact = bundle.artifact(("mindir",), "fp32")
    network = ms.nn.GraphCell(ms.load(str(bundle.path(artifact))))
    assert golden.check(bundle, "fp32", lambda tensors: network(ms.Tensor(tensors)).asnumpy()).ok
    assert bundle.labels == ("lemon", "lime", "plum")
    assert not (record / "drafts").exists()


@pytest.mark.skipif(find_spec("mindspore") is None, reason="MindSpore is not installed: pip install 'repvgg[train]'")
def test_a_fine_tuned_network_explains_its_answers_too(photos, tmp_path):
    base = open_bundle("repvgg-tiny-cifar10")
    seen = see(collect(photos), Backbone(base), base.manifest.preprocess, seed=0, seconds=0)
    said, folder, plan = [], tmp_path / "tuning", tuning.Plan(2, 200, "")
    tuned = tuning.tune(seen, fit_head(seen, 0), base, Backbone(base), plan, folder, 0, said.append)
    assert tuned, said
    assert "its classifier is kept" in (folder / "run.log").read_text()
    assert len(tuned.augmented) == 8
    with Image.open(io.BytesIO(tuned.augmented[0])) as strip:
        assert strip.width > 4 * strip.height  # the photo, and four epochs of it
    facts = facts_of_tuned(base, tuned.bundle, tuned.answers, "fruit")
    bundle = publish(tuned.bundle, tmp_path / "store" / "mine" / "1", [], facts)
    artifact = bundle.artifact(("onnx",), "fp32")
    head = read_head(bundle, artifact)
    images = golden.load(bundle)[0]
    session = open_session(bundle.path(artifact).read_bytes())
    logits, features = session.run([artifact.output, artifact.features.output], {artifact.input: images})
    assert head.delta(features, logits) < 1e-4
    assert bundle.manifest.training.evaluated_on.startswith("fruit, held out from the run")
