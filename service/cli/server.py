"""The web server around the application: its socket, its signals, its end.

1. a port that is taken is said at once, with a way out;
2. SIGTERM: /readyz says no at once, requests are served on for `drain_seconds`, then those in flight are finished;
3. Ctrl-C, or a second signal, skips the waiting, but not the finishing;
4. a start that fails ends the process with its reason; a clean end is exit code 0;
5. an engine that is stuck does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from service.api.answers import served_model
from service.api.lifecycle import Lifecycle
from service.app import create_app
from service.cli.connections import Connection
from service.cli.console import AddressUnavailable
from service.engines.base import Engine
from service.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048
# Connections taken in one go of the event loop, which does not see before the end of it that they run out.
ACCEPTED_AT_ONCE = 128
# Longer than the 60 s of common proxies: whoever closes an idle connection last never sees a reset.
KEEP_ALIVE_S = 75
# Every request ends by its deadline; after that and this, a client that does not read its answer is cut off.
LINGER_S = 5

log = logging.getLogger(__name__)


def serve(settings: Settings, listener: socket.socket, engine: Engine | None = None) -> None:
    """Blocks until a signal. Raises what kept the service from starting.

    `engine` instead of the one of the settings, as in create_app.
    """
    app = create_app(settings, engine=engine)
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
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.timeout_ms / 1000) + LINGER_S,
    )
    url = url_of(listener)
    log.info("listening on %s, opening the model %s", url, settings.model, extra={"url": url})
    DrainingServer(config, lifecycle, url, settings.drain_seconds).run(sockets=[listener])
    if lifecycle.failure is not None:
        raise lifecycle.failure
    if lifecycle.classifier is not None and not lifecycle.classifier.batcher.idle:
        # Its thread cannot be stopped, and Python would wait for it for ever at the end.
        log.error("stopped, although the engine is still at work on a batch")
        os._exit(1)
    log.info("stopped")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises AddressUnavailable."""
    listener: socket.socket | None = None
    try:
        # With the protocol named: asyncio sets TCP_NODELAY only where it is, and without that answers wait 40 ms.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise AddressUnavailable(f"cannot listen on {host} port {port}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host is not known; give an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    known = {
        errno.EADDRINUSE: "the port is in use; stop the other program, or give another --port (0 takes any free one)",
        errno.EACCES: "not permitted; ports below 1024 need privileges, give a higher --port",
        errno.EADDRNOTAVAIL: "this machine does not have the address; give --host 0.0.0.0 for all that it has",
    }
    return known.get(error.errno or 0, error.strerror or str(error))


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class DrainingServer(uvicorn.Server):
    """uvicorn closes its socket as soon as it is told to end; this one first lets load balancers notice."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, url: str, drain_seconds: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._url = url
        self._drain_seconds = drain_seconds
        self._announced = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end, and the process would not exit with 0.
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has set it to what is accepted at once

    def _on_signal(self, number: signal.Signals) -> None:
        name = number.name
        if self.should_exit:
            self.force_exit = number == signal.SIGINT
        elif number == signal.SIGINT or self._lifecycle.draining or self._lifecycle.classifier is None:
            log.info("%s: stopping when the requests in flight are answered", name)
            self._lifecycle.drain()
            self.should_exit = True
        else:
            log.info("%s: draining, stopping in %g s", name, self._drain_seconds)
            self._lifecycle.drain()
            asyncio.get_running_loop().call_later(self._drain_seconds, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: has the opening come to an end?"""
        if self._lifecycle.classifier is not None and not self._announced:
            self._announced = True
            self._announce()
        return await super().on_tick(counter) or self._lifecycle.failure is not None

    def _announce(self) -> None:
        model = served_model(self._lifecycle.serving()).model_dump()
        log.info(
            "serving %s %s with %s %s on %s",
            *model.values(),
            self._url,
            extra={"url": self._url} | {f"model_{name}": value for name, value in model.items()},
        )
