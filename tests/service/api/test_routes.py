from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from models.preprocess import preprocess
from models.scores.topk import softmax, top_k
from models.store import open_bundle
from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.testclient import TestClient

JPEG = {"content-type": "image/jpeg"}


def classify(client: TestClient, image: bytes, query: str = "") -> Any:
    reply = client.post(f"/classify{query}", content=image, headers=JPEG)
    assert reply.status_code == 200, reply.text
    return reply.json()["results"][0]["predictions"]


def test_predictions_are_the_engine_s_of_the_preprocessed_image(
    client: TestClient, fake_engine: FakeEngine, tiny_bundle: Path, jpeg_bytes: bytes
) -> None:
    bundle = open_bundle(tiny_bundle)
    tensor = preprocess(jpeg_bytes, bundle.manifest.preprocess)
    expected = top_k(softmax(fake_engine.logits(tensor[None])[0]), bundle.labels, 5)
    assert classify(client, jpeg_bytes) == [
        {"label": one.label, "class_id": one.class_id, "score": one.score} for one in expected
    ]


def test_the_three_bodies_give_the_same_predictions(client: TestClient, jpeg_bytes: bytes) -> None:
    expected = classify(client, jpeg_bytes)
    form = client.post("/classify", files={"whatever": ("a.jpg", jpeg_bytes)}).json()["results"][0]
    encoded = base64.b64encode(jpeg_bytes).decode()
    body = {"images": [{"b64": encoded}, {"b64": f"data:image/jpeg;base64,{encoded}"}]}
    first, second = client.post("/classify", json=body).json()["results"]
    assert form == {"index": 0, "filename": "a.jpg", "predictions": expected}
    assert first == {"index": 0, "predictions": expected}
    assert second == {"index": 1, "predictions": expected}


def test_sagemaker_s_route_is_classify_by_another_name(client: TestClient, jpeg_bytes: bytes) -> None:
    reply = client.post("/invocations", content=jpeg_bytes, headers=JPEG)
    assert reply.json()["results"][0]["predictions"] == classify(client, jpeg_bytes)


def test_several_images_are_answered_in_order(client: TestClient, draw_image: Callable[..., bytes]) -> None:
    images = [draw_image(seed) for seed in range(6)]
    files = [("image", (f"{number}.jpg", image)) for number, image in enumerate(images)]
    results = client.post("/classify", files=files).json()["results"]
    assert [result["filename"] for result in results] == [f"{number}.jpg" for number in range(6)]
    assert [result["predictions"] for result in results] == [classify(client, image) for image in images]


@pytest.mark.parametrize(("query", "count"), [("", 5), ("?top_k=1", 1), ("?top_k=10", 10), ("?top_k=2&top_k=2", 2)])
def test_top_k_says_how_many_labels(client: TestClient, jpeg_bytes: bytes, query: str, count: int) -> None:
    predictions = classify(client, jpeg_bytes, query)
    assert len(predictions) == count
    scores = [prediction["score"] for prediction in predictions]
    assert scores == sorted(scores, reverse=True)


def test_scores_are_probabilities_over_all_classes(client: TestClient, jpeg_bytes: bytes) -> None:
    assert sum(prediction["score"] for prediction in classify(client, jpeg_bytes, "?top_k=10")) == pytest.approx(1.0)


@pytest.mark.parametrize("value", ["0", "11", "-1", "abc", "", "1.0", "1e1", "٣", "9" * 30])
def test_a_wrong_top_k_names_itself_and_its_range(client: TestClient, jpeg_bytes: bytes, value: str) -> None:
    reply = client.post("/classify", params={"top_k": value}, content=jpeg_bytes, headers=JPEG)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    assert reply.json()["detail"] == f"top_k={value} is not a whole number in 1..10"


@pytest.mark.parametrize("value", ["0", "-5", "soon", "", "1.5"])
def test_a_wrong_timeout_names_itself_and_its_range(client: TestClient, jpeg_bytes: bytes, value: str) -> None:
    reply = client.post("/classify", params={"timeout_ms": value}, content=jpeg_bytes, headers=JPEG)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    assert reply.json()["detail"].startswith(f"timeout_ms={value} is not a whole number of milliseconds, 1 or above")


