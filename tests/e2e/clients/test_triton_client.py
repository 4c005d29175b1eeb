"""The real `tritonclient` from the package index, unchanged, against the real server."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.preprocess import preprocess
from models.store import open_bundle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of gevent and of the client itself
    from tritonclient import http as triton
    from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from conftest import Server

COMPRESSION = [None, "gzip", "deflate"]


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=120.0) as client:
        yield client


@pytest.fixture(scope="session")
def images(draw_image: Callable[..., bytes]) -> list[bytes]:
    return [draw_image(seed) for seed in range(3)]


@pytest.fixture
def expected(http: Any, images: list[bytes]) -> list[list[dict[str, Any]]]:
    """The top three of each, from /classify."""
    files = [("image", (str(index), image)) for index, image in enumerate(images)]
    results = http.post("/classify?top_k=3", files=files).json()["results"]
    return [result["predictions"] for result in results]


@pytest.fixture(scope="session")
def pixels(tiny_bundle: Any, images: list[bytes]) -> Any:
    spec = open_bundle(tiny_bundle).manifest.preprocess
    return np.stack([preprocess(image, spec) for image in images])


def encoded(images: list[bytes], **how: Any) -> triton.InferInput:
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    return tensor.set_data_from_numpy(np.array(images, dtype=object), **how)


def tensor_of(pixels: Any, **how: Any) -> triton.InferInput:
    return triton.InferInput("pixels", list(pixels.shape), "FP32").set_data_from_numpy(pixels, **how)


def is_right(result: triton.InferResult, expected: list[list[dict[str, Any]]]) -> bool:
    def column(name: str) -> list[list[Any]]:
        return [[prediction[name] for prediction in row] for row in expected]

    label, class_id, score = (result.as_numpy(name) for name in ("label", "class_id", "score"))
    texts = [[text if isinstance(text, str) else text.decode() for text in row] for row in label.tolist()]
    assert (class_id.dtype, score.dtype) == (np.int64, np.float32)
    assert score == pytest.approx(np.array(column("score")), abs=1e-5)
    return texts == column("label") and class_id.tolist() == column("class_id")


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status(), caught.value.message()


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == (
        "repvgg",
        ["binary_tensor_data", "classification", "model_configuration"],
    )
    model = client.get_model_metadata("tiny", "1")
    assert (model["name"], model["versions"], model["platform"]) == ("tiny", ["1"], "onnxruntime")
    assert model["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
        {"name": "pixels", "datatype": "FP32", "shape": [-1, 3, 32, 32]},
    ]
    assert [(output["name"], output["datatype"]) for output in model["outputs"]] == [
        ("label", "BYTES"),
        ("class_id", "INT64"),
        ("score", "FP32"),
    ]


def test_configuration(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("tiny")
    assert (config["name"], config["max_batch_size"]) == ("tiny", 0)
    assert config["input"][1] == {
        "name": "pixels",
        "data_type": "TYPE_FP32",
        "dims": [-1, 3, 32, 32],
        "optional": True,
    }


@pytest.mark.parametrize("packed", COMPRESSION)
@pytest.mark.parametrize("version", ["", "1"])
def test_encoded_images(client: Any, images: Any, expected: Any, version: str, packed: str | None) -> None:
    result = client.infer(
        "tiny",
        [encoded(images)],
        version,
        parameters={"top_k": 3},
        request_compression_algorithm=packed,
        response_compression_algorithm=packed,
    )
    assert is_right(result, expected)


@pytest.mark.parametrize("binary", [True, False])
def test_pixels(client: Any, pixels: Any, expected: Any, binary: bool) -> None:
    result = client.infer("tiny", [tensor_of(pixels, binary_data=binary)], parameters={"top_k": 3})
    assert is_right(result, expected)


def test_images_in_json_are_base64(client: Any, images: Any, expected: Any) -> None:
    texts = [base64.b64encode(image) for image in images]
    result = client.infer("tiny", [encoded(texts, binary_data=False)], parameters={"top_k": 3})
    assert is_right(result, expected)


def test_json_outputs(client: Any, images: Any, expected: Any) -> None:
    wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in ("label", "class_id", "score")]
    assert is_right(client.infer("tiny", [encoded(images)], outputs=wanted, parameters={"top_k": 3}), expected)


@pytest.mark.parametrize("binary", [True, False])
def test_some_outputs_only(client: Any, images: Any, binary: bool) -> None:
    wanted = [triton.InferRequestedOutput("class_id", binary_data=binary)]
    result = client.infer("tiny", [encoded(images)], outputs=wanted)
    assert result.as_numpy("class_id").shape == (3, 5)
    assert result.as_numpy("label") is None


def test_classification(client: Any, images: Any, expected: Any) -> None:
    wanted = [triton.InferRequestedOutput("score", class_count=2)]
    texts = client.infer("tiny", [encoded(images)], outputs=wanted).as_numpy("score")
    found = [[(int(text.split(b":")[1]), text.split(b":")[2].decode()) for text in row] for row in texts.tolist()]
    assert found == [[(p["class_id"], p["label"]) for p in row[:2]] for row in expected]


def test_the_request_id_is_returned(client: Any, images: Any) -> None:
    assert client.infer("tiny", [encoded(images)], request_id="mine-1").get_response()["id"] == "mine-1"
    assert "id" not in client.infer("tiny", [encoded(images)]).get_response()


def test_concurrent_requests(server: Server, images: Any, expected: Any) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as client:
        pending = [client.async_infer("tiny", [encoded(images)], parameters={"top_k": 3}) for _ in range(8)]
        assert all(is_right(request.get_result(timeout=120), expected) for request in pending)


def test_a_timeout_that_cannot_be_met(client: Any, images: Any) -> None:
    assert refusal(lambda: client.infer("tiny", [encoded(images)], timeout=1))[0] == "504"


def shortened(tensor: triton.InferInput) -> triton.InferInput:
    """The tensor with less data than its shape requires."""
    tensor._raw_data = tensor._raw_data[:-1]
    tensor._parameters["binary_data_size"] -= 1
    return tensor


def named(name: str, tensor: triton.InferInput) -> triton.InferInput:
    tensor._name = name
    return tensor


def in_shared_memory(tensor: triton.InferInput) -> triton.InferInput:
    tensor.set_shared_memory("region", 100)
    return tensor


@pytest.mark.parametrize(
    ("inputs", "status", "message"),
    [
        (lambda images, pixels: [], "400", "send one input, image or pixels, not []"),
        (lambda images, pixels: [encoded(images), tensor_of(pixels)], "400", "send one input"),
        (lambda images, pixels: [named("x", encoded(images))], "400", "image or pixels, not ['x']"),
        (lambda images, pixels: [named("pixels", encoded(images))], "400", "must be FP32 [-1, 3, 32, 32], not BYTES"),
        (lambda images, pixels: [tensor_of(pixels[:, :, :16])], "400", "not FP32 [3, 3, 16, 32]"),
        (lambda images, pixels: [encoded(images).set_shape([10**15])], "413", "more than 64 images"),
        (lambda images, pixels: [encoded(images).set_shape([4])], "400", "ends after 3 of 4 elements"),
        (lambda images, pixels: [tensor_of(pixels).set_shape([4, 3, 32, 32])], "400", "takes 49152 bytes, not 36864"),
        (lambda images, pixels: [shortened(tensor_of(pixels))], "400", "takes 36864 bytes, not 36863"),
        (lambda images, pixels: [shortened(encoded(images))], "400", "element 2 says"),
        (lambda images, pixels: [in_shared_memory(encoded(images))], "400", "shared memory is not supported"),
        (lambda images, pixels: [tensor_of(pixels * np.inf)], "400", "not finite"),
        (lambda images, pixels: [encoded([images[0], b"junk"])], "422", "image 1: not a readable image"),
    ],
)
def test_a_wrong_input_gets_an_error_that_names_the_right_one(
    client: Any, images: Any, pixels: Any, inputs: Callable[[Any, Any], list[Any]], status: str, message: str
) -> None:
    told = refusal(lambda: client.infer("tiny", inputs(images, pixels)))
    assert told[0] == status
    assert message in told[1]


def test_unknown_models_versions_outputs_and_routes(client: Any, images: Any) -> None:
    def ask(*, model: str = "tiny", version: str = "", outputs: Any = None) -> tuple[str, str]:
        return refusal(lambda: client.infer(model, [encoded(images)], version, outputs=outputs))

    assert ask(model="other") == ("404", "model other version 1 is not served here, but tiny version 1 is")
    assert ask(version="9")[0] == "404"
    assert ask(outputs=[triton.InferRequestedOutput("logits")])[0] == "400"
    assert refusal(lambda: client.get_model_metadata("other"))[0] == "404"
    assert refusal(client.get_inference_statistics)[0] == "404"
