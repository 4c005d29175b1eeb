"""The client, with blocking calls (Client) and for asyncio (AsyncClient).

1. results are in the order of the images, however many requests run at once;
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

from repvgg_client.conversation import Pause, Reply, Step, converse
from repvgg_client.images import Encoded, Image, batches
from repvgg_client.results import Result

TIMEOUT_S = 30.0
BATCH_SIZE = 16
# One request is in transit while the server computes the other; more would only fill the queue of a single engine.
CONCURRENCY = 2


class Client:
    """A client of the server at `url`.

    A request has at most `batch_size` images, and at most `concurrency` requests run at once. Each may take `timeout_s`
    seconds, including all retries. Close the client after use, or use it in a `with` statement.
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
        """Classify one image or many -> the results, in the same order.

        An image is the path of a file or of a folder of images, encoded bytes, a Pillow image, or an RGB array of uint8
        (H, W, 3). `top_k` is the number of predictions per image, by default the server's.

        Raises ClientError; OSError, TypeError or ValueError for something that is not an image; ImportError if Pillow
        is needed but not installed.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        results: list[Result] = []
        pending: deque[Future[list[Result]]] = deque()
        ended = threading.Event()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="repvgg-client")
        try:
            for batch in batches(images, self._batch_size):
                if len(pending) == self._concurrency:
                    results += pending.popleft().result()
                pending.append(pool.submit(self._converse, batch, top_k, limit_s, ended))
            while pending:
                results += pending.popleft().result()
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)
        return results

    def _converse(
        self, batch: list[Encoded], top_k: int | None, timeout_s: float, ended: threading.Event
    ) -> list[Result]:
        """Send one batch. Stops between two steps once the call has `ended`, because no one waits for the results."""
        conversation = converse(batch, top_k, timeout_s)
        reply: Reply = None
        while not ended.is_set():
            try:
                step = conversation.send(reply)
            except StopIteration as end:
                results: list[Result] = end.value
                return results
            reply = self._perform(step, ended)
        return []

    def _perform(self, step: Step, ended: threading.Event) -> Reply:
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
    """Like Client, for asyncio; it reads files and encodes pixels in a thread."""

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
        """Like Client.classify; cancelling it also cancels its requests."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        results: list[Result] = []
        pending: deque[asyncio.Task[list[Result]]] = deque()
        remaining = batches(images, self._batch_size)
        try:
            while batch := await asyncio.to_thread(next, remaining, None):
                if len(pending) == self._concurrency:
                    results += await pending[0]
                    pending.popleft()
                pending.append(asyncio.create_task(self._converse(batch, top_k, limit_s)))
            while pending:
                results += await pending[0]
                pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return results

    async def _converse(self, batch: list[Encoded], top_k: int | None, timeout_s: float) -> list[Result]:
        conversation = converse(batch, top_k, timeout_s)
        reply: Reply = None
        while True:
            try:
                step = conversation.send(reply)
            except StopIteration as end:
                results: list[Result] = end.value
                return results
            reply = await self._perform(step)

    async def _perform(self, step: Step) -> Reply:
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
    """Arguments for httpx.Client and httpx.AsyncClient."""
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return {"base_url": url, "headers": headers, "limits": httpx.Limits(max_connections=concurrency)}
