"""repvgg_client against the real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from repvgg_client import AsyncClient, Client, ConnectionFailed, ProblemError

if TYPE_CHECKING:
    from conftest import Server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, batch_size=3, concurrency=3) as client:
        yield client


@pytest.fixture
def images(draw_image: Callable[..., bytes]) -> list[bytes]:
    return [draw_image(seed) for seed in range(20)]


@pytest.fixture
def expected(http: Any, images: list[bytes]) -> list[list[tuple[Any, ...]]]:
    results = http.post("/classify", files=[("image", ("x", image)) for image in images]).json()["results"]
    return [[tuple(prediction.values()) for prediction in result["predictions"]] for result in results]


def predictions(results: Any) -> list[list[tuple[Any, ...]]]:
    return [[(p.label, p.class_id, pytest.approx(p.score)) for p in result.predictions] for result in results]


def test_many_images_in_order(client: Client, images: list[bytes], expected: Any) -> None:
    assert predictions(client.classify(images)) == expected
    assert predictions(client.classify(iter(images[:2]))) == expected[:2]
    assert client.classify([]) == []


def test_many_images_in_order_for_asyncio(server: Server, images: list[bytes], expected: Any) -> None:
    async def ask() -> Any:
        async with AsyncClient(server.url, batch_size=3, concurrency=3) as client:
            return await client.classify(images)

    assert predictions(asyncio.run(ask())) == expected


def test_every_kind_of_image_source_is_accepted(client: Client, png_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.png"
    file.write_bytes(png_bytes)
    image = Image.open(BytesIO(png_bytes))
    results = client.classify([png_bytes, str(file), file.parent, image, np.asarray(image)], top_k=2)
    assert [result.name for result in results] == [None, str(file), str(file), None, None]
    assert predictions(results) == [predictions(results)[0]] * 5
    assert len(results[0].predictions) == 2


def test_a_broken_image_is_a_result_alone_or_with_others(client: Client, png_bytes: bytes) -> None:
    for images in ([b"junk"], [b"junk", png_bytes]):
        results = client.classify(images)
        assert results[0].error is not None
        assert results[0].error.code == "undecodable_image"
        assert results[0].predictions == ()
    assert results[1].error is None


def test_a_problem_document_becomes_an_exception_with_all_its_fields(
    client: Client, server: Server, png_bytes: bytes
) -> None:
    with pytest.raises(ProblemError) as caught:
        client.classify(png_bytes, top_k=11)
    problem = caught.value
    assert (problem.status, problem.code) == (422, "invalid_parameter")
    assert problem.detail == "top_k=11 is not a whole number in 1..10"
    assert problem.request_id is not None
    assert len(problem.request_id) == 32


def test_the_first_error_ends_the_call(client: Client, server: Server, images: list[bytes]) -> None:
    with pytest.raises(ProblemError):
        client.classify(images, top_k=11)

    async def ask() -> None:
        async with AsyncClient(server.url, batch_size=1) as client:
            await client.classify(images, top_k=11)

    with pytest.raises(ProblemError):
        asyncio.run(ask())


def test_a_request_before_the_model_is_open_is_retried_with_its_key(
    start: Callable[..., Server], images: list[bytes]
) -> None:
    url = start(environ={"REPVGG_API_KEYS": "secret"}).wait_for_line("listening")["url"]
    with Client(url, api_key="secret", timeout_s=60) as client:
        assert all(result.error is None for result in client.classify(images))
    with Client(url) as client, pytest.raises(ProblemError, match="401 unauthorized"):
        client.classify(images)


def test_without_a_server_the_connection_fails_quickly(png_bytes: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(url) as client, pytest.raises(ConnectionFailed, match="the connection was lost"):
        client.classify(png_bytes, timeout_s=0.5)


def test_cancelling_leaves_no_request_running(images: list[bytes]) -> None:
    async def ask(url: str) -> int:
        async with AsyncClient(url, batch_size=1, concurrency=4) as client:
            call = asyncio.create_task(client.classify(images))
            await asyncio.sleep(0.2)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            return len(asyncio.all_tasks())

    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections and never answers
        assert asyncio.run(ask(f"http://127.0.0.1:{silent.getsockname()[1]}")) == 1


def test_it_asks_for_explanations_embeddings_labels_and_priors(
    start: Callable[..., Server], images: list[bytes]
) -> None:
    flags = "--model", "repvgg-tiny-cifar10", "--engine", "onnxruntime", "--precision", "fp32"
    client = Client(start(*flags).wait_until_serving().url)
    for result in client.classify(images[:4], top_k=2, explain=True, embedding=True, normalize=True):
        for one in result.predictions:
            assert one.cam is not None
            assert np.sum(one.cam.grid) + one.cam.bias == pytest.approx(one.cam.logit, abs=1e-4)
        vector = np.asarray(result.embedding)
        assert (vector.dtype, vector.shape) == (np.float32, (256,))
        assert np.linalg.norm(vector) == pytest.approx(1)
    (result,) = client.classify(images[0], labels=["cat", "dog"], priors={"cat": 1.0})
    assert [(one.label, one.score, one.cam) for one in result.predictions] == [("cat", 1.0, None)]
    assert result.embedding is None
    with pytest.raises(ProblemError, match="the network has no gnu"):
        client.classify(images[0], labels=["gnu"])
    client.close()
