"""Wire: a socket that greenstalk speaks through; it sends ahead, and waits so that it can stop.

greenstalk takes a connected `socket.socket` and reads through its `makefile`, so that all it
sends passes `sendall`, and all it reads `recv_into`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_AT_ONCE: Final = 16_384  # bytes of answers read in one call; longer ones are read on
_FIRST_LINE: Final = 4_096  # bytes; whoever says more without an end of line is no beanstalkd
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class WaitEnded(Exception):
    """No reply before the deadline or the interrupt; it is still owed and may be read later."""


class OutOfStep(OSError):
    """What comes is not what was asked for; the connection is of no more use."""


class _Manners(NamedTuple):
    """How to wait for a reply's first byte. Times are monotonic seconds."""

    until: float
    silent_at: float  # when the server should have spoken at the latest
    interrupts: tuple[int, ...]


class Wire(socket.socket):
    """A connected stream that waits `patience` seconds at most for its peer.

    The kernel keeps that time, so that a reply costs one system call and no poll before it.
    """

    def __init__(self, family: int, kind: int, protocol: int, patience: float) -> None:
        super().__init__(family, kind, protocol)
        self.patience = patience
        self._sent_ahead: deque[bytes] = deque()
        self._unread = b""
        self._manners: _Manners | None = None
        self._unread_line = _FIRST_LINE
        self._readable = select.poll()
        self._readable.register(self, select.POLLIN)

    def be_patient(self) -> None:
        """Block in the kernel from now on, for `patience` seconds at most."""
        self.settimeout(None)
        seconds = int(self.patience)
        timeval = struct.pack("ll", seconds, max(1, int((self.patience - seconds) * 1_000_000)))
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def send_ahead(self, commands: Iterable[bytes]) -> None:
        """Send several commands in one write; each is skipped when greenstalk sends it after.

        The replies are then read one by one, as each command is called. The peer must be able
        to hold all of them: nothing is read meanwhile.
        """
        self._sent_ahead.extend(commands)
        self._send(b"".join(self._sent_ahead))

    def ask(self, commands: bytes) -> bytes:
        """Send commands and return the first that comes: nothing may be owed until then."""
        self._send(commands)
        try:
            return self.recv(_AT_ONCE)
        except BlockingIOError:
            raise self._silence() from None

    def unread(self, answers: bytes, *commands: bytes) -> None:
        """Have greenstalk read what `ask` has returned, when it sends these commands."""
        self._unread += answers
        self._sent_ahead.extend(commands)

    def send_with(self, command: bytes, following: bytes) -> None:
        """Send a command ahead, and in the same write one whose call `expect` will announce."""
        self._sent_ahead.append(command)
        self._send(command + following)

    def expect(self, command: bytes) -> None:
        """Skip this command when it is sent: its reply is owed already."""
        self._sent_ahead.append(command)

    def mind(self, until: float, silent_at: float, interrupts: tuple[int, ...]) -> None:
        """Let the wait for the next reply end early, with WaitEnded, while it has not begun."""
        self._manners = _Manners(until, silent_at, interrupts)

    def mind_no_more(self) -> None:
        """Wait for the next reply as for any: what `mind` was for may have been read already."""
        self._manners = None

    def has_news(self) -> bool:
        """Tell whether something can be read now; the end of the stream counts."""
        return bool(self._unread or self._readable.poll(0))

    # -- what greenstalk calls ----------------------------------------------------------------

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send, unless this was sent ahead."""
        del flags
        if not self._sent_ahead:
            self._send(data)
        elif self._sent_ahead.popleft() != data:
            raise OutOfStep("another command was sent ahead")

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Wait for bytes and read them; raise WaitEnded, or TimeoutError after `patience`."""
        manners, self._manners = self._manners, None
        if self._unread:
            return self._read_again(buffer)
        if manners is not None:
            self._wait(manners)
        try:
            received = super().recv_into(buffer, nbytes, flags)
        except BlockingIOError:
            raise self._silence() from None
        if self._unread_line:
            self._check_first_line(bytes(buffer[:received]))
        return received

    def _read_again(self, buffer: Any) -> int:
        size = min(len(self._unread), len(buffer))
        buffer[:size] = self._unread[:size]
        self._unread = self._unread[size:]
        return size

    def _silence(self) -> TimeoutError:
        return TimeoutError(f"no answer for {self.patience:g} seconds")

    # -- waiting ------------------------------------------------------------------------------

    def _send(self, data: Any) -> None:
        rest = data
        while rest:
            try:
                rest = memoryview(rest)[sent:] if (sent := self.send(rest)) < len(rest) else b""
            except BlockingIOError:
                raise TimeoutError(f"takes nothing for {self.patience:g} seconds") from None

    def _wait(self, manners: _Manners) -> None:
        both = self._readable
        if manners.interrupts:
            both = select.poll()
            for descriptor in (self.fileno(), *manners.interrupts):
                both.register(descriptor, select.POLLIN)
        end = min(manners.until, manners.silent_at)
        while True:
            seconds = max(0.0, end - time.monotonic())
            ready = {descriptor for descriptor, _ in both.poll(seconds * 1_000)}
            if self.fileno() in ready:
                return
            if not ready and seconds > 0:
                continue  # poll counts milliseconds
            if not ready and manners.silent_at < manners.until:
                raise TimeoutError("no answer to a wait that was over")
            raise WaitEnded

    def _check_first_line(self, received: bytes) -> None:
        if b"\n" in received:
            self._unread_line = 0
            return
        self._unread_line = max(1, self._unread_line - len(received))
        if self._unread_line == 1:
            raise OutOfStep("it sends no lines: another program listens there")


def connect(host: str, port: int, patience: float) -> Wire:
    """Return a connection; raise OSError if there is none within `patience` seconds."""
    failure: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        wire = Wire(family, kind, protocol, patience)
        try:
            wire.settimeout(patience)
            wire.connect(address)
        except OSError as error:
            wire.close()
            failure = error
            continue
        wire.be_patient()
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that vanished without a word is noticed in a minute, not in two hours.
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return wire
    raise failure
