"""The control socket: JSON lines in, JSON lines out, from the master's own loop."""

from __future__ import annotations

import os
import selectors
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pulpo_pool.errors import AlreadyRunning, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONGEST_LINE: Final = 65_536  # bytes
MOST_CLIENTS: Final = 16


class Request(msgspec.Struct):
    """What a client asks for. `argument` is a worker count or a slot, where one is needed."""

    command: str
    argument: str = ""


class Refused(Exception):
    """The command cannot be carried out; the text says why."""


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)


class ControlSocket:
    """Listens for `pulpo-pool status` and its sisters. No client can make the master wait."""

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        answer: Callable[[Request], dict[str, Any]],
    ) -> None:
        self._path = path
        self._selector = selector
        self._answer = answer
        self._clients: dict[socket.socket, _Client] = {}
        self._listener = _listen(path)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop listening, and hang up on everybody: clients that wait for the end see it."""
        for client in list(self._clients.values()):
            self._hang_up(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        with suppress(OSError):
            self._path.unlink()

    def _accept(self, _mask: int) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            if len(self._clients) >= MOST_CLIENTS:
                connection.close()
                return
            connection.setblocking(False)
            client = self._clients[connection] = _Client(connection)
            self._selector.register(
                connection, selectors.EVENT_READ, lambda mask: self._serve(client, mask)
            )

    def _serve(self, client: _Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                received = client.connection.recv(LONGEST_LINE)
                if not received:
                    self._hang_up(client)
                    return
                client.received += received
                self._answer_lines(client)
            if client.unsent:
                sent = client.connection.send(client.unsent)
                del client.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up(client)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        if client.connection in self._clients:
            self._selector.modify(client.connection, wanted, lambda mask: self._serve(client, mask))

    def _answer_lines(self, client: _Client) -> None:
        while b"\n" in client.received:
            line, _, rest = client.received.partition(b"\n")
            client.received = bytearray(rest)
            client.unsent += msgspec.json.encode(self._reply(bytes(line))) + b"\n"
        if len(client.received) > LONGEST_LINE or len(client.unsent) > 16 * LONGEST_LINE:
            raise ConnectionAbortedError

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            return {"ok": True, **self._answer(msgspec.json.decode(line, type=Request))}
        except msgspec.MsgspecError as error:
            return {"ok": False, "error": f"no request: {error}"}
        except Refused as error:
            return {"ok": False, "error": str(error)}

    def _hang_up(self, client: _Client) -> None:
        if self._clients.pop(client.connection, None) is not None:
            self._selector.unregister(client.connection)
            client.connection.close()


def _listen(path: Path) -> socket.socket:
    """Bind with access for this user alone. The lock is held, so an old socket is nobody's."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.parent.stat().st_uid
        if owner != os.getuid():
            raise AlreadyRunning(f"control socket: {path.parent} belongs to user {owner}")
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(MOST_CLIENTS)
        listener.setblocking(False)
    except OSError as error:
        raise ConfigError(f"control socket: {path} cannot be used: {error}") from error
    return listener
