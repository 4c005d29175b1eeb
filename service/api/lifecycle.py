"""The life of the process: starting, then serving or failed, perhaps reloading, then draining.

1. the socket listens while the model is being opened, and requests are answered 503 `not_ready` meanwhile;
2. draining is announced while requests are still answered, so that no request is lost; each answer then closes its
   connection, so that no client sends its next request to a server that is ending;
3. a start skips versions that cannot serve, and says so; the error of a failed start is kept, and the process ends with
   it;
4. a new model replaces the serving one only when it is open, checked and warm; until then, and if it fails, the old
   one serves;
5. a request ends on the model that served when it began, and only then is that model closed; an upload that takes
   longer than `timeout_ms` ends on the model that serves by then;
6. at most two models are open, and one reload runs at a time.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import ContractError
from service.api.reading.uploads import RETRY_WHILE_DRAINING_S, Uploads
from service.classify.classifier import Classifier
from service.classify.memory import Memory
from service.engines.base import Engine
from service.errors import Draining, ModelRejected, NotReady, ReloadRunning, ServiceError
from service.observe.metrics import Metrics
from service.settings import Settings

RETRY_WHILE_STARTING_S = 1.0

log = logging.getLogger(__name__)


class Lifecycle:
    """`classifier` is set once the model serves, `failure` if it cannot be opened; `opened` is set in both cases."""

    def __init__(self, settings: Settings, metrics: Metrics, engine: Engine | None = None) -> None:
        self.classifier: Classifier | None = None
        self.failure: Exception | None = None
        self.draining = False
        self._memory = Memory(settings.max_queue_bytes)
        self.uploads = Uploads(settings, self._memory)
        self.opened = asyncio.Event()
        self._settings = settings
        self._grace_s = settings.timeout_ms / 1000  # once its body is read, a request ends within it
        self._metrics = metrics
        metrics.workers_wanted.set(settings.workers)
        metrics.workers_serving.set_function(lambda: float(self.classifier is not None))
        self._engine = engine
        self._requests: dict[Classifier | None, set[asyncio.Task[Any]]] = {}
        self._opening: asyncio.Task[Classifier] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._reloading = False
        self._left_at_work: list[Classifier] = []
        self._closed: weakref.WeakSet[Classifier] = weakref.WeakSet()

    def note_refused_connection(self, code: str) -> None:
        """A connection got this problem before it had a request."""
        self._metrics.connections_refused.labels(code).inc()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens the model in the background; at the end, finishes the accepted requests and closes it."""
        self._starting = starting = asyncio.create_task(self._start())
        lag = asyncio.create_task(self._metrics.watch_event_loop())
        try:
            yield
        finally:
            self.drain()
            for task in (starting, lag):
                task.cancel()
            await asyncio.gather(starting, lag, return_exceptions=True)
            if self._retiring is not None:
                await self._retiring
            if self.classifier is not None:
                await self._close(self.classifier)

    async def _start(self) -> None:
        try:
            self.classifier = await Classifier.open(
                self._settings, self._metrics, engine=self._engine, starting=True, memory=self._memory
            )
        except Exception as error:
            log.debug("the start failed", exc_info=True)
            self.failure = error
        finally:
            self.opened.set()

    async def reload(self, changes: Mapping[str, str] = MappingProxyType({})) -> None:
        """Open the model of the settings, with these `changes` to them, and let it serve.

        Raises NotReady before the first model serves, Draining, ReloadRunning, and ModelRejected if it cannot serve.
        """
        old = self.serving()
        if self._reloading:
            raise ReloadRunning("another reload is running; retry when it has finished")
        self._reloading = True
        try:
            if self._retiring is not None:
                await asyncio.wait({self._retiring})
            self.classifier = new = await self._open_beside(old, changes)
        finally:
            self._reloading = False
        self._retiring = asyncio.create_task(self._retire(old))
        log.info("%s serves, in place of %s", _name_of(new), _name_of(old))

    async def _open_beside(self, old: Classifier, changes: Mapping[str, str]) -> Classifier:
        if self.draining:
            raise Draining("the server is shutting down", RETRY_WHILE_DRAINING_S)
        settings = self._settings.model_copy(update=changes)
        self._opening = asyncio.create_task(Classifier.open(settings, self._metrics, memory=self._memory))
        try:
            return await self._opening
        except asyncio.CancelledError:
            if not self.draining:
                raise
            raise Draining("the server is shutting down", RETRY_WHILE_DRAINING_S) from None
        except (ContractError, ServiceError) as error:
            self._metrics.reloads_refused.labels("rejected").inc()
            log.error("%s cannot serve, %s keeps serving: %s", settings.model, _name_of(old), error)
            store = f"{_folder_of(old).parent.parent}/"  # clients should not learn the path
            raise ModelRejected(str(error).replace(store, "")) from error
        except Exception as error:
            self._metrics.reloads_refused.labels("rejected").inc()
            log.exception("%s cannot be opened, %s keeps serving", settings.model, _name_of(old))
            raise ServiceError("internal error") from error

    async def _retire(self, old: Classifier) -> None:
        if requests := self._requests.pop(old, None):
            await asyncio.wait(requests, timeout=self._grace_s)
        await self._close(old)
        log.info("%s is closed", _name_of(old))

    async def _close(self, classifier: Classifier) -> None:
        self._closed.add(classifier)
        await classifier.close(self._grace_s)
        if not classifier.batcher.idle:
            self._left_at_work.append(classifier)

    def what_serves(self) -> dict[str, str]:
        """Settings for exactly the same: the bundle's folder, and the engine and precision that were chosen."""
        serving = self.serving()
        return {
            "model": str(_folder_of(serving)),
            "engine": serving.engine.name,
            "precision": serving.engine.precision,
        }

    @property
    def why_older(self) -> str:
        """Why an older version serves instead of the newest; "" if the newest serves."""
        if self.classifier is None or not self.classifier.passed_over:
            return ""
        newer, serving = ", ".join(self.classifier.passed_over), self.classifier.bundle.manifest.version
        return f"{serving}, because newer ones cannot serve: {newer}; the log has the reasons"

    @property
    def is_changing(self) -> bool:
        """Are two models open, or about to be?"""
        return self._reloading or (self._retiring is not None and not self._retiring.done())

    def version_beside(self, version: str) -> str:
        """The folder where that version of the serving bundle would be."""
        return str(_folder_of(self.serving()).with_name(version))

    @property
    def engine_is_at_work(self) -> bool:
        """After shutdown: is a batch still running in an engine, whose thread cannot be stopped?"""
        return any(not classifier.batcher.idle for classifier in self._left_at_work)

    def drain(self) -> None:
        """From now on `/readyz` fails; requests are still answered, but no model is opened any more."""
        self.draining = True
        self.uploads.drain()
        for opening in (self._starting, self._opening):
            if opening is not None:
                opening.cancel()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Wraps a request, which is a task of its own: the serving model is not closed before the request ends."""
        requests, task = self._requests.setdefault(self.classifier, set()), asyncio.current_task()
        assert task is not None
        requests.add(task)
        try:
            yield
        finally:
            for requests in self._requests.values():
                requests.discard(task)

    def still_open(self, classifier: Classifier) -> Classifier:
        """After a body that took long: that classifier, or if it was replaced and closed meanwhile, the one that
        serves now."""
        if classifier not in self._closed:
            return classifier
        task = asyncio.current_task()
        assert task is not None
        self._requests.setdefault(self.classifier, set()).add(task)
        return self.serving()

    def serving(self) -> Classifier:
        """Raises NotReady before the model serves."""
        if self.classifier is None:
            raise NotReady(self._not_ready(), RETRY_WHILE_STARTING_S)
        return self.classifier

    @property
    def state_of_opening(self) -> str:
        """pending, ok or failed."""
        if self.failure is not None:
            return "failed"
        return "pending" if self.classifier is None else "ok"

    def _not_ready(self) -> str:
        if self.failure is not None:
            return "the model could not be opened; the server's log has the reason"
        return "the model is being opened and checked"


def _folder_of(classifier: Classifier) -> Path:
    return classifier.bundle.folder.resolve()


def _name_of(classifier: Classifier) -> str:
    return f"{classifier.bundle.manifest.name} {classifier.bundle.manifest.version}"


class LifecycleMiddleware:
    """The outermost layer: every request is tracked, and while draining its connection is closed."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._lifecycle.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        with self._lifecycle.request():
            await self._app(scope, receive, send_last)
