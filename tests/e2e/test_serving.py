"""Valid requests over a real socket: every kind of body, persistent connections, concurrent clients."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from models import golden
from models.preprocess import preprocess
from models.scores.topk import softmax, top_k
from models.store import open_bundle

if TYPE_CHECKING:
    from conftest import Server

GOLDEN_IMAGES = 3


@pytest.fixture(scope="session")
def truth(tiny_bundle: Path) -> list[tuple[bytes, list[dict[str, Any]]]]:
    """The golden images, and the predictions that follow from the training framework's logits."""
    bundle = open_bundle(tiny_bundle)
    _, logits = golden.load(bundle)
    images = [(tiny_bundle / "golden" / f"{number}.png").read_bytes() for number in range(GOLDEN_IMAGES)]
    return [
        (image, [prediction._asdict() for prediction in top_k(softmax(row), bundle.labels, 5)])
        for image, row in zip(images, logits, strict=True)
    ]


def is_right(predictions: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """The same labels, and scores within the golden tolerance."""
    same = [p["label"] for p in predictions] == [e["label"] for e in expected]
    return same and [p["score"] for p in predictions] == pytest.approx([e["score"] for e in expected], abs=1e-4)


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream"])
def test_a_raw_image(http: httpx.Client, truth: Any, content_type: str) -> None:
    image, expected = truth[0]
    reply = http.post("/classify", content=image, headers={"content-type": content_type})
    assert reply.status_code == 200
    assert reply.json()["model"] == {"name": "tiny", "version": "1", "engine": "onnxruntime", "precision": "fp32"}
    assert is_right(reply.json()["results"][0]["predictions"], expected)
    assert "server" not in reply.headers


def test_a_form_of_several_images(http: httpx.Client, truth: Any) -> None:
    files = [(f"field{number}", (f"{number}.png", image)) for number, (image, _) in enumerate(truth)]
    results = http.post("/classify", files=files, data={"comment": "hello"}).json()["results"]
    assert [result["filename"] for result in results] == ["0.png", "1.png", "2.png"]
    assert all(is_right(result["predictions"], expected) for result, (_, expected) in zip(results, truth, strict=True))


def test_json_with_base64_and_data_uris(http: httpx.Client, truth: Any) -> None:
    texts = [base64.b64encode(image).decode() for image, _ in truth]
    body = {"images": [{"b64": texts[0]}, {"b64": f"data:image/png;base64,{texts[1]}"}, {"b64": texts[2]}]}
    results = http.post("/classify", json=body).json()["results"]
    assert all(is_right(result["predictions"], expected) for result, (_, expected) in zip(results, truth, strict=True))


def test_a_chunked_body(http: httpx.Client, truth: Any) -> None:
    image, expected = truth[1]
    pieces = (image[start : start + 100] for start in range(0, len(image), 100))
    reply = http.post("/classify", content=pieces, headers={"content-type": "image/png"})
    assert "content-length" not in reply.request.headers
    assert is_right(reply.json()["results"][0]["predictions"], expected)


def test_a_connection_stays_open_after_responses_and_problems(server: Server, truth: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.connect()
    sock = connection.sock
    statuses = []
    for path, body in [
        ("/classify", truth[0][0]),
        ("/nope", b"x" * 500_000),
        ("/classify?top_k=0", b"x"),
        ("/classify", truth[1][0]),
    ]:
        connection.request("POST", path, body, {"Content-Type": "image/png"})
        reply = connection.getresponse()
        reply.read()
        statuses.append(reply.status)
        assert connection.sock is sock
    connection.close()
    assert statuses == [200, 404, 422, 200]


def test_many_concurrent_clients_each_get_their_own_response(server: Server, truth: Any) -> None:
    def ask(number: int) -> bool:
        image, expected = truth[number % GOLDEN_IMAGES]
        reply = httpx.post(f"{server.url}/classify", content=image, headers={"content-type": "image/png"}, timeout=120)
        return reply.status_code == 200 and is_right(reply.json()["results"][0]["predictions"], expected)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(64)))


def test_probes_metrics_and_models(http: httpx.Client) -> None:
    assert http.get("/readyz?verbose").json()["checks"]["golden"] == "ok"
    for path in ("/livez", "/healthz", "/startupz"):
        assert http.get(path).status_code == 200
    assert 'repvgg_model_info{engine="onnxruntime",name="tiny"' in http.get("/metrics").text
    model = http.get("/models").json()
    assert model["speed"]["images_per_second"] > 0
    assert (model["device"], model["choice"]["reason"]) == ("CPUExecutionProvider", "the only one possible")
    assert [(one["engine"], one["precision"]) for one in model["choice"]["candidates"]] == [("onnxruntime", "fp32")]


def test_fast_pixels_where_the_manifest_allows_them(
    start: Callable[..., Server], fast_bundle: Path, large_photo: bytes
) -> None:
    from onnx.reference import ReferenceEvaluator

    code, err = start(environ={"REPVGG_PIXELS": "fast"}).wait()
    assert (code, "the manifest gives no accuracy of fast pixels" in err) == (78, True)
    server = start("--model", fast_bundle, environ={"REPVGG_PIXELS": "fast"}).wait_until_serving()
    assert httpx.get(f"{server.url}/models").json()["pixels"] == "fast"
    reply = httpx.post(f"{server.url}/classify", content=large_photo, headers={"content-type": "image/jpeg"})
    bundle = open_bundle(fast_bundle)
    tensor = preprocess(large_photo, bundle.manifest.preprocess, pixels="fast")
    (logits,) = ReferenceEvaluator(str(fast_bundle / "tiny.onnx")).run(None, {"image": tensor[None]})
    expected = [prediction._asdict() for prediction in top_k(softmax(logits[0]), bundle.labels, 5)]
    assert is_right(reply.json()["results"][0]["predictions"], expected)


def test_each_request_is_one_json_log_line(start: Callable[..., Server], truth: Any) -> None:
    server = start().wait_until_serving()
    httpx.post(
        f"{server.url}/classify", content=truth[0][0], headers={"content-type": "image/png", "x-request-id": "r9"}
    )
    line = server.wait_for_line("POST /classify 200")
    assert (line["request_id"], line["status"], line["images"]) == ("r9", 200, 1)
    assert json.dumps(line).count("\n") == 0


def test_a_client_that_disconnects_while_sending_is_counted(
    server: Server, http: httpx.Client, wait_until: Callable[..., None]
) -> None:
    def left() -> float:
        lines = http.get("/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith('repvgg_requests_cancelled_total{stage="read"}')]
        return float(line.split()[-1])

    before = left()
    connection = http_client_with_half_a_body(server)
    connection.close()
    wait_until(lambda: left() == before + 1)


def http_client_with_half_a_body(server: Server) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.putrequest("POST", "/classify")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"x" * 500)
    return connection


def test_a_slow_upload_ends_at_its_deadline(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.putrequest("POST", "/classify?timeout_ms=50")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"x" * 500)
    reply = connection.getresponse()
    assert reply.status == 504
    assert json.loads(reply.read())["detail"] == "the body did not arrive within the deadline of 50 ms"
    connection.close()