def test_a_longer_timeout_counts_as_the_server_s(client: TestClient, jpeg_bytes: bytes) -> None:
    assert classify(client, jpeg_bytes, "?timeout_ms=999999999")


def test_parameters_that_we_do_not_know_are_ignored(client: TestClient, jpeg_bytes: bytes) -> None:
    assert classify(client, jpeg_bytes, "?utm_source=x&_=1&fbclid=y&cachebuster=2&n=3")


@pytest.mark.parametrize(("settings", "query"), [({}, "?timeout_ms=50"), ({"timeout_ms": 50}, "?timeout_ms=60000")])
def test_the_earlier_deadline_counts(
    serve: Callable[..., TestClient], jpeg_bytes: bytes, settings: dict[str, int], query: str
) -> None:
    gate = threading.Event()
    gate.set()
    client = serve(FakeEngine(10, 32, gate=gate), **settings)
    gate.clear()
    reply = client.post(f"/classify{query}", content=jpeg_bytes, headers=JPEG)
    gate.set()
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")


def test_the_deadline_includes_the_upload(tiny_bundle: Path, fake_engine: FakeEngine) -> None:
    async def scenario() -> list[Any]:
        app = create_app(Settings(model=str(tiny_bundle)), engine=fake_engine)
        sent: list[Any] = []
        arriving = iter([{"type": "http.request", "body": b"half an image", "more_body": True}])

        async def receive() -> dict[str, Any]:
            return next(arriving, None) or await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.state.lifecycle.running():
            await app.state.lifecycle.opened.wait()
            scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"timeout_ms=20"}
            await app({**scope, "headers": [(b"content-type", b"image/jpeg")]}, receive, send)
        return sent

    start, body = asyncio.run(scenario())
    assert start["status"] == 504
    assert b"the body did not arrive within the deadline of 20 ms" in body["body"]


def test_an_engine_that_raises_answers_500_without_internals(
    serve: Callable[..., TestClient], jpeg_bytes: bytes
) -> None:
    broken = threading.Event()

    def fail(images: Any) -> None:
        if broken.is_set():
            raise RuntimeError("/opt/engine/secret.so: out of memory")

    client = serve(FakeEngine(10, 32, fail=fail))
    broken.set()
    reply = client.post("/classify", content=jpeg_bytes, headers=JPEG)
    assert (reply.status_code, reply.json()["code"]) == (500, "internal_error")
    assert "secret" not in reply.text
    broken.clear()
    assert classify(client, jpeg_bytes)


def test_an_overloaded_server_says_when_to_come_back(
    serve: Callable[..., TestClient], draw_image: Any, jpeg_bytes: bytes
) -> None:
    gate = threading.Event()
    gate.set()
    client = serve(FakeEngine(10, 32, gate=gate), max_queue_bytes=1)
    gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(classify, client, draw_image(1))
        while 'repvgg_engine_slots{state="busy"} 1.0' not in client.get("/metrics").text:
            time.sleep(0.01)
        reply = client.post("/classify", content=jpeg_bytes, headers=JPEG)
        gate.set()
        assert first.result()
    assert (reply.status_code, reply.json()["code"]) == (503, "overloaded")
    assert int(reply.headers["retry-after"]) >= 1


def test_before_the_model_is_open_classify_says_not_ready(serve: Callable[..., TestClient], jpeg_bytes: bytes) -> None:
    gate = threading.Event()
    client = serve(FakeEngine(10, 32, gate=gate), wait=False)
    for reply in (client.post("/classify", content=jpeg_bytes, headers=JPEG), client.get("/models")):
        assert (reply.status_code, reply.json()["code"], reply.headers["retry-after"]) == (503, "not_ready", "1")
    gate.set()


