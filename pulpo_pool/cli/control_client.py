"""The other end of the control socket: asks a running pool, in one line each way."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pulpo_pool.errors import PoolNotRunning, PulpoPoolError
from pulpo_pool.master.rundir import socket_path

if TYPE_CHECKING:
    from pulpo_pool.settings import Settings

ANSWER_TIMEOUT: Final = 10.0  # seconds; the master answers between two naps


class CommandRefused(PulpoPoolError):
    """The pool said no; the text is its reason."""


def ask(settings: Settings, command: str, argument: str = "") -> dict[str, Any]:
    """Send one command and return the pool's answer.

    Raises PoolNotRunning if nobody listens, CommandRefused if the pool refuses.
    """
    with _connected(settings) as connection:
        return _exchange(connection, command, argument)


def ask_and_wait(settings: Settings, command: str) -> dict[str, Any]:
    """Send one command, then wait until the pool has gone: its end hangs up the connection."""
    with _connected(settings) as connection:
        answer = _exchange(connection, command, "")
        connection.settimeout(None)
        while connection.recv(4_096):
            pass
        return answer


def _connected(settings: Settings) -> socket.socket:
    path = socket_path(settings.control_socket)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_TIMEOUT)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise PoolNotRunning(
            f"no pool named {settings.name!r} runs from {settings.state_dir} ({error.strerror}): "
            "start one with `pulpo-pool -w 8`, or give its --name and --state-dir"
        ) from error
    return connection


def _exchange(connection: socket.socket, command: str, argument: str) -> dict[str, Any]:
    request = {"command": command, "argument": argument}
    received = bytearray()
    try:
        connection.sendall(msgspec.json.encode(request) + b"\n")
        while not received.endswith(b"\n"):
            piece = connection.recv(65_536)
            if not piece:
                raise PoolNotRunning("the pool hung up before it answered")
            received += piece
    except OSError as error:
        raise PoolNotRunning(f"the pool does not answer: {error}") from error
    answer = msgspec.json.decode(received, type=dict[str, Any])
    if not answer.pop("ok"):
        raise CommandRefused(str(answer["error"]))
    return answer
