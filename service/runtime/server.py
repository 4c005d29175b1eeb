"""The web server around the application: its signals, its end.

1. SIGTERM: /readyz says no at once, requests are served on for `drain_seconds`, then those in flight are finished;
2. Ctrl-C skips the waiting, but not the finishing;
3. a second SIGTERM or Ctrl-C, or a request that outlives its deadline, forces the end, and the log says how many
   requests were lost;
4. SIGHUP is POST /models/reload;
5. a start that fails ends the process with its reason; a clean end is exit code 0, one that lost requests 1;
6. an engine that is stuck does not keep the process from ending;
7. one of several workers is given its signals by the supervisor, and ends when that does.
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

from service.api.lifecycle import Lifecycle
from service.api.processes import SingleProcess
from service.app import create_app
from service.classify.classifier import Classifier
from service.engines.base import Engine
from service.errors import ServiceError
from service.machine.priority import freeze_live_objects, shorten_switch_interval
from service.runtime.banner import Banner
from service.runtime.channel import Channel, ChannelClosed
from service.runtime.connections import Connection
from service.runtime.listener import BACKLOG, url_of
from service.runtime.signals import SIGNALS
from service.runtime.worker_group import WorkerGroup
from service.settings import Settings

if TYPE_CHECKING:
    from service.observe.tracing import Tracing

# Connections taken in one go of the event loop, which does not see before the end of it that they run out.
ACCEPTED_AT_ONCE = 128
# Of several workers none should take all that come at once, before another one wakes up.
WORKER_ACCEPTS_AT_ONCE = 1
# Longer than the 60 s of common proxies: whoever closes an idle connection last never sees a reset.
KEEP_ALIVE_S = 75
# Every request ends by its deadline; after that and this, a client that does not read its answer is cut off.
LINGER_S = 5
FORCED = 1

log = logging.getLogger(__name__)


def serve(
    settings: Settings,
    listener: socket.socket,
    engine: Engine | None = None,
    channel: Channel | None = None,
    open_first: bool = False,
) -> None:
    """Blocks until a signal. Raises what kept the service from starting.

    `engine` instead of the one of the settings, `channel` and `open_first` as in create_app.
    """
    tracing = find_tracing(os.environ)
    join = partial(WorkerGroup, channel) if channel else SingleProcess
    app = create_app(settings, engine=engine, join=join, open_first=open_first, tracing=tracing)
    if channel:
        channel.answer("why not alive", app.state.probes.why_not_alive)
    lifecycle: Lifecycle = app.state.lifecycle
    config = uvicorn.Config(
        app,
        http=partial(Connection, head_s=settings.timeout_ms / 1000),  # type: ignore[arg-type]  # it is only called
        lifespan="on",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=WORKER_ACCEPTS_AT_ONCE if channel else ACCEPTED_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    shorten_switch_interval()
    url = url_of(listener)
    log.info("listening on %s, opening the model %s", url, settings.model, extra={"url": url})
    DrainingServer(config, lifecycle, url, settings, channel, others_serve=open_first).run(sockets=[listener])
    if lifecycle.failure is not None:
        raise lifecycle.failure
    if lifecycle.engine_is_at_work:
        # Python would wait for its thread for ever at the end.
        log.error("stopped, although the engine is still at work on a batch")
        os._exit(FORCED)
    log.info("stopped")


def find_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """What the standard variables ask for: without them nothing is imported, and nothing is ever sent.

    Raises ConfigError. Clusters set these variables for every container, so that it is no error if it is not installed.
    """
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    exporter = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(environ.get, endpoints)) else "none")
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from service.observe.tracing import open_tracing
    except ModuleNotFoundError as error:
        log.warning("there are OTEL_ variables, but no tracing: pip install 'repvgg[tracing]' (%s)", error)
        return None
    return open_tracing(exporter)


class DrainingServer(uvicorn.Server):
    """uvicorn closes its socket as soon as it is told to end; this one first lets load balancers notice."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        url: str,
        settings: Settings,
        channel: Channel | None,
        *,
        others_serve: bool,
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._url = url
        self._channel = channel
        self._settings = settings
        self._others_serve = others_serve
        self._grace_s = settings.timeout_ms / 1000 + LINGER_S
        self._announced = False
        self._lasting: Classifier | None = None
        self._reload: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end, and the process would not exit with 0.
        loop = asyncio.get_running_loop()
        if self._channel is not None:
            obeying = loop.create_task(self._obey(self._channel))
            yield
            obeying.cancel()
            return
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def _obey(self, channel: Channel) -> None:
        async def obey(name: str) -> None:
            self._on_signal(signal.Signals[name])

        channel.answer("signal", obey)
        await channel.run()
        if not self._lifecycle.draining:
            log.error("the supervisor is gone")
            self._on_signal(signal.SIGTERM)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)  # of the system; uvicorn's is also how many connections are accepted at once

    def _on_signal(self, number: signal.Signals) -> None:
        name = number.name
        if number == signal.SIGHUP:
            self._reload = asyncio.create_task(self._reload_on(name))
        elif self.should_exit or (number == signal.SIGTERM and self._lifecycle.draining):
            self._force(f"another {name}")
        elif number == signal.SIGINT or self._lifecycle.classifier is None:
            log.info("%s: stopping when the requests in flight are answered", name)
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
            log.error("%s: no other model serves: %s", name, error)

    def _stop(self) -> None:
        self.should_exit = True

    def _force(self, why: str) -> None:
        """At once, unless nothing is lost by waiting: then the usual end is quick."""
        if lost := len(self.server_state.tasks):
            log.error("stopped by force (%s): %d requests were lost", why, lost, extra={"lost": lost})
            os._exit(FORCED)
        self._stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """From now on there are no new connections."""
        too_long = f"requests in flight for more than {self._grace_s:g} s"
        limit = asyncio.get_running_loop().call_later(self._grace_s, self._force, too_long)
        await super().shutdown(sockets)
        limit.cancel()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: has the opening come to an end, or has another model taken the place of the first?"""
        if self._lifecycle.classifier is not None and not self._announced:
            self._announced = True
            self._announce()
            if self._channel is not None:
                with suppress(ChannelClosed):  # `_obey` sees it too
                    await self._channel.ask("opened", serves=self._lifecycle.what_serves())
        if self._lifecycle.classifier is not self._lasting and not self._lifecycle.is_changing:
            self._lasting = self._lifecycle.classifier
            freeze_live_objects()
        return await super().on_tick(counter) or self._lifecycle.failure is not None

    def _announce(self) -> None:
        """To programs in one line, to people in a table; of several workers the first one's is that of all."""
        banner = Banner.of(self._url, self._lifecycle.serving(), self._settings)
        if self._settings.log_format == "json":
            log.info("%s", banner.headline(), extra=asdict(banner))
            return
        log.info("%s", banner.headline())
        for row in [] if self._others_serve else banner.table():
            log.info("%s", row)
