"""Labels of which several may apply, from a table through training and evaluation to the manifest and /classify."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from models.manifest import Labels
from models.preprocess import preprocess
from models.scores.topk import sigmoid
from models.store import Bundle, open_bundle
from models.versions import write_version
from service.app import create_app
from service.settings import Settings
from tests.training.own.conftest import photo_of
from training.deploy.offline.onnx_engine import open_engine

THRESHOLDS = [0.1, 0.9, *[0.5] * 8]
Serve = Callable[[Bundle], TestClient]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """(bundle) -> a client of a service that has started."""
    clients: list[TestClient] = []

    def started(bundle: Bundle) -> TestClient:
        settings = Settings(model=str(bundle.folder), engine="onnxruntime", precision="fp32")
        client = TestClient(create_app(settings, registry=CollectorRegistry()), "http://localhost")
        clients.append(client.__enter__())
        wait_until(lambda: client.get("/startupz").status_code == 200)
        return client

    yield started
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def multi(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """The tiny bundle, of whose labels several may apply."""
    tiny = open_bundle(tiny_bundle)
    labels = tiny.manifest.labels.model_copy(update={"multi": True, "thresholds": THRESHOLDS})
    return write_version(tiny, tmp_path / "multi" / "1", labels=labels)


def ask(client: TestClient, image: bytes, query: str = "?top_k=10") -> list[dict[str, Any]]:
    reply = client.post(f"/classify{query}", content=image, headers={"content-type": "image/png"})
    assert reply.status_code == 200, reply.text
    predictions: list[dict[str, Any]] = reply.json()["results"][0]["predictions"]
    return predictions


def expected(bundle: Bundle, image: bytes) -> np.ndarray[Any, Any]:
    engine = open_engine(bundle.path(bundle.artifact(("onnx",), "fp32")), "CPU", 0)
    return sigmoid(engine.infer(preprocess(image, bundle.manifest.preprocess)[None])[0], bundle.manifest.temperature)


def test_scores_are_per_label_and_say_whether_the_label_applies(
    multi: Bundle, serve: Serve, draw_image: Callable[..., bytes]
) -> None:
    image = draw_image(5, "PNG")
    client, scores = serve(multi), expected(multi, image)
    found = ask(client, image)
    for one in found:
        assert one["score"] == pytest.approx(scores[one["class_id"]], abs=1e-5)
        assert one["applies"] == (one["score"] >= THRESHOLDS[one["class_id"]])
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    chosen = ask(client, image, "?labels=cat,dog&top_k=10")
    assert {one["label"] for one in chosen} == {"cat", "dog"}
    assert all(one in found for one in chosen)  # what else may be answered does not change a score


def test_priors_are_refused_since_they_are_shares_of_one_label(
    multi: Bundle, serve: Serve, draw_image: Callable[..., bytes]
) -> None:
    image = {"b64": base64.b64encode(draw_image(5, "PNG")).decode()}
    reply = serve(multi).post("/classify", json={"images": [image], "priors": {"cat": 0.9}})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    assert "per label" in reply.json()["detail"]


def test_a_bundle_of_one_label_answers_without_the_new_key(
    tiny_bundle: Path, serve: Serve, draw_image: Callable[..., bytes]
) -> None:
    found = ask(serve(open_bundle(tiny_bundle)), draw_image(5, "PNG"))
    assert all(one.keys() == {"label", "class_id", "score"} for one in found)
    assert sum(one["score"] for one in found) == pytest.approx(1)


def test_a_manifest_of_one_label_is_written_as_before() -> None:
    assert Labels(file="labels.txt", sha256="0" * 64).model_dump() == {"file": "labels.txt", "sha256": "0" * 64}
    with pytest.raises(ValueError, match="thresholds are for multi-label bundles"):
        Labels(file="labels.txt", sha256="0" * 64, thresholds=[0.5])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """48 photos to train on and 16 of val: lemons or plums, bright or dark, and some with no label."""
    rows = ["path,label,split"]
    for number in range(64):
        lemon, dark, none = number % 2 == 0, number % 4 < 2, number % 8 == 7
        picture = photo_of((230, 220, 60) if lemon else (110, 50, 130), number)
        picture = picture.point(lambda value: value // 3) if dark else picture
        picture.save(tmp_path / f"{number}.png")
        names = [name for name, applies in (("lemon", lemon), ("dark", dark)) if applies and not none]
        rows.append(f"{number}.png,{'|'.join(names)},{'train' if number < 48 else 'val'}")
    (tmp_path / "photos.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "photos.csv"


@pytest.mark.skipif(find_spec("mindspore") is None, reason="MindSpore is not installed: pip install 'repvgg[train]'")
def test_from_a_table_to_classify(
    table: Path, tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    from training import eval as evaluation
    from training import export, train

    keys = ["--set", "CSV", "--labels", "multi", "--data_url", str(table), "--device_target", "CPU"]
    run = [*keys, "--arch", "RepVGG-Smoke", "--image_size", "16", "--batch_size", "16", "--epochs", "2"]
    assert train.main([*run, "--save_dir", str(tmp_path), "--name", "run", "--mix_up", "0.2"]) == 0
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < line["val_map"] <= 1
    best = ["--pretrained", str(tmp_path / "run" / "best.ckpt")]
    capsys.readouterr()
    assert evaluation.main([*keys, *best]) == 0
    said = capsys.readouterr().out
    assert "images: 16" in said
    assert "mean average precision: " in said
    assert export.main([*keys, *best, "--bundle", str(tmp_path / "store" / "fruit" / "1")]) == 0
    bundle = open_bundle(tmp_path / "store" / "fruit" / "1")
    assert bundle.labels == ("dark", "lemon")
    kind, precision = bundle.manifest.labels, bundle.manifest.training.average_precision
    assert kind.thresholds is not None
    assert precision is not None
    assert f"lemon: {precision['lemon']:.4f}" in said
    image = (table.parent / "50.png").read_bytes()
    scores = expected(bundle, image)
    for one in ask(serve(bundle), image, "?top_k=2"):
        assert one["score"] == pytest.approx(scores[one["class_id"]], abs=1e-5)
        assert one["applies"] == (one["score"] >= kind.thresholds[one["class_id"]])
