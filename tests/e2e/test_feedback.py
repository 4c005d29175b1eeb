"""Feedback over a socket, to a service of two workers: each remembers its own answers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from repvgg_client import AsyncClient, Client, ProblemError

if TYPE_CHECKING:
    from conftest import Server

JPEG = {"content-type": "image/jpeg"}
LIMIT_S = 120.0


@pytest.fixture
def pair(start: Callable[..., Server]) -> Server:
    running = start("--workers", 2, "--feedback", 1000, "--drain-seconds", 0).wait_until_serving()
    running.wait_for_line("serving ")
    return running


def classify(server: Server, image: bytes, headers: dict[str, str] | None = None) -> Any:
    """On a new connection, so that any worker may answer."""
    reply = httpx.post(f"{server.url}/classify", content=image, headers=JPEG | (headers or {}), timeout=LIMIT_S)
    assert reply.status_code == 200, reply.text
    return reply.json()


def judge(server: Server, request_id: str, label: str | None, index: int = 0) -> httpx.Response:
    feedback = {"request_id": request_id, "index": index, "label": label}
    return httpx.post(f"{server.url}/feedback", json=feedback, timeout=LIMIT_S)


def counted(server: Server) -> dict[str, float]:
    """result -> the number of images with this feedback."""
    found: dict[str, float] = {}
    for line in httpx.get(f"{server.url}/metrics", timeout=LIMIT_S).text.splitlines():
        if line.startswith("repvgg_feedback_total{"):
            result = line.partition('result="')[2].partition('"')[0]
            found[result] = found.get(result, 0) + float(line.rpartition(" ")[2])
    return found


def workers_that(server: Server, message: str) -> set[int]:
    return {line["worker"] for line in server.lines if line["msg"] == message}


def test_feedback_reaches_the_worker_that_answered(pair: Server, jpeg_bytes: bytes) -> None:
    asked: list[str] = []
    for _ in range(100):
        asked += [classify(pair, jpeg_bytes)["request_id"] for _ in range(4)]
        replies = [judge(pair, request_id, "cat") for request_id in asked[-4:]]
        assert {reply.status_code for reply in replies} == {200}, [reply.text for reply in replies]
        while not pair._arrived.empty():
            pair.wait_for_line("")
        if all(len(workers_that(pair, f"POST /{path} 200")) == 2 for path in ("classify", "feedback")):
            break
    assert sum(counted(pair).values()) == len(asked)
    assert len(workers_that(pair, "POST /classify 200")) == 2
    again = judge(pair, asked[0], "cat")
    assert (again.status_code, again.json()["counted"]) == (200, False)
    assert sum(counted(pair).values()) == len(asked)

    for label, index, request_id, status, code in (
        ("dog", 0, asked[0], 409, "feedback_given"),
        ("unicorn", 0, asked[1], 422, "invalid_parameter"),
        ("cat", 1, asked[1], 422, "invalid_parameter"),
        ("cat", 0, "unknown", 404, "unknown_request"),
    ):
        reply = judge(pair, request_id, label, index)
        assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_an_id_that_two_workers_know_counts_once(pair: Server, jpeg_bytes: bytes) -> None:
    for _ in range(30):
        classify(pair, jpeg_bytes, {"X-Request-ID": "mine"})
    assert judge(pair, "mine", None).json()["result"] == "foreign"
    assert counted(pair)["foreign"] == 1


def test_what_a_worker_remembers_ends_with_it_and_its_counts_do_not(
    pair: Server, wait_until: Callable[..., None], jpeg_bytes: bytes
) -> None:
    asked = [classify(pair, jpeg_bytes)["request_id"] for _ in range(20)]
    assert judge(pair, asked[0], None).status_code == 200
    assert counted(pair)["foreign"] == 1  # the supervisor has asked all of them
    tasks = Path(f"/proc/{pair.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        pair.wait_for_line("serving ")
    wait_until(lambda: "2 of 2 serve" in httpx.get(f"{pair.url}/readyz?verbose", timeout=LIMIT_S).text)
    assert judge(pair, asked[1], None).json()["code"] == "unknown_request"
    assert counted(pair)["foreign"] == 1


def test_the_client_gives_feedback(pair: Server, draw_image: Callable[..., bytes]) -> None:
    with Client(pair.url, batch_size=2) as client:
        results = client.classify([draw_image(seed) for seed in range(3)])
        assert [result.index for result in results] == [0, 1, 0]
        for result in results:
            assert result.request_id is not None
            assert result.index is not None
            best = result.predictions[0].label
            judgement = client.feedback(result.request_id, best, index=result.index)
            assert (judgement.result, judgement.predicted, judgement.counted) == ("right", best, True)
        with pytest.raises(ProblemError) as refused:
            client.feedback("unknown", "cat")
        assert refused.value.code == "unknown_request"


def test_the_asynchronous_client_gives_feedback(pair: Server, jpeg_bytes: bytes) -> None:
    async def ask() -> str:
        async with AsyncClient(pair.url) as client:
            (result,) = await client.classify(jpeg_bytes)
            assert result.request_id is not None
            return (await client.feedback(result.request_id, None)).result

    assert asyncio.run(ask()) == "foreign"
