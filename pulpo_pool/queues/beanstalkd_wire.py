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
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_AT_ONCE: Final = 16_384  # bytes of answers read in one call; longer ones are read on
_A_MOMENT: Final = 0.004  # seconds; the kernel may round it up to a tick
_FIRST_LINE: Final = 4_096  # bytes; whoever says more without an end of line is no beanstalkd
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class WaitEnded(Exception):
    """No reply before the deadline or the interrupt; it is still owed and may be read later."""


class OutOfStep(OSError):
    """What comes is not what was asked for; the connection is of no more use."""


class Wire(socket.socket):
    """A connected stream that waits `patience` seconds at most for its peer.

    The kernel keeps that time, so that a reply costs one system call and no poll before it.
    """

    def __init__(self, family: int, kind: int, protocol: int, patience: float) -> None:
        super().__init__(family, kind, protocol)
        self.patience = patience
        self._sent_ahead: deque[bytes] = deque()
        self._came = b""
        self._read_up_to = 0
        self._unread_line = _FIRST_LINE
        self.gathers = False  # whether `ask` waits for more than the first byte
        self._readable = select.poll()
        self._readable.register(self, select.POLLIN)

    def be_patient(self) -> None:
        """Block in the kernel from now on, for `patience` seconds at most."""
        self.settimeout(None)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self.patience))
        self._await(1, self.patience)

    def send_ahead(self, commands: Iterable[bytes]) -> None:
        """Send several commands in one write; each is skipped when greenstalk sends it after.

        The replies are then read one by one, as each command is called. The peer must be able
        to hold all of them: nothing is read meanwhile.
        """
        self._sent_ahead.extend(commands)
        self._send(b"".join(self._sent_ahead))

    def ask(self, commands: bytes) -> bytes:
        """Send commands and return the first that comes: nothing may be owed until then."""
        # Not by way of _send and _receive, as far as it goes: this is each turn's one exchange.
        try:
            unsent = len(commands) - self.send(commands)
            if unsent:
                self._send(memoryview(commands)[-unsent:])
        except BlockingIOError:
            raise TimeoutError(f"takes nothing for {self.patience:g} seconds") from None
        try:
            came = self.recv(_AT_ONCE)
        except BlockingIOError:
            if not self.gathers:
                raise TimeoutError(f"no answer for {self.patience:g} seconds") from None
            return self._receive()
        if self._unread_line:
            self._check_first_line(came)
        return came

    def gather(self, least: int) -> None:
        """Let `ask` wait a moment for `least` bytes, until something else is read.

        A server writes each answer by itself, and each wakes who waits for it. In a drain one turn
        in five began after the first of its two: 63 us of CPU a job in the mean, and 54 so.
        """
        if not self.gathers:
            self.gathers = True
            self._await(least, _A_MOMENT)

    def receive(self) -> bytes:
        """Return what has come and nobody has read; wait for something if there is nothing."""
        if not self._has_unread():
            return self._receive()
        unread, self._came = self._came[self._read_up_to :], b""
        self._read_up_to = 0
        return unread

    def unread(self, answers: bytes, command: bytes) -> None:
        """Have greenstalk read what was received, as if it came when it sends this command."""
        self._came, self._read_up_to = answers + self._came[self._read_up_to :], 0
        self._sent_ahead.append(command)

    def send_with(self, command: bytes, following: bytes) -> None:
        """Send a command ahead, and in the same write one whose answer `receive` will return."""
        self._sent_ahead.append(command)
        self._send(command + following)

    def wait(self, until: float, silent_at: float, interrupts: tuple[int, ...]) -> None:
        """Wait until something can be read. Times are monotonic seconds.

        Raises WaitEnded then or when an interrupt is readable, TimeoutError when the server should
        have spoken at the latest.
        """
        if self._has_unread():
            return
        self._take_each()
        both = self._readable
        if interrupts:
            both = select.poll()
            for descriptor in (self.fileno(), *interrupts):
                both.register(descriptor, select.POLLIN)
        end = min(until, silent_at)
        while True:
            seconds = max(0.0, end - time.monotonic())
            ready = {descriptor for descriptor, _ in both.poll(seconds * 1_000)}
            if self.fileno() in ready:
                return
            if not ready and seconds > 0:
                continue  # poll counts milliseconds
            if not ready and silent_at < until:
                raise TimeoutError("no answer to a wait that was over")
            raise WaitEnded

    def has_news(self) -> bool:
        """Tell whether something can be read now; the end of the stream counts."""
        self._take_each()
        return self._has_unread() or bool(self._readable.poll(0))

    # -- what greenstalk calls ----------------------------------------------------------------

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send, unless this was sent ahead."""
        del flags
        if not self._sent_ahead:
            self._send(data)
        elif self._sent_ahead.popleft() != data:
            raise OutOfStep("another command was sent ahead")

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Read a line at most, so that nothing hides in greenstalk's own buffer between two calls.

        Raises TimeoutError after `patience`.
        """
        del nbytes, flags
        if not self._has_unread():
            self._came, self._read_up_to = self._receive(), 0
        came, start = self._came, self._read_up_to
        longest = min(len(came), start + len(buffer))
        end = came.find(b"\n", start, longest) + 1 or longest
        buffer[: end - start] = came[start:end]
        self._read_up_to = end
        return end - start

    # -- the socket ---------------------------------------------------------------------------

    def _has_unread(self) -> bool:
        return self._read_up_to < len(self._came)

    def _receive(self) -> bytes:
        self._take_each()
        try:
            came = self.recv(_AT_ONCE)
        except BlockingIOError:
            raise TimeoutError(f"no answer for {self.patience:g} seconds") from None
        if self._unread_line:
            self._check_first_line(came)
        return came

    def _send(self, data: Any) -> None:
        try:
            sent = self.send(data)
            while sent < len(data):
                data = memoryview(data)[sent:]
                sent = self.send(data)
        except BlockingIOError:
            raise TimeoutError(f"takes nothing for {self.patience:g} seconds") from None

    def _take_each(self) -> None:
        if self.gathers:
            self.gathers = False
            self._await(1, self.patience)

    def _await(self, least: int, seconds: float) -> None:
        """Let the kernel return from a read with `least` bytes, or with less after `seconds`."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def _check_first_line(self, received: bytes) -> None:
        if b"\n" in received:
            self._unread_line = 0
            return
        self._unread_line = max(1, self._unread_line - len(received))
        if self._unread_line == 1:
            raise OutOfStep("it sends no lines: another program listens there")


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("ll", whole, max(1, int((seconds - whole) * 1_000_000)))


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
