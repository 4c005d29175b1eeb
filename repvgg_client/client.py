"""The client, once with blocking calls and once for asyncio.

1. results come in the order of the images, however many requests were under way at once;
2. the first error ends the call: nothing more is sent.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import httpx

from repvgg_client.conversation import Outcome, Pause, Step, converse
from repvgg_client.images import Encoded, Image, batches
from repvgg_client.results import Result

TIMEOUT_S = 30.0
BATCH_SIZE = 16
# One on its way while the other is computed; more only fill the server's queue, unless it has several engines.
CONCURRENCY = 2


class Client:
    """Of the server at `url`. A request has at most `batch_size` images, `concurrency` requests are under way at once,
    and each may take `timeout_s` seconds, all its tries included. Close it, or use it in a `with`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._http = httpx.Client(**_http_options(url, api_key, concurrency))
        self._timeout_s = timeout_s
        self._batch_size = batch_size
        self._concurrency = concurrency

    def classify(
        self, images: Image | Iterable[Image], *, top_k: int | None = None, timeout_s: float | None = None
    ) -> list[Result]:
        """The results of one image or many, in order: paths of files and folders, encoded bytes, Pillow images, RGB
        arrays (H, W, 3) of uint8. `top_k`: how many predictions for each, the server's default when None.

        Raises ClientError; OSError, TypeError or ValueError for what is no image; ImportError without Pillow.
        """
        within_s = self._timeout_s if timeout_s is None else timeout_s
        results: list[Result] = []
        under_way: deque[Future[list[Result]]] = deque()
        ended = threading.Event()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="repvgg-client")
        try:
            for batch in batches(images, self._batch_size):
                if len(under_way) == self._concurrency:
                    results += under_way.popleft().result()
                under_way.append(pool.submit(self._converse, batch, top_k, within_s, ended))
            while under_way:
                results += under_way.popleft().result()
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)
        return results

    def _converse(
        self, batch: list[Encoded], top_k: int | None, timeout_s: float, ended: threading.Event
    ) -> list[Result]:
        """Stops between two steps once the call has `ended`, as nobody is there to take the results."""
        conversation = converse(batch, top_k, timeout_s)
        outcome: Outcome = None
        while not ended.is_set():
            try:
                step = conversation.send(outcome)
            except StopIteration as end:
                results: list[Result] = end.value
                return results
            outcome = self._do(step, ended)
        return []

    def _do(self, step: Step, ended: threading.Event) -> Outcome:
        if isinstance(step, Pause):
            ended.wait(step.seconds)
            return None
        try:
            return self._http.post(**step.request())
        except httpx.TransportError as error:
            return error

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """As Client; files are read and pixels encoded in a thread."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._http = httpx.AsyncClient(**_http_options(url, api_key, concurrency))
        self._timeout_s = timeout_s
        self._batch_size = batch_size
        self._concurrency = concurrency

    async def classify(
        self, images: Image | Iterable[Image], *, top_k: int | None = None, timeout_s: float | None = None
    ) -> list[Result]:
        """As Client.classify; cancelling it leaves nothing under way."""
        within_s = self._timeout_s if timeout_s is None else timeout_s
        results: list[Result] = []
        under_way: deque[asyncio.Task[list[Result]]] = deque()
        remaining = batches(images, self._batch_size)
        try:
            while batch := await asyncio.to_thread(next, remaining, None):
                if len(under_way) == self._concurrency:
                    results += await under_way[0]
                    under_way.popleft()
                under_way.append(asyncio.create_task(self._converse(batch, top_k, within_s)))
            while under_way:
                results += await under_way[0]
                under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        return results

    async def _converse(self, batch: list[Encoded], top_k: int | None, timeout_s: float) -> list[Result]:
        conversation = converse(batch, top_k, timeout_s)
        outcome: Outcome = None
        while True:
            try:
                step = conversation.send(outcome)
            except StopIteration as end:
                results: list[Result] = end.value
                return results
            outcome = await self._do(step)

    async def _do(self, step: Step) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.post(**step.request())
        except httpx.TransportError as error:
            return error

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _http_options(url: str, api_key: str | None, concurrency: int) -> dict[str, Any]:
    """Arguments of either of httpx's clients."""
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return {"base_url": url, "headers": headers, "limits": httpx.Limits(max_connections=concurrency)}
