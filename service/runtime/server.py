"""The web server around the application: signals and shutdown.

1. on SIGTERM /readyz reports not ready immediately, requests are served for another `drain_seconds`, and those in
   flight are finished;
2. Ctrl-C skips the drain period, but still finishes requests in flight;
3. a second SIGTERM or Ctrl-C, or a request that outlives its deadline, forces the end, and the log says how many
   requests were lost;
4. SIGHUP does the same as POST /models/reload;
5. if the start fails, the process ends with the reason; a clean end has exit code 0, one that lost requests 1;
6. neither a stuck engine nor one that is being opened prevents the process from ending;
7. a worker process gets its signals from the supervisor, and ends when the supervisor does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from service.api.health import Probes
from service.api.lifecycle import Lifecycle
from service.api.processes import SingleProcess
from service.app import create_app
from service.classify.classifier import Classifier
from service.engines.base import Engine
from service.errors import ServiceError
from service.machine.heap import give_large_blocks_pages, return_free_memory
from service.machine.own_thread import is_at_work
from service.machine.priority import freeze_live_objects, shorten_switch_interval
from service.observe import logs
from service.runtime.banner import Banner
from service.runtime.early_end import obey_signals
from service.runtime.http.accepting import ACCEPTS_AT_ONCE, WORKER_ACCEPTS_AT_ONCE, Acceptor
from service.runtime.http.connections import Connection, Connections
from service.runtime.listener import url_of
from service.runtime.messages.channel import Channel, ChannelClosed
from service.runtime.messages.lifeline import Lifeline
from service.runtime.messages.worker_group import WorkerGroup
from service.runtime.signals import SIGNALS
from service.settings import Settings

if TYPE_CHECKING:
    from service.observe.tracing import Tracing

# Extra time after the deadline for clients to read their answers, before they are cut off.
LINGER_S = 5
FORCED = 1

log = logging.getLogger(__name__)


def serve(
    settings: Settings,
    listener: socket.socket,
    engine: Engine | None = None,
    supervisor: tuple[Channel, Lifeline] | None = None,
    open_first: bool = False,
) -> None:
    """Blocks until a signal. Raises whatever prevented the service from starting.

    `engine` replaces the one in the settings; `supervisor`: the ways to that of several workers; `open_first` as in
    create_app.
    """
    tracing = find_tracing(os.environ)
    join = partial(WorkerGroup, supervisor[0]) if supervisor else SingleProcess
    app = create_app(settings, engine=engine, join=join, open_first=open_first, tracing=tracing)
    lifecycle: Lifecycle = app.state.lifecycle
    config = _server_config(app)
    shorten_switch_interval()
    give_large_blocks_pages()
    url = url_of(listener)
    log.info("listening on %s, opening the model %s", url, settings.model, extra={"url": url})
    DrainingServer(config, lifecycle, url, settings, supervisor, others_serve=open_first).run(sockets=[listener])
    if supervisor is None:
        obey_signals(0)
    if lifecycle.failure is not None:
        raise lifecycle.failure
    if lifecycle.engine_is_at_work:
        # Python would wait for the engine's thread forever.
        log.error("stopped while the engine was still working on a batch")
        logs.flush()
        os._exit(FORCED)
    log.info("stopped")
    if is_at_work():  # a model is being opened, which cannot be interrupted
        logs.flush()
        os._exit(0)


def _server_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # it would trust any caller on this machine; ours is in `api.access`
    )


def find_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """Tracing as the standard variables configure it; without them nothing is imported and nothing is sent.

    Raises ConfigError. Clusters set these variables for every container, so missing packages are not an error.
    """
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    exporter = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(environ.get, endpoints)) else "none")
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from service.observe.tracing import open_tracing
    except ModuleNotFoundError as error:
        log.warning("OTEL_ variables are set, but tracing is not installed: pip install 'repvgg[tracing]' (%s)", error)
        return None
    return open_tracing(exporter)


class DrainingServer(uvicorn.Server):
    """uvicorn closes its socket as soon as it is told to stop; this one first gives load balancers time to notice."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        url: str,
        settings: Settings,
        supervisor: tuple[Channel, Lifeline] | None,
        *,
        others_serve: bool,
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._url = url
        self._supervisor = supervisor
        self._settings = settings
        self._others_serve = others_serve
        self._grace_s = settings.timeout_ms / 1000 + LINGER_S
        self._announced = False
        self._last_classifier: Classifier | None = None
        self._reload: asyncio.Task[None] | None = None
        self._trimming: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's version raises the signal again at the end, and the process would not exit with 0.
        loop = asyncio.get_running_loop()
        if self._supervisor is not None:
            following = loop.create_task(self._follow_supervisor(*self._supervisor))
            yield
            following.cancel()
            return
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def _follow_supervisor(self, channel: Channel, lifeline: Lifeline) -> None:
        probes: Probes = self.config.app.state.probes  # type: ignore[union-attr]
        talking = asyncio.create_task(channel.run())
        try:
            await lifeline.run(self._on_signal, probes.why_not_alive)
        finally:
            talking.cancel()
        if not self._lifecycle.draining:
            log.error("the supervisor has ended")
            self._on_signal(signal.SIGTERM)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own sockets and connections are not used: see `runtime.http`."""
        await super().startup([])
        connections = Connections(
            app=self.config.loaded_app,
            head_s=self._settings.timeout_ms / 1000,
            most_discarded_bytes=2 * self._settings.max_body_bytes,
            app_state=self.lifespan.state,
            common_headers=lambda: self.server_state.default_headers,
            note_refusal=self._lifecycle.note_refused_connection,
            open=self.server_state.connections,
            tasks=self.server_state.tasks,
        )
        at_once = WORKER_ACCEPTS_AT_ONCE if self._supervisor else ACCEPTS_AT_ONCE
        make = partial(Connection, connections)
        self.servers = [Acceptor(listener, make, at_once) for listener in sockets or []]  # type: ignore[misc]

    def _on_signal(self, number: signal.Signals) -> None:
        name = number.name
        if number == signal.SIGHUP:
            self._reload = asyncio.create_task(self._reload_on(name))
        elif self.should_exit or (number == signal.SIGTERM and self._lifecycle.draining):
            self._force(f"another {name}")
        elif number == signal.SIGINT or self._lifecycle.classifier is None:
            log.info("%s: stopping once the requests in flight are answered", name)
            self._lifecycle.drain()
            self._stop()
        else:
            log.info("%s: draining, stopping in %g s", name, self._settings.drain_seconds)
            self._lifecycle.drain()
            asyncio.get_running_loop().call_later(self._settings.drain_seconds, self._stop)

    async def _reload_on(self, name: str) -> None:
        try:
            await self._lifecycle.reload()
        except ServiceError as error:
            log.error("%s: reload failed, the current model keeps serving: %s", name, error)

    def _stop(self) -> None:
        self.should_exit = True

    def _force(self, why: str) -> None:
        """End immediately, losing the requests in flight; without any, the normal end is just as quick."""
        if lost := len(self.server_state.tasks):
            log.error("stopped by force (%s): %d requests were lost", why, lost, extra={"lost": lost})
            logs.flush()
            os._exit(FORCED)
        self._stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections and finish the requests in flight."""
        too_long = f"requests in flight for more than {self._grace_s:g} s"
        limit = asyncio.get_running_loop().call_later(self._grace_s, self._force, too_long)
        await super().shutdown(sockets)
        limit.cancel()
        self._stop_trimming()

    def _stop_trimming(self) -> None:
        if self._trimming is not None:
            self._trimming.cancel()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: announce the model once it is open, and react to a new model after a reload."""
        if self._lifecycle.classifier is not None and not self._announced:
            self._announced = True
            self._announce()
            if self._supervisor is not None:
                with suppress(ChannelClosed):  # `_follow_supervisor` notices it too
                    await self._supervisor[0].ask(
                        "opened", serves=self._lifecycle.what_serves(), older=self._lifecycle.why_older
                    )
        if self._lifecycle.classifier is not self._last_classifier and not self._lifecycle.is_changing:
            self._last_classifier = self._lifecycle.classifier
            freeze_live_objects()
            self._stop_trimming()
            self._trimming = asyncio.create_task(return_free_memory())
        return await super().on_tick(counter) or self._lifecycle.failure is not None

    def _announce(self) -> None:
        """In one line for programs or as a table for people, which only the first of several workers prints."""
        banner = Banner.of(self._url, self._lifecycle.serving(), self._settings)
        if self._settings.log_format == "json":
            log.info("%s", banner.headline(), extra=asdict(banner))
            return
        log.info("%s", banner.headline())
        for row in [] if self._others_serve else banner.table():
            log.info("%s", row)