def test_models_describes_the_served_bundle(client: TestClient, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    body = client.get("/models").json()
    assert {key: body[key] for key in ("name", "version", "engine", "precision")} == {
        "name": "tiny",
        "version": "1",
        "engine": "fake",
        "precision": "fp32",
    }
    assert body["labels"] == list(open_bundle(tiny_bundle).labels)
    assert body["manifest"] == open_bundle(tiny_bundle).manifest.model_dump(mode="json")
    assert (body["device"], body["choice"], body["pixels"]) == ("none", None, "exact")  # it was handed in
    assert body["speed"]["images_per_second"] * body["speed"]["seconds_per_image"] == pytest.approx(1.0)


def test_models_states_the_limits_of_a_request(serve: Callable[..., TestClient]) -> None:
    client = serve(max_body_bytes=5000, max_image_pixels=7000, max_images_per_request=3, timeout_ms=2000)
    assert client.get("/models").json()["limits"] == {
        "formats": ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"],
        "max_images_per_request": 3,
        "max_body_bytes": 5000,
        "max_image_pixels": 7000,
        "timeout_ms": 2000,
    }


def test_a_reload_answers_as_models_does_and_the_new_model_answers(
    serve: Callable[..., TestClient], write_version: Callable[..., Path], jpeg_bytes: bytes
) -> None:
    client = serve(model=str(write_version(1).parent))
    write_version(2)
    reply = client.post("/models/reload")
    assert (reply.status_code, reply.json()["version"]) == (200, "2")
    assert client.get("/models").json() == reply.json()
    answer = client.post("/classify", content=jpeg_bytes, headers=JPEG).json()
    assert answer["model"]["version"] == "2"


@pytest.mark.parametrize("version", ["", "..", "../tiny/1", "a b", "/etc"])
def test_a_version_that_can_be_none_is_refused(client: TestClient, version: str) -> None:
    reply = client.post("/models/reload", params={"version": version})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    assert reply.json()["detail"] == f"version={version} cannot be the version of a bundle"


def test_a_reload_that_is_refused_says_why_and_the_old_model_serves(
    serve: Callable[..., TestClient], write_version: Callable[..., Path], jpeg_bytes: bytes
) -> None:
    client = serve(model=str(write_version(1)))
    reply = client.post("/models/reload?version=7")
    assert (reply.status_code, reply.json()["code"]) == (422, "model_rejected")
    assert reply.json()["detail"].startswith("no model bundle at tiny/7: ")
    assert client.get("/readyz").status_code == 200
    assert classify(client, jpeg_bytes)


def test_metrics_are_prometheus_text_or_openmetrics(client: TestClient) -> None:
    text = client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in parse_text(text.text)}
    openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in parse_openmetrics(openmetrics.text)}
    assert {"repvgg_request_duration_seconds", "repvgg_queue_depth"} <= names & families


def test_metrics_count_formats_and_failures(
    client: TestClient, registry: CollectorRegistry, draw_image: Callable[..., bytes]
) -> None:
    classify(client, draw_image(0, "WEBP"))
    client.post("/classify", content=b"junk", headers=JPEG)
    assert registry.get_sample_value("repvgg_images_total", {"format": "webp"}) == 1
    assert registry.get_sample_value("repvgg_decode_failures_total", {"reason": "undecodable_image"}) == 1


@pytest.mark.parametrize("path", ["/classify", "/invocations"])
def test_the_way_past_the_framework_s_routing_keeps_what_routing_would_say(
    client: TestClient, registry: CollectorRegistry, jpeg_bytes: bytes, path: str
) -> None:
    assert client.post(path, content=jpeg_bytes, headers=JPEG).status_code == 200
    labels = {"route": path, "code": "200"}
    assert registry.get_sample_value("repvgg_request_duration_seconds_count", labels) == 1
    reply = client.put(path, content=jpeg_bytes, headers=JPEG)
    assert (reply.status_code, reply.json()["code"]) == (405, "method_not_allowed")
    assert client.post(f"{path}/", content=jpeg_bytes, headers=JPEG).status_code == 404


def test_a_path_that_vertex_ai_names_is_vertex_ai_s(serve: Callable[..., TestClient], jpeg_bytes: bytes) -> None:
    client = serve(vertex_predict_route="/classify")
    instance = {"b64": base64.b64encode(jpeg_bytes).decode()}
    assert "predictions" in client.post("/classify", json={"instances": [instance]}).json()
    assert client.post("/invocations", content=jpeg_bytes, headers=JPEG).status_code == 200
