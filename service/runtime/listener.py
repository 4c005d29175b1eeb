"""The listening socket.

1. if it cannot be opened, the error says why and what to do;
2. TCP itself closes connections whose clients have vanished.
"""

from __future__ import annotations

import errno
import socket

from service.errors import AddressUnavailable

BACKLOG = 2048
# Connections inherit these, and so detect that a client has vanished silently: after VANISHED_S without an
# acknowledgement of what was sent, or of a probe, which is sent after a minute of silence.
VANISHED_S = 30
FOR_CONNECTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_S * 1000),
)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises AddressUnavailable."""
    listener: socket.socket | None = None
    try:
        # asyncio sets TCP_NODELAY only if the protocol is given, and without it answers are delayed by 40 ms.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for level, option, value in FOR_CONNECTIONS:
            listener.setsockopt(level, option, value)
        listener.bind(address)
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise AddressUnavailable(f"cannot listen on {host} port {port}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "unknown host; give an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    known = {
        errno.EADDRINUSE: "the port is in use; stop the other program, or choose another --port (0 picks a free one)",
        errno.EACCES: "not permitted; ports below 1024 need privileges, choose a higher --port",
        errno.EADDRNOTAVAIL: "this machine does not have this address; --host 0.0.0.0 listens on all that it has",
    }
    return known.get(error.errno or 0, error.strerror or str(error))


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
