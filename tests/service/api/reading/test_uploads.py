from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from starlette.requests import Request

from service.api.problems import RequestError
from service.api.reading.uploads import Uploads
from service.api.requests import Exchange
from service.classify.memory import Memory
from service.errors import DeadlineExceeded, Draining, Overloaded
from service.settings import Settings


def request_of(pieces: Iterable[tuple[float, bytes]]) -> Request:
    """Its body arrives in these pieces, each after so many seconds; then nothing comes, or `b""` ends it."""
    arriving = iter(pieces)

    async def receive() -> dict[str, Any]:
        pause_s, piece = next(arriving, (60.0, b""))
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    exchange = Exchange("id", "/", time.monotonic(), time.monotonic)
    return Request({"type": "http", "method": "POST", "headers": [], "state": {"exchange": exchange}}, receive)


async def read(request: Request) -> bytes:
    return await request.body()


def uploaded(
    pieces: Iterable[tuple[float, bytes]],
    *,
    client_timeout_s: float | None = None,
    grace_s: float = 10.0,
    meanwhile: Callable[[Uploads], None] = lambda _: None,
    **settings: int,
) -> bytes:
    async def scenario() -> bytes:
        uploads = Uploads(Settings.model_validate(settings), grace_s=grace_s)
        asyncio.get_running_loop().call_later(0.02, meanwhile, uploads)
        return await uploads.read(request_of(pieces), read, client_timeout_s)

    return asyncio.run(scenario())


def steadily(seconds: float, piece: bytes = b"x" * 100) -> list[tuple[float, bytes]]:
    """A piece every 10 ms."""
    return [(0.01, piece)] * int(seconds * 100) + [(0.0, b"")]


def test_a_client_that_keeps_sending_is_not_cut_off_by_the_deadline_of_the_work() -> None:
    body = uploaded(steadily(0.3), timeout_ms=50, grace_s=0.1, upload_min_bytes_per_second=1000)
    assert len(body) == 3000


def test_a_client_that_stalls_is_given_up_after_the_grace() -> None:
    with pytest.raises(RequestError, match=r"arrives too slowly: over 0\.05 s, at least 500 bytes/s") as caught:
        uploaded([(0.0, b"x" * 1_000_000)], grace_s=0.05)
    assert caught.value.code == "upload_timeout"


def test_a_client_that_dribbles_is_given_up_although_it_never_stalls() -> None:
    with pytest.raises(RequestError, match="arrives too slowly"):
        uploaded(steadily(5.0, b"x"), grace_s=0.2, upload_min_bytes_per_second=1000)


def test_no_upload_takes_longer_than_the_limit() -> None:
    with pytest.raises(RequestError, match=r"did not arrive within 0\.2 s, the limit") as caught:
        uploaded(steadily(5.0), upload_timeout_ms=200)
    assert caught.value.code == "upload_timeout"


def test_the_client_s_own_deadline_includes_its_upload() -> None:
    with pytest.raises(DeadlineExceeded, match="did not arrive within the deadline of 100 ms"):
        uploaded(steadily(5.0), client_timeout_s=0.1)


def test_while_the_server_drains_an_upload_has_the_time_of_a_request() -> None:
    assert uploaded(steadily(0.2), meanwhile=Uploads.drain)
    with pytest.raises(Draining):
        uploaded(steadily(5.0), timeout_ms=100, meanwhile=Uploads.drain)


def test_the_work_has_its_time_from_the_last_byte_on() -> None:
    now = time.monotonic()
    exchange = Exchange("id", "/", now - 60.0, time.monotonic)  # its body took a minute
    uploads = Uploads(Settings(timeout_ms=5000))
    assert uploads.deadline(exchange, None) == pytest.approx(now + 5.0, abs=0.1)
    assert uploads.deadline(exchange, 62.0) == pytest.approx(now + 2.0, abs=0.1)
    assert uploads.deadline(exchange, 3600.0) == pytest.approx(now + 5.0, abs=0.1)
    assert uploads.earliest_deadline(Exchange("id", "/", now, time.monotonic)) == pytest.approx(now + 5.0)
    uploads.drain()
    assert uploads.deadline(exchange, None) == pytest.approx(now + 5.0, abs=0.1)


def test_bodies_that_arrive_together_take_at_most_max_queue_bytes() -> None:
    async def scenario() -> None:
        memory = Memory(5000)
        uploads = Uploads(Settings(), memory)
        bodies = await asyncio.gather(
            *(uploads.read(request_of(steadily(0.2)), read) for _ in range(10)), return_exceptions=True
        )
        whole = [body for body in bodies if isinstance(body, bytes)]
        assert all(len(body) == 2000 for body in whole)
        assert all(isinstance(body, Overloaded) for body in bodies if body not in whole)
        assert 1 <= len(whole) <= 4
        assert memory.held_bytes == 0

    asyncio.run(scenario())


def test_a_body_whose_length_does_not_fit_is_rejected_before_it_is_read() -> None:
    async def scenario() -> None:
        memory = Memory(5000)
        uploads = Uploads(Settings(), memory)
        request = request_of([(60.0, b"x")])
        request.scope["headers"] = [(b"content-length", b"4000")]
        memory.take(2000)
        with pytest.raises(Overloaded):
            await uploads.read(request, read)
        memory.give_back(2000)
        memory.take(500)
        memory.check(4000)

    asyncio.run(scenario())


def test_a_single_body_always_fits() -> None:
    assert len(uploaded(steadily(0.05), max_queue_bytes=1)) == 500
