"""What a client that is not Triton's may send; that one is in tests/e2e/clients/test_triton_client.py."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.preprocess import preprocess
from models.store import open_bundle
from service.api.protocols.v2 import JSON_LENGTH, MAX_JSON_BYTES
from service.api.schemas import Problem
from service.app import create_app
from service.engines.runtimes.fake import FakeEngine
from service.observe.metrics import STAGES
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.testclient import TestClient

INFER = "/v2/models/tiny/infer"


def image_request(*images: bytes, **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}], **more}


def outputs(reply: Any) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    return {output["name"]: output for output in reply.json()["outputs"]}


def problem(reply: Any) -> tuple[int, str, str]:
    """Every error body is a problem document that also carries `error`."""
    body = Problem.model_validate(reply.json())
    assert reply.headers["content-type"] == "application/problem+json"
    assert (body.error, body.status) == (body.detail, reply.status_code)
    return body.status, body.code, body.detail


@pytest.fixture
def predictions(client: TestClient, jpeg_bytes: bytes, png_bytes: bytes) -> list[list[dict[str, Any]]]:
    """What /classify says of the same images."""
    results = client.post("/classify", files=[("a", ("a", jpeg_bytes)), ("b", ("b", png_bytes))]).json()["results"]
    return [result["predictions"] for result in results]


def test_the_answer_is_that_of_classify(
    client: TestClient, jpeg_bytes: bytes, png_bytes: bytes, predictions: list[list[dict[str, Any]]]
) -> None:
    reply = client.post(INFER, json=image_request(jpeg_bytes, png_bytes, id="r-7"))
    body = reply.json()
    assert {key: body[key] for key in body if key != "outputs"} == {
        "model_name": "tiny",
        "model_version": "1",
        "id": "r-7",
    }
    found = outputs(reply)
    for name, datatype in {"label": "BYTES", "class_id": "INT64", "score": "FP32"}.items():
        assert (found[name]["datatype"], found[name]["shape"]) == (datatype, [2, 5])
        expected = [prediction[name] for row in predictions for prediction in row]
        assert found[name]["data"] == (pytest.approx(expected) if name == "score" else expected)
    assert "x-request-id" in reply.headers
    assert "infer;dur=" in reply.headers["server-timing"]


def test_pixels_are_not_preprocessed_again(
    client: TestClient, tiny_bundle: Path, jpeg_bytes: bytes, png_bytes: bytes, registry: CollectorRegistry
) -> None:
    spec = open_bundle(tiny_bundle).manifest.preprocess
    tensor = np.stack([preprocess(image, spec) for image in (jpeg_bytes, png_bytes)])
    body = {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [2, 3, 32, 32], "data": tensor.tolist()}]}
    pixels, images = client.post(INFER, json=body), client.post(INFER, json=image_request(jpeg_bytes, png_bytes))
    assert outputs(pixels) == outputs(images)
    assert registry.get_sample_value("repvgg_images_total", {"format": "tensor"}) == 2


def test_json_and_binary_outputs_may_be_mixed(client: TestClient, jpeg_bytes: bytes) -> None:
    wanted = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}]
    reply = client.post(INFER, json=image_request(jpeg_bytes, outputs=wanted, parameters={"top_k": 2}))
    length = int(reply.headers[JSON_LENGTH])
    score, label = json.loads(reply.content[:length])["outputs"]
    assert (score["parameters"], "data" in score) == ({"binary_data_size": 8}, False)
    assert np.frombuffer(reply.content[length:], "<f4").shape == (2,)
    assert ("parameters" in label, len(label["data"])) == (False, 2)


def test_one_output_may_overrule_what_the_request_says_of_all(client: TestClient, jpeg_bytes: bytes) -> None:
    wanted = [{"name": "score"}, {"name": "label", "parameters": {"binary_data": False}}]
    body = image_request(jpeg_bytes, outputs=wanted, parameters={"binary_data_output": True})
    reply = client.post(INFER, json=body)
    score, label = json.loads(reply.content[: int(reply.headers[JSON_LENGTH])])["outputs"]
    assert ("data" in score, "data" in label) == (False, True)


def test_a_classification_is_score_class_id_and_label_in_one_text(
    client: TestClient, jpeg_bytes: bytes, predictions: list[list[dict[str, Any]]]
) -> None:
    wanted = [{"name": "score", "parameters": {"classification": 3}}, {"name": "label"}]
    found = outputs(client.post(INFER, json=image_request(jpeg_bytes, outputs=wanted, parameters={"top_k": 1})))
    assert found["label"]["shape"] == [1, 1]
    assert (found["score"]["datatype"], found["score"]["shape"]) == ("BYTES", [1, 3])
    assert found["score"]["data"] == [f"{p['score']:f}:{p['class_id']}:{p['label']}" for p in predictions[0][:3]]


def test_a_bad_image_fails_the_whole_request_and_is_named(client: TestClient, jpeg_bytes: bytes) -> None:
    reply = client.post(INFER, json=image_request(jpeg_bytes, b"junk", jpeg_bytes, b"junk"))
    status, code, detail = problem(reply)
    assert (status, code, reply.json()["index"]) == (422, "undecodable_image", 1)
    assert detail.startswith("image 1: not a readable image")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"outputs": [{"name": "logits"}]}, "the outputs are label, class_id, score, each at most once"),
        ({"outputs": [{"name": "label"}, {"name": "label"}]}, "each at most once"),
        ({"outputs": [{"name": "label", "parameters": {"classification": 2}}]}, "a parameter of the output score"),
        (
            {"outputs": [{"name": "label", "parameters": {"shared_memory_region": "r"}}]},
            "shared memory is not supported",
        ),
        ({"inputs": []}, "send one input, image or pixels"),
        ({"inputs": [{"name": "image"}]}, "inputs[0].datatype: Field required; the body is"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}]}, "inputs[0].shape[0]: "),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1.5]}]}, "inputs[0].shape[0]: "),
        ({"id": 5}, "id: "),
        ({"inputs": [{"name": "x" * 101, "datatype": "BYTES", "shape": [1]}]}, "inputs[0].name: "),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1] * 9}]}, "inputs[0].shape: "),
        ({"outputs": [{"name": "label"}] * 17}, "outputs: "),
    ],
)
def test_a_request_that_does_not_fit_says_what_does(
    client: TestClient, jpeg_bytes: bytes, change: dict[str, Any], detail: str
) -> None:
    status, code, told = problem(client.post(INFER, json=image_request(jpeg_bytes) | change))
    assert (status, code) == (400, "malformed_request")
    assert detail in told


@pytest.mark.parametrize(
    "parameters",
    [
        *({"top_k": value} for value in (0, 11, -1, "x", 1.5, True, [1], 10**4000)),
        *({"timeout": value} for value in (-1, "5", 1.5, True, None, -(10**4000))),
    ],
)
def test_a_wrong_parameter_names_itself(client: TestClient, jpeg_bytes: bytes, parameters: dict[str, Any]) -> None:
    status, code, detail = problem(client.post(INFER, json=image_request(jpeg_bytes, parameters=parameters)))
    assert (status, code) == (422, "invalid_parameter")
    assert detail.startswith(f"{next(iter(parameters))}=")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("top_k=3", "top_k is not a query parameter here: give it in the parameters of the body"),
        ("topk=3", "there is no parameter topk; did you mean top_k?"),
        ("trace=1&labels=x", "labels is not a query parameter here"),
    ],
)
def test_a_parameter_in_the_query_is_not_ignored(client: TestClient, jpeg_bytes: bytes, query: str, named: str) -> None:
    status, code, detail = problem(client.post(f"{INFER}?{query}", json=image_request(jpeg_bytes)))
    assert (status, code) == (422, "invalid_parameter")
    assert detail.startswith(named)
    assert client.post(f"{INFER}?utm_source=3&_=1", json=image_request(jpeg_bytes)).status_code == 200


def test_parameters_that_we_do_not_know_are_ignored(client: TestClient, jpeg_bytes: bytes) -> None:
    reply = client.post(INFER, json=image_request(jpeg_bytes, parameters={"priority": 1, "timeout": 0, "mine": {}}))
    assert outputs(reply)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"inputs":' + b"[" * 5000])
def test_what_is_no_json_of_the_protocol_is_malformed(client: TestClient, body: bytes) -> None:
    assert problem(client.post(INFER, content=body))[:2] == (400, "malformed_request")


@pytest.mark.parametrize("length", ["9" * 5000, "3000000000", "-1", "1e2", "", "12,12"])
def test_a_wrong_length_of_the_json_is_malformed(client: TestClient, jpeg_bytes: bytes, length: str) -> None:
    reply = client.post(INFER, json=image_request(jpeg_bytes), headers={JSON_LENGTH: length})
    assert problem(reply)[0] == 400
    assert JSON_LENGTH in reply.json()["detail"]


def test_more_json_than_the_event_loop_bears_has_to_come_as_binary(client: TestClient) -> None:
    status, code, detail = problem(client.post(INFER, content=b" " * (MAX_JSON_BYTES + 1)))
    assert (status, code) == (413, "body_too_large")
    assert "send binary tensors" in detail


def test_the_body_has_the_limit_of_every_body_packed_or_not(serve: Callable[..., TestClient]) -> None:
    client = serve(max_body_bytes=2000)
    assert problem(client.post(INFER, content=bytes(2001)))[:2] == (413, "body_too_large")


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/infer"])
@pytest.mark.parametrize("model", ["other", "tiny/versions/2", "other/versions/1"])
def test_another_model_or_version_is_not_found(client: TestClient, model: str, path: str) -> None:
    method = "POST" if path == "/infer" else "GET"
    status, code, detail = problem(client.request(method, f"/v2/models/{model}{path}"))
    assert (status, code) == (404, "not_found")
    assert detail.endswith("is not served here, but tiny version 1 is")


def test_errors_of_the_framework_carry_error_too(serve: Callable[..., TestClient]) -> None:
    client = serve(api_keys=("k",))
    assert problem(client.get("/v2/models/tiny"))[:2] == (401, "unauthorized")
    key = {"X-API-Key": "k"}
    assert problem(client.get("/v2/nothing", headers=key))[:2] == (404, "not_found")
    assert problem(client.get(INFER, headers=key))[:2] == (405, "method_not_allowed")
    assert "error" not in client.get("/nothing", headers=key).json()


def test_before_the_model_is_open_only_the_server_is_there(serve: Callable[..., TestClient], jpeg_bytes: bytes) -> None:
    gate = threading.Event()
    client = serve(FakeEngine(10, 32, gate=gate), wait=False)
    assert client.get("/v2").status_code == client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/ready"):
        assert problem(client.get(path))[:2] == (503, "not_ready")
    assert problem(client.post(INFER, json=image_request(jpeg_bytes)))[:2] == (503, "not_ready")
    gate.set()


def test_the_timeout_is_in_microseconds(serve: Callable[..., TestClient], jpeg_bytes: bytes) -> None:
    gate = threading.Event()
    gate.set()
    client = serve(FakeEngine(10, 32, gate=gate))
    gate.clear()
    reply = client.post(INFER, json=image_request(jpeg_bytes, parameters={"timeout": 50_000}))
    gate.set()
    assert problem(reply)[:2] == (504, "deadline_exceeded")


def test_an_overloaded_server_says_when_to_come_back(serve: Callable[..., TestClient], jpeg_bytes: bytes) -> None:
    gate = threading.Event()
    gate.set()
    client = serve(FakeEngine(10, 32, gate=gate), max_queue_bytes=1)
    gate.clear()
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [0] * 3072}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, INFER, json={"inputs": [pixels]})
        while 'repvgg_engine_slots{state="busy"} 1.0' not in client.get("/metrics").text:
            time.sleep(0.01)
        replies = [client.post(INFER, json=body) for body in (image_request(jpeg_bytes), {"inputs": [pixels]})]
        gate.set()
        assert first.result().status_code == 200
    for reply in replies:
        assert problem(reply)[:2] == (503, "overloaded")
        assert int(reply.headers["retry-after"]) >= 1


def test_kept_answers_are_marked_as_those_of_classify(serve: Callable[..., TestClient], jpeg_bytes: bytes) -> None:
    client = serve(cache_bytes=1 << 20)
    told = [client.post(INFER, json=image_request(jpeg_bytes)).headers["cache-status"] for _ in range(2)]
    assert told == ["repvgg; fwd=miss", "repvgg; hit"]


def test_a_client_that_leaves_cancels_its_images(
    tiny_bundle: Path, registry: CollectorRegistry, jpeg_bytes: bytes
) -> None:
    async def scenario() -> list[Any]:
        gate = threading.Event()
        gate.set()
        app = create_app(Settings(model=str(tiny_bundle)), engine=FakeEngine(10, 32, gate=gate), registry=registry)
        sent: list[Any] = []
        body = {"type": "http.request", "body": json.dumps(image_request(jpeg_bytes)).encode()}
        messages = iter([body, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.state.lifecycle.running():
            await app.state.lifecycle.opened.wait()
            gate.clear()
            await app(
                {"type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b""}, receive, send
            )
            gate.set()
        return sent

    assert asyncio.run(scenario()) == []
    cancelled = [registry.get_sample_value("repvgg_requests_cancelled_total", {"stage": stage}) for stage in STAGES]
    assert sum(count or 0 for count in cancelled) == 1


def test_requests_are_counted_under_the_template_of_their_route(
    client: TestClient, registry: CollectorRegistry, jpeg_bytes: bytes
) -> None:
    client.post(INFER, json=image_request(jpeg_bytes))
    client.post("/v2/models/other/infer", json={})
    for code in ("200", "404"):
        labels = {"route": "/v2/models/{name}/infer", "code": code}
        assert registry.get_sample_value("repvgg_request_duration_seconds_count", labels) == 1


def test_the_example_of_the_documentation_works(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    body = paths["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert outputs(client.post(INFER, json=body))


def test_the_trailing_slash_of_the_published_document_is_taken(client: TestClient) -> None:
    assert client.get("/v2/").json() == client.get("/v2").json()
