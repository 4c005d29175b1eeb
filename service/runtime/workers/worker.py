"""The main function of a worker process, one of several that serve on one port.

Until it listens to its supervisor, it is killed when that ends: it may be stuck in an import or in opening a model.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from service.observe import logs
from service.runtime.console import Console
from service.runtime.exits import report
from service.runtime.messages.channel import Channel
from service.runtime.messages.lifeline import Lifeline, end_with_supervisor
from service.runtime.signals import SIGNALS
from service.settings import Settings


def work(
    number: int,
    settings: Settings,
    listener: socket.socket,
    connection: socket.socket,
    lifeline: socket.socket,
    open_first: bool,
) -> None:
    """Run a worker in this process."""
    end_with_supervisor(True)
    for each in SIGNALS:  # the process group may get them too; the supervisor forwards those that count
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    console = Console.standard(os.environ)
    logs.configure(settings.log_format, console.log_stream, worker=number, background=True)
    from service.runtime.server import serve  # the web framework: not before it is needed

    try:
        serve(settings, listener, supervisor=(Channel(connection), Lifeline(lifeline)), open_first=open_first)
    except Exception as error:  # noqa: BLE001  # as in `main`
        sys.exit(report(error, "serve", console))
