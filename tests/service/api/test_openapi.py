from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from service.api.problems import CODES
from service.api.reading.payloads import READERS
from service.api.routes import CLASSIFY_PARAMETERS
from service.api.schemas import Answer, ClassifyRequest, Problem

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    body: dict[str, Any] = client.get("/openapi.json").json()
    return body


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        name = re.fullmatch("#/components/schemas/(.+)", reference)
        assert name is not None
        assert name[1] in document["components"]["schemas"]


def test_the_bodies_are_those_that_are_read(document: dict[str, Any]) -> None:
    content = document["paths"]["/classify"]["post"]["requestBody"]["content"]
    assert set(content) == set(READERS)


def test_the_problems_are_those_of_the_table(document: dict[str, Any]) -> None:
    responses = document["paths"]["/classify"]["post"]["responses"]
    elsewhere = {"not_found", "method_not_allowed", "reload_running", "forbidden", "unknown_request", "feedback_given"}
    assert set(responses) == {"200"} | {str(status) for code, (status, _) in CODES.items() if code not in elsewhere}
    assert all("application/problem+json" in responses[status]["content"] for status in responses if status != "200")


def test_the_examples_are_valid(document: dict[str, Any]) -> None:
    post = document["paths"]["/classify"]["post"]
    Answer.model_validate(post["responses"]["200"]["content"]["application/json"]["example"])
    for status, response in post["responses"].items():
        if status != "200":
            problem = Problem.model_validate(response["content"]["application/problem+json"]["example"])
            assert CODES[problem.code] == (int(status), problem.title)
    ClassifyRequest.model_validate(post["requestBody"]["content"]["application/json"]["example"])


def test_the_example_of_a_json_body_works(client: TestClient, document: dict[str, Any]) -> None:
    content = document["paths"]["/classify"]["post"]["requestBody"]["content"]
    assert client.post("/classify", json=content["application/json"]["example"]).status_code == 200


def test_the_query_is_described(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/classify"]["post"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == set(CLASSIFY_PARAMETERS)


def test_every_path_is_there(document: dict[str, Any]) -> None:
    expected = {
        "/classify",
        "/models",
        "/models/reload",
        "/feedback",
        "/metrics",
        "/livez",
        "/healthz",
        "/readyz",
        "/startupz",
        "/ping",
    }
    model = "/v2/models/{name}"
    for path in (model, f"{model}/versions/{{version}}"):
        expected |= {path, f"{path}/ready", f"{path}/config", f"{path}/infer"}
    expected |= {"/v2", "/v2/health/live", "/v2/health/ready"}
    assert set(document["paths"]) == expected


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
