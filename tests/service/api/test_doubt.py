"""`confident`, `coverage` and `min_score`: how sure an answer is."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from models.errors import BundleError
from models.explanation.head import read_head
from models.manifest import Confidence
from models.scores.confidence import prediction_set
from models.scores.topk import entropy
from models.store import STORE, open_bundle
from models.versions import write_version
from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings

FITTED = Confidence(
    fitted_at="2026-11-29T12:00:00Z",
    images=1000,
    precision="fp32",
    threshold=0.5,
    accuracy=0.9,
    answered=0.6,
    kept=0.8,
    quantiles={0.7: 0.0, 0.9: 0.6, 0.99: 0.95},
)
PNG = {"content-type": "image/png"}
SHIPPED = "repvgg-tiny-cifar10"


def running(
    stack: ExitStack, settings: Settings, wait_until: Callable[..., None], engine: FakeEngine | None = None
) -> TestClient:
    app = create_app(settings, engine=engine, registry=CollectorRegistry())
    client = stack.enter_context(TestClient(app, "http://localhost"))
    wait_until(lambda: client.get("/startupz").status_code == 200)
    return client


@pytest.fixture
def doubting(tiny_bundle: Path, tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[Callable[..., TestClient]]:
    """`doubting(threshold=0.5)` -> a client of a bundle with such a confidence; a test may have several."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}" / "tiny" / "2"
            write_version(open_bundle(tiny_bundle), folder, confidence=FITTED.model_copy(update=changes))
            return running(stack, Settings(model=str(folder)), wait_until, FakeEngine(num_classes=10, input_size=32))

        yield start


def ask(client: TestClient, image: bytes, query: str = "") -> Any:
    reply = client.post(f"/classify{query}", content=image, headers=PNG)
    assert reply.status_code == 200, reply.text
    return reply.json()["results"][0]


def refusal(client: TestClient, image: bytes, query: str) -> str:
    reply = client.post(f"/classify{query}", content=image, headers=PNG)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    detail: str = reply.json()["detail"]
    return detail


def probabilities(client: TestClient, image: bytes) -> Any:
    found = {one["class_id"]: one["score"] for one in ask(client, image, "?top_k=10")["predictions"]}
    return np.array([found[class_id] for class_id in range(10)])


def test_a_bundle_without_confidence_answers_as_before(client: TestClient, png_bytes: bytes) -> None:
    assert list(ask(client, png_bytes)) == ["index", "predictions"]
    assert "tiny 1 has no quantiles for sets of labels; `repvgg evaluate --fit-confidence`" in refusal(
        client, png_bytes, "?coverage=0.9"
    )


def test_an_answer_is_confident_from_the_threshold_on(
    doubting: Callable[..., TestClient], client: TestClient, png_bytes: bytes
) -> None:
    certainty = 1 - float(entropy(probabilities(client, png_bytes)))
    assert 0 < certainty < 1
    assert ask(doubting(threshold=certainty - 1e-6), png_bytes)["confident"] is True
    assert ask(doubting(threshold=certainty + 1e-6), png_bytes)["confident"] is False


def test_with_weights_the_logits_count(doubting: Callable[..., TestClient], png_bytes: bytes) -> None:
    assert ask(doubting(threshold=0.1, weights=[0.0] * 21), png_bytes)["confident"] is False
    assert ask(doubting(threshold=-0.1, weights=[0.0] * 21), png_bytes)["confident"] is True


def test_the_embedding_is_part_of_the_evidence(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """Of the shipped network, which gives features."""
    cat = (STORE.parent / "samples" / "cat.jpg").read_bytes()
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}" / "tiny" / "2"
            write_version(open_bundle(SHIPPED), folder, confidence=FITTED.model_copy(update=changes))
            return running(stack, Settings(model=str(folder), engine="onnxruntime", precision="fp32"), wait_until)

        embedding = ask(start(), cat, "?embedding=list")["embedding"]["values"]
        weights = np.linspace(-1, 1, len(embedding))
        sure = float(np.dot(embedding, weights))
        for threshold, confident in ((sure - 1e-3, True), (sure + 1e-3, False)):
            judged = start(threshold=threshold, weights=[0.0] * 21, embedding_weights=weights.tolist())
            assert ask(judged, cat)["confident"] is confident
            assert "embedding" not in ask(judged, cat)


def test_weights_of_another_number_of_features_are_refused(tmp_path: Path) -> None:
    bundle, folder = open_bundle(SHIPPED), tmp_path / "store" / "tiny" / "2"
    wrong = FITTED.model_copy(update={"weights": [0.0] * 21, "embedding_weights": [0.0] * 3})
    write_version(bundle, folder, confidence=wrong)
    newer = open_bundle(folder)
    with pytest.raises(BundleError, match=r"3 confidence.embedding_weights for \d+ features; fit the confidence again"):
        read_head(newer, newer.artifact(("onnx",), "fp32"))


def test_an_engine_without_features_says_nothing_where_they_are_needed(
    doubting: Callable[..., TestClient], png_bytes: bytes
) -> None:
    client = doubting(weights=[0.0] * 21, embedding_weights=[1.0] * 8)
    assert "confident" not in ask(client, png_bytes)
    assert ask(client, png_bytes, "?coverage=0.9")["set"]["labels"]


