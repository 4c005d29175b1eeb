"""POST /feedback, of one process; of several: tests/e2e/test_feedback.py."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

if TYPE_CHECKING:
    from starlette.testclient import TestClient

PNG = {"content-type": "image/png"}


def classify(client: TestClient, *images: bytes, query: str = "", **headers: str) -> Any:
    body = {"images": [{"b64": base64.b64encode(image).decode()} for image in images]}
    reply = client.post(f"/classify{query}", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


def metric(client: TestClient, name: str) -> list[str]:
    lines = client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith(name) and not line.endswith(" 0.0")]


def test_it_is_off_unless_it_is_turned_on(client: TestClient, png_bytes: bytes) -> None:
    request_id = classify(client, png_bytes)["request_id"]
    reply = client.post("/feedback", json={"request_id": request_id, "label": "cat"})
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    assert "--feedback N" in reply.json()["detail"]
    assert client.get("/models").json()["feedback"] is False


def test_a_label_is_counted_beside_the_answer(
    serve: Callable[..., TestClient], png_bytes: bytes, jpeg_bytes: bytes
) -> None:
    client = serve(feedback=100)
    assert client.get("/models").json()["feedback"] is True
    answer = classify(client, png_bytes, b"no image", jpeg_bytes)
    best = answer["results"][2]["predictions"][0]["label"]
    feedback: dict[str, Any] = {"request_id": answer["request_id"], "index": 2, "label": best}
    reply = client.post("/feedback", json=feedback)
    assert (reply.status_code, reply.json()) == (200, {"result": "right", "predicted": best, "counted": True})
    assert client.post("/feedback", json=feedback).json()["counted"] is False
    (line,) = metric(client, "repvgg_feedback_total")
    assert line == f'repvgg_feedback_total{{label="{best}",model="tiny",result="right",version="1"}} 1.0'

    reply = client.post("/feedback", json=feedback | {"label": None})
    assert (reply.status_code, reply.json()["code"]) == (409, "feedback_given")
    reply = client.post("/feedback", json=feedback | {"index": 1})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    reply = client.post("/feedback", json=feedback | {"label": "unicorn"})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    assert "'unicorn'" in reply.json()["detail"]
    reply = client.post("/feedback", json=feedback | {"request_id": "unknown"})
    assert (reply.status_code, reply.json()["code"]) == (404, "unknown_request")


def test_an_answer_without_labels_is_judged_by_its_best(serve: Callable[..., TestClient], png_bytes: bytes) -> None:
    client = serve(feedback=100)
    best = classify(client, png_bytes)["results"][0]["predictions"][0]["label"]
    answer = classify(client, png_bytes, query="?min_score=1")
    assert answer["results"][0]["predictions"] == []
    reply = client.post("/feedback", json={"request_id": answer["request_id"], "label": best})
    assert reply.json()["result"] == "right"


def test_answers_in_other_protocols_are_remembered_by_their_header(
    serve: Callable[..., TestClient], png_bytes: bytes
) -> None:
    client = serve(feedback=100, vertex_predict_route="/predict")
    encoded = base64.b64encode(png_bytes).decode()
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded]}
    for path, body in (
        ("/v2/models/tiny/infer", {"id": "mine", "inputs": [image]}),
        ("/predict", {"instances": [{"b64": encoded}]}),
    ):
        request_id = client.post(path, json=body).headers["X-Request-ID"]
        reply = client.post("/feedback", json={"request_id": request_id, "label": None})
        assert (reply.status_code, reply.json()["result"]) == (200, "foreign"), path


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "body: Invalid JSON"),
        (b"{}", "request_id: Field required"),
        (b'{"request_id": "r"}', "label: Field required"),
        (b'{"request_id": "r", "label": "cat", "index": -1}', "index: Input should be greater than or equal to 0"),
        (b'{"request_id": "r", "label": "cat", "index": true}', "index: Input should be a valid integer"),
        (b'{"request_id": "r", "label": 3}', "label: Input should be a valid string"),
        (b'{"request_id": "r", "label": "cat", "lable": "dog"}', "lable: Extra inputs are not permitted"),
        (b"[" * 5000, "body: "),
    ],
)
def test_a_body_that_cannot_be_read_is_explained(serve: Callable[..., TestClient], body: bytes, says: str) -> None:
    reply = serve(feedback=10).post("/feedback", content=body)
    assert (reply.status_code, reply.json()["code"]) == (400, "malformed_request")
    assert reply.json()["detail"].startswith(says)


def test_a_large_body_is_not_read(serve: Callable[..., TestClient]) -> None:
    reply = serve(feedback=10).post("/feedback", content=b" " * 10_000)
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


def test_without_keys_only_callers_on_this_machine_may_and_with_keys_those_who_have_one(
    serve: Callable[..., TestClient], png_bytes: bytes
) -> None:
    feedback = {"request_id": "r", "label": "cat"}
    client = serve(feedback=10)
    for headers in ({"Host": "repvgg.example.com"}, {"Origin": "http://evil.example.com"}, {"Via": "1.1 x"}):
        reply = client.post("/feedback", json=feedback, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
        assert "give feedback" in reply.json()["detail"]
    assert metric(client, "repvgg_reloads_refused_total") == []


def test_with_keys_a_key_is_needed(serve: Callable[..., TestClient], png_bytes: bytes) -> None:
    client = serve(feedback=10, api_keys=(SecretStr("k"),))
    request_id = classify(client, png_bytes, **{"X-API-Key": "k"})["request_id"]
    feedback = {"request_id": request_id, "label": None}
    assert client.post("/feedback", json=feedback).status_code == 401
    named = {"X-API-Key": "k", "Host": "repvgg.example.com"}
    assert client.post("/feedback", json=feedback, headers=named).status_code == 200
