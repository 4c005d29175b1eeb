"""`explain`, `embedding`, `labels` and `priors`, on the shipped network and ONNX Runtime."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from models.explanation.head import Head, read_head
from models.preprocess import preprocess
from models.store import STORE, Bundle, open_bundle
from service.app import create_app
from service.settings import Settings

SAMPLES = STORE.parent / "samples"
CAT = (SAMPLES / "cat.jpg").read_bytes()
JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle("repvgg-tiny-cifar10")


@pytest.fixture(scope="module", params=["fp32", "int8"])
def explaining(request: pytest.FixtureRequest, wait_until: Callable[..., None]) -> Iterator[tuple[TestClient, str]]:
    """A client, and the precision that serves it."""
    if request.param == "int8":
        request.getfixturevalue("int8_instructions")
    settings = Settings(model="repvgg-tiny-cifar10", engine="onnxruntime", precision=request.param, cache_bytes=1 << 20)
    with TestClient(create_app(settings, registry=CollectorRegistry()), "http://localhost") as client:
        wait_until(lambda: client.get("/startupz").status_code == 200)
        yield client, request.param


def ask(client: TestClient, query: str = "", image: bytes = CAT) -> Any:
    reply = client.post(f"/classify{query}", content=image, headers=JPEG)
    assert reply.status_code == 200, reply.text
    return reply.json()["results"][0]


def refusal(client: TestClient, query: str) -> str:
    reply = client.post(f"/classify{query}", content=CAT, headers=JPEG)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_parameter")
    detail: str = reply.json()["detail"]
    return detail


def head_of(bundle: Bundle, precision: Any) -> Head:
    head = read_head(bundle, bundle.artifact(["onnx"], precision))
    assert head is not None
    return head


def vector(embedding: dict[str, Any]) -> Any:
    assert (embedding["dtype"], embedding["shape"]) == ("float32", [256])
    return np.frombuffer(base64.b64decode(embedding["b64"]), "<f4")


def test_each_label_has_a_grid_that_adds_up_to_its_logit(explaining: tuple[TestClient, str], shipped: Bundle) -> None:
    client, precision = explaining
    predictions = ask(client, "?explain=cam&top_k=10")["predictions"]
    logits = {one["class_id"]: one["cam"]["logit"] for one in predictions}
    for one in predictions:
        cam = one["cam"]
        assert np.shape(cam["grid"]) == (4, 4)
        assert np.sum(cam["grid"]) + cam["bias"] == pytest.approx(cam["logit"], abs=1e-4)
        if precision == "fp32":
            assert cam["bias"] == pytest.approx(head_of(shipped, precision).bias[one["class_id"]], abs=1e-4)
    scores = np.exp([logits[one["class_id"]] / shipped.manifest.temperature for one in predictions])
    np.testing.assert_allclose([one["score"] for one in predictions], scores / scores.sum(), atol=1e-6)


def test_the_bias_of_the_best_labels_in_int8_holds_little_rounding(
    explaining: tuple[TestClient, str], shipped: Bundle
) -> None:
    client, precision = explaining
    for cam, class_id in ((one["cam"], one["class_id"]) for one in ask(client, "?explain=cam&top_k=2")["predictions"]):
        assert cam["bias"] == pytest.approx(head_of(shipped, precision).bias[class_id], abs=0.06)


def test_the_embedding_is_what_the_matrix_turns_into_logits(
    explaining: tuple[TestClient, str], shipped: Bundle
) -> None:
    client, precision = explaining
    result = ask(client, "?embedding=true&explain=cam&top_k=1")
    head, (best,) = head_of(shipped, precision), result["predictions"]
    found = head.weight[best["class_id"]] @ vector(result["embedding"]) + head.bias[best["class_id"]]
    assert found == pytest.approx(best["cam"]["logit"], abs=1e-4 if precision == "fp32" else 0.06)
    assert result["embedding"]["normalized"] is False
    assert "cam" not in ask(client, "?embedding=true")["predictions"][0]


def test_an_embedding_may_be_a_list_and_of_length_1(explaining: tuple[TestClient, str]) -> None:
    client, _ = explaining
    plain = vector(ask(client, "?embedding=true")["embedding"])
    listed = ask(client, "?embedding=list&normalize=true")["embedding"]
    assert "b64" not in listed
    assert listed["normalized"] is True
    np.testing.assert_allclose(listed["values"], plain / np.linalg.norm(plain), rtol=1e-5)


def test_the_box_is_what_the_network_saw_of_the_upright_photo(explaining: tuple[TestClient, str]) -> None:
    client, _ = explaining
    photo, encoded = Image.new("RGB", (300, 200), "red"), BytesIO()
    exif = photo.getexif()
    exif[0x0112] = 6  # on its side: 200 x 300 for a person
    photo.save(encoded, "JPEG", exif=exif)
    assert ask(client, "?explain=cam", encoded.getvalue())["predictions"][0]["cam"]["box"] == [0.0, 50.0, 200.0, 250.0]


def test_without_parameters_the_answer_is_what_it_was(explaining: tuple[TestClient, str]) -> None:
    client, _ = explaining
    result = ask(client)
    assert list(result) == ["index", "predictions", "confident"]
    assert all(list(one) == ["label", "class_id", "score"] for one in result["predictions"])
    ask(client, "?explain=cam")
    assert ask(client) == result


def test_labels_restrict_the_answer_and_keep_the_odds(explaining: tuple[TestClient, str]) -> None:
    client, _ = explaining
    whole = {one["label"]: one["score"] for one in ask(client, "?top_k=10")["predictions"]}
    some = ask(client, "?labels=ship,dog,%20cat")["predictions"]
    assert [one["label"] for one in some] == sorted(("ship", "dog", "cat"), key=lambda label: -whole[label])
    assert sum(one["score"] for one in some) == pytest.approx(1)
    odds = some[0]["score"] / some[1]["score"]
    assert odds == pytest.approx(whole[some[0]["label"]] / whole[some[1]["label"]])


def test_priors_apply_bayes_rule(explaining: tuple[TestClient, str]) -> None:
    client, _ = explaining
    whole = {one["label"]: one["score"] for one in ask(client, "?top_k=10")["predictions"]}
    priors = {"dog": 0.55, "cat": 0.05}  # the other eight share 0.4
    body = {"images": [{"b64": base64.b64encode(CAT).decode()}], "priors": priors}
    found = client.post("/classify?top_k=10", json=body).json()["results"][0]["predictions"]
    expected = {label: score * priors.get(label, 0.05) for label, score in whole.items()}
    for one in found:
        assert one["score"] == pytest.approx(expected[one["label"]] / sum(expected.values()))
    both = client.post("/classify?labels=dog,cat", json=body).json()["results"][0]["predictions"]
    assert sum(one["score"] for one in both) == pytest.approx(1)
    assert len(both) == 2


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?labels=cat,unicorn,gnu", "labels: the network has no unicorn, gnu; it has: airplane, automobile"),
        ("?labels=", "labels is empty"),
        ("?explain=lime", "explain=lime: the only explanation is cam"),
        ("?embedding=maybe", "embedding=maybe is not true or false, b64 (the same as true) or list"),
        ("?normalize=true", "normalize needs embedding=true"),
        ("?explian=cam", "did you mean explain?"),
        ("?label=cat", "did you mean labels?"),
    ],
)
def test_what_cannot_be_asked_is_named(explaining: tuple[TestClient, str], query: str, says: str) -> None:
    assert says in refusal(explaining[0], query)


@pytest.mark.parametrize(
    ("priors", "says"),
    [
        ({"unicorn": 0.5}, "priors: the network has no unicorn"),
        ({"cat": 1.5}, "priors: cat has 1.5"),
        ({"cat": 0.9, "dog": 0.3}, "priors add up to 1.2"),
        ({"cat": 0.0}, "priors are 0 for every label that could be returned"),
    ],
)
def test_priors_that_are_none_are_named(
    explaining: tuple[TestClient, str], priors: dict[str, float], says: str
) -> None:
    body = {"images": [{"b64": base64.b64encode(CAT).decode()}], "priors": priors}
    reply = explaining[0].post("/classify?labels=cat" if priors == {"cat": 0.0} else "/classify", json=body)
    assert reply.status_code == 422
    assert says in reply.json()["detail"]


def test_an_engine_without_features_says_so(client: TestClient) -> None:
    assert client.get("/models").json()["explanations"] is False
    assert "explain: fake fp32 has no features of tiny 1" in refusal(client, "?explain=cam")
    assert len(ask(client, "?labels=cat,dog")["predictions"]) == 2


def test_v2_gives_the_same_as_outputs(explaining: tuple[TestClient, str], shipped: Bundle) -> None:
    client, _ = explaining
    model = "/v2/models/repvgg-tiny-cifar10"
    names = [tensor["name"] for tensor in client.get(model).json()["outputs"]]
    assert names == ["label", "class_id", "score", "cam", "bias", "logit", "box", "embedding", "confident", "set"]
    rest = ask(client, "?explain=cam&embedding=list&top_k=2&labels=cat,dog,ship")
    image = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [base64.b64encode(CAT).decode()] * 2}
    body = {
        "inputs": [image],
        "parameters": {"top_k": 2, "labels": "cat,dog,ship"},
        "outputs": [{"name": name} for name in names if name != "set"],
    }
    reply = client.post(f"{model}/infer", json=body)
    assert reply.status_code == 200, reply.text
    outputs = {one["name"]: one for one in reply.json()["outputs"]}
    assert {name: outputs[name]["shape"] for name in names[2:-1]} == {
        **{"score": [2, 2], "cam": [2, 2, 4, 4], "bias": [2, 2], "logit": [2, 2], "box": [2, 4], "embedding": [2, 256]},
        "confident": [2],
    }
    cam = np.reshape(outputs["cam"]["data"], (2, 2, 4, 4))
    np.testing.assert_allclose(cam[1], [one["cam"]["grid"] for one in rest["predictions"]], atol=1e-5)
    np.testing.assert_allclose(outputs["embedding"]["data"][256:], rest["embedding"]["values"], rtol=1e-5)
    tensor = preprocess(CAT, shipped.manifest.preprocess)
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": tensor.ravel().tolist()}
    reply = client.post(f"{model}/infer", json={"inputs": [pixels], "outputs": [{"name": "box"}]})
    assert reply.json()["outputs"][0]["data"] == [0, 0, 32, 32]


def test_v2_takes_priors_as_text(explaining: tuple[TestClient, str]) -> None:
    client, _ = explaining
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(CAT).decode()]}
    body = {"inputs": [image], "parameters": {"priors": json.dumps({"frog": 1.0}), "top_k": 1}}
    reply = client.post("/v2/models/repvgg-tiny-cifar10/infer", json=body).json()
    assert [one["data"] for one in reply["outputs"]] == [["frog"], [6], [1.0]]
    body["parameters"] = {"priors": "frog"}
    reply = client.post("/v2/models/repvgg-tiny-cifar10/infer", json=body)
    assert "priors is not an object" in reply.json()["detail"]
