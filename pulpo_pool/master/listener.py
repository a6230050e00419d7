"""The HTTP port, bound before the first fork so that a taken one is known at once."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Final

import psutil

from pulpo_pool.errors import AlreadyRunning, ConfigError

PORTS_TRIED: Final = 100


def bind(host: str, port: int, *, ports_tried: int = 1) -> socket.socket:
    """Return a listening socket on the first free port of `ports_tried` from `port` on.

    Raises AlreadyRunning naming who has the port, ConfigError for an address that is not ours.
    """
    for candidate in range(port, min(port + ports_tried, 65_536)):
        try:
            return _listen(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"http: cannot listen on {host}:{port}: {error}") from error
    owner = _owner_of(port)
    raise AlreadyRunning(
        f"http: {host}:{port} is taken{f' by pid {owner}' if owner else ''}: "
        "give another with --http HOST:PORT, or --http off"
    )


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _owner_of(port: int) -> int | None:
    with suppress(psutil.Error, OSError, RuntimeError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr.port == port:
                return connection.pid
    return None