def test_what_the_caller_made_the_best_label_is_not_confident(
    doubting: Callable[..., TestClient], png_bytes: bytes
) -> None:
    client = doubting(threshold=0.0)
    best, second = (one["label"] for one in ask(client, png_bytes)["predictions"][:2])
    assert ask(client, png_bytes, f"?labels={best}")["confident"] is True
    assert ask(client, png_bytes, f"?labels={second}")["confident"] is False


@pytest.mark.parametrize(("coverage", "quantile"), [("0.5", 0.0), ("0.7", 0.0), ("0.71", 0.6), ("0.95", 0.95)])
def test_a_set_holds_the_labels_up_to_the_quantile(
    doubting: Callable[..., TestClient], png_bytes: bytes, coverage: str, quantile: float
) -> None:
    client = doubting()
    labels = client.get("/models").json()["labels"]
    expected = [labels[class_id] for class_id in prediction_set(probabilities(client, png_bytes), quantile)]
    found = ask(client, png_bytes, f"?coverage={coverage}&top_k=1")
    assert found["set"] == {"coverage": float(coverage), "labels": expected}
    assert list(found) == ["index", "predictions", "confident", "set"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?coverage=0.995", "coverage=0.995: 1000 images were fitted on, enough for a coverage of up to 0.99"),
        ("?coverage=95", "coverage=95 is not a number from 0 to 1"),
        ("?coverage=nan", "coverage=nan is not a number from 0 to 1"),
        ("?coverage=0.9&labels=cat", "coverage holds for the network's own scores, which labels and priors change"),
        ("?min_score=high", "min_score=high is not a number from 0 to 1"),
        ("?coverge=0.9", "did you mean coverage?"),
    ],
)
def test_what_cannot_be_asked_is_named(
    doubting: Callable[..., TestClient], png_bytes: bytes, query: str, says: str
) -> None:
    assert says in refusal(doubting(), png_bytes, query)


def test_priors_and_coverage_exclude_each_other(doubting: Callable[..., TestClient], png_bytes: bytes) -> None:
    body = {"images": [{"b64": base64.b64encode(png_bytes).decode()}], "priors": {"cat": 0.5}}
    reply = doubting().post("/classify?coverage=0.9", json=body)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")


def test_labels_below_the_least_score_are_left_out(client: TestClient, png_bytes: bytes) -> None:
    everything = ask(client, png_bytes, "?top_k=10")["predictions"]
    least = everything[2]["score"]
    assert ask(client, png_bytes, f"?top_k=10&min_score={least!r}")["predictions"] == everything[:3]
    assert ask(client, png_bytes, "?min_score=1")["predictions"] == []


def test_v2_has_confident_and_set(doubting: Callable[..., TestClient], png_bytes: bytes, jpeg_bytes: bytes) -> None:
    client = doubting(threshold=0.0)
    model = "/v2/models/tiny"
    names = [tensor["name"] for tensor in client.get(model).json()["outputs"]]
    assert names == ["label", "class_id", "score", "confident", "set"]
    assert client.get(f"{model}/config").json()["output"][3]["data_type"] == "TYPE_BOOL"
    encoded = [base64.b64encode(image).decode() for image in (png_bytes, jpeg_bytes)]
    image = {"name": "image", "datatype": "BYTES", "shape": [2], "data": encoded}
    body: dict[str, Any] = {"inputs": [image], "outputs": [{"name": "confident"}, {"name": "set"}]}
    reply = client.post(f"{model}/infer", json=body)
    assert "the output set needs the parameter coverage" in reply.json()["detail"]
    body["parameters"] = {"coverage": 0.95}
    confident, sets = client.post(f"{model}/infer", json=body).json()["outputs"]
    assert (confident["datatype"], confident["shape"], confident["data"]) == ("BOOL", [2], [True, True])
    wanted = [ask(client, image, "?coverage=0.95")["set"]["labels"] for image in (png_bytes, jpeg_bytes)]
    assert sets["shape"] == [2, max(map(len, wanted))]
    rows = np.reshape(sets["data"], sets["shape"])
    assert [[label for label in row if label] for row in rows] == wanted


def test_v2_of_a_bundle_without_confidence_has_neither(client: TestClient) -> None:
    names = [tensor["name"] for tensor in client.get("/v2/models/tiny").json()["outputs"]]
    assert names == ["label", "class_id", "score"]


def test_what_callers_make_of_the_scores_is_not_in_the_metrics(
    doubting: Callable[..., TestClient], png_bytes: bytes
) -> None:
    client = doubting(threshold=0.0)
    second = ask(client, png_bytes)["predictions"][1]["label"]
    ask(client, png_bytes, f"?labels={second}")
    size = len(ask(client, png_bytes, "?coverage=0.95")["set"]["labels"])
    lines = client.get("/metrics").text.splitlines()
    assert 'repvgg_confident_answers_total{confident="true",model="tiny",version="2"} 3.0' in lines
    assert 'repvgg_confident_answers_total{confident="false",model="tiny",version="2"} 0.0' in lines
    assert 'repvgg_confident_share_expected{model="tiny",version="2"} 0.6' in lines
    assert {"repvgg_prediction_set_size_count 1.0", f"repvgg_prediction_set_size_sum {size:.1f}"} <= set(lines)
