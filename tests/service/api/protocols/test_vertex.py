from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

# As the platform makes them when a model has none of its own.
HEALTH = "/v1/endpoints/17/deployedModels/4"
PREDICT = f"{HEALTH}:predict"


@pytest.fixture
def vertex(serve: Callable[..., TestClient]) -> TestClient:
    return serve(vertex_health_route=HEALTH, vertex_predict_route=PREDICT, max_images_per_request=3)


def instances(*images: bytes, **more: Any) -> dict[str, Any]:
    return {"instances": [{"b64": base64.b64encode(image).decode()} for image in images], **more}


def test_each_instance_has_its_own_prediction(vertex: TestClient, jpeg_bytes: bytes) -> None:
    files = [("a", ("a", jpeg_bytes)), ("b", ("b", b"junk"))]
    expected = vertex.post("/classify?top_k=2", files=files).json()["results"]
    body = vertex.post(PREDICT, json=instances(jpeg_bytes, b"junk", parameters={"top_k": 2})).json()
    assert list(body) == ["predictions"]
    for prediction, result in zip(body["predictions"], expected, strict=True):
        assert prediction == {key: result[key] for key in result if key != "filename"}


def test_when_none_has_a_prediction_it_is_a_problem(vertex: TestClient) -> None:
    reply = vertex.post(PREDICT, json=instances(b"junk"))
    assert (reply.status_code, reply.json()["code"]) == (422, "undecodable_image")


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 400, 'instances: Field required; the body is {"instances": [{"b64": "..."}]}'),
        ({"instances": []}, 400, "instances is empty"),
        ({"instances": [{"b64": "?"}]}, 400, "instances[0].b64: not valid base64"),
        ({"instances": [{"b64": ""}] * 4}, 413, "more than 3 images"),
        ({"instances": [0] * 3000}, 413, "more than 3 images"),
        (instances(b"junk", parameters={"top_k": 11}), 422, "top_k=11 is not a whole number in 1..10"),
        (instances(b"junk", parameters={"timeout_ms": "soon"}), 422, "timeout_ms=soon"),
    ],
)
def test_what_does_not_fit_is_explained(vertex: TestClient, body: Any, status: int, detail: str) -> None:
    reply = vertex.post(PREDICT, json=body)
    assert reply.status_code == status
    assert detail in reply.json()["detail"]


def test_a_parameter_in_the_query_is_not_ignored(vertex: TestClient, jpeg_bytes: bytes) -> None:
    reply = vertex.post(f"{PREDICT}?top_k=2", json=instances(jpeg_bytes))
    assert (reply.status_code, "give it in the parameters of the body" in reply.json()["detail"]) == (422, True)
    assert vertex.post(f"{PREDICT}?alt=json", json=instances(jpeg_bytes)).status_code == 200


def test_the_health_route_is_readiness_and_needs_no_key(serve: Callable[..., TestClient]) -> None:
    client = serve(vertex_health_route=HEALTH, vertex_predict_route=PREDICT, api_keys=("k",))
    assert client.get(HEALTH).json() == {"status": "ready"}
    client.app.state.lifecycle.drain()  # type: ignore[attr-defined]
    assert client.get(HEALTH).status_code == 503
    assert client.post(PREDICT, json={}).status_code == 401


def test_the_route_that_the_platform_names_wins(serve: Callable[..., TestClient], jpeg_bytes: bytes) -> None:
    client = serve(vertex_health_route="/", vertex_predict_route="/classify")
    assert client.get("/").json() == {"status": "ready"}
    assert "predictions" in client.post("/classify", json=instances(jpeg_bytes)).json()


def test_one_route_for_both_needs_a_key_for_instances_only(serve: Callable[..., TestClient]) -> None:
    client = serve(vertex_health_route="/both", vertex_predict_route="/both", api_keys=("k",))
    assert client.get("/both").json() == {"status": "ready"}
    assert client.post("/both", json={}).status_code == 401


def test_without_the_platform_there_is_no_such_route(client: TestClient) -> None:
    assert client.post(PREDICT, json={}).status_code == 404
