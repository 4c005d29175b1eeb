"""The client, with blocking calls (Client) and for asyncio (AsyncClient).

1. results are in the order of the images, however many requests run at once;
2. the first error ends the call: nothing more is sent;
3. a request ends within its timeout, whatever the server does: even if it sends an answer byte by byte.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import httpx

from repvgg_client.background import BackgroundLoop
from repvgg_client.conversation import Asked, Pause, Reply, Step, converse, read_judgement
from repvgg_client.images import Encoded, Image, batches
from repvgg_client.results import Judgement, Result

TIMEOUT_S = 30.0
BATCH_SIZE = 16
# One request is in transit while the server computes the other; more would only fill the queue of a single engine.
CONCURRENCY = 2


class Client:
    """A client of the server at `url`.

    A request has at most `batch_size` images, and at most `concurrency` requests run at once. Each ends within
    `timeout_s` seconds: connecting, sending, the last byte of the answer and all retries included. Close the client
    after use, or use it in a `with` statement.
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
        self._background = BackgroundLoop()
        self._client = AsyncClient(
            url, api_key=api_key, timeout_s=timeout_s, batch_size=batch_size, concurrency=concurrency
        )

    def classify(
        self,
        images: Image | Iterable[Image],
        *,
        top_k: int | None = None,
        timeout_s: float | None = None,
        explain: bool = False,
        embedding: bool = False,
        normalize: bool = False,
        labels: Sequence[str] | None = None,
        priors: Mapping[str, float] | None = None,
        coverage: float | None = None,
    ) -> list[Result]:
        """Classify one image or many -> the results, in the same order.

        An image is the path of a file or of a folder of images, encoded bytes, a Pillow image, or an RGB array of uint8
        (H, W, 3). `top_k` is the number of predictions per image, by default the server's. `explain` gives each
        prediction its `cam`, `embedding` each result its features, of length 1 if `normalize` is set. `labels`
        restricts the answer to these; `priors` are the shares of labels among the images, if they are known. With
        `coverage`, each result has a set of labels that contains the true one with this probability.

        Raises ClientError; OSError, TypeError or ValueError for something that is not an image; ImportError if Pillow
        is needed but not installed.
        """
        asked = Asked(top_k, explain, embedding, normalize, labels, priors, coverage)
        results: list[Result] = []
        pending: deque[Future[list[Result]]] = deque()
        try:
            for batch in batches(images, self._client.batch_size):
                if len(pending) == self._client.concurrency:
                    results += pending[0].result()
                    pending.popleft()
                pending.append(self._background.submit(self._client.converse(batch, asked, timeout_s)))
            while pending:
                results += pending[0].result()
                pending.popleft()
        finally:
            for future in pending:
                future.cancel()
        return results

    def feedback(self, request_id: str, label: str | None, *, index: int = 0) -> Judgement:
        """Tell the server the true label of an image that it has answered, None for none of its labels.

        `request_id` and `index` are those of the image's Result. Sending it again is harmless. Raises ClientError: a
        ProblemError with the code `unknown_request` if the server has forgotten the answer, `feedback_given` if the
        image already has another label.
        """
        return self._background.submit(self._client.feedback(request_id, label, index=index)).result()

    def close(self) -> None:
        """Requests that still run are ended."""
        self._background.close(self._client.aclose)

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
        self.batch_size = batch_size
        self.concurrency = concurrency

    async def classify(
        self,
        images: Image | Iterable[Image],
        *,
        top_k: int | None = None,
        timeout_s: float | None = None,
        explain: bool = False,
        embedding: bool = False,
        normalize: bool = False,
        labels: Sequence[str] | None = None,
        priors: Mapping[str, float] | None = None,
        coverage: float | None = None,
    ) -> list[Result]:
        """Like Client.classify; cancelling it also cancels its requests."""
        asked = Asked(top_k, explain, embedding, normalize, labels, priors, coverage)
        results: list[Result] = []
        pending: deque[asyncio.Task[list[Result]]] = deque()
        remaining = batches(images, self.batch_size)
        try:
            while batch := await asyncio.to_thread(next, remaining, None):
                if len(pending) == self.concurrency:
                    results += await pending[0]
                    pending.popleft()
                pending.append(asyncio.create_task(self.converse(batch, asked, timeout_s)))
            while pending:
                results += await pending[0]
                pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return results

    async def feedback(self, request_id: str, label: str | None, *, index: int = 0) -> Judgement:
        """Like Client.feedback."""
        body = {"request_id": request_id, "index": index, "label": label}
        options = {"url": "/feedback", "json": body, "timeout": self._timeout_s}
        return read_judgement(await self._post(options, self._timeout_s))

    async def converse(self, batch: list[Encoded], asked: Asked, timeout_s: float | None) -> list[Result]:
        """Classify one batch, with retries. Raises ClientError."""
        conversation = converse(batch, asked, self._timeout_s if timeout_s is None else timeout_s)
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
        return await self._post(step.request(), step.remaining_s)

    async def _post(self, options: dict[str, Any], limit_s: float) -> Reply:
        try:
            # httpx limits each wait for a byte, and not the sum of them.
            return await asyncio.wait_for(self._http.post(**options), limit_s)
        except httpx.TransportError as error:
            return error
        except asyncio.TimeoutError:
            return httpx.ReadTimeout(f"no complete answer within {limit_s:.3g} s")

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
