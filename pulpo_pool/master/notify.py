"""Notifier: tells the service manager how the pool is, as sd_notify(3) would."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from pulpo_pool.states import PoolState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulpo_pool.clock import Clock

STATUS_PAUSE: Final = 1.0  # seconds between two changes of the status line
EXTENSION: Final = 15.0  # seconds that a drain asks for at a time, again at each look
_EXTENSION_PAUSE: Final = 1.0  # seconds
_SOONER: Final = 0.75  # of the pause is left out after a watchdog message that did not go out
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Says READY, RELOADING, STOPPING, STATUS and WATCHDOG to NOTIFY_SOCKET, if there is one.

    The master's loop looks in at every turn, so a watchdog that is fed shows a loop that goes
    round. What cannot be sent now is tried again at the next look.
    """

    def __init__(self, address: str | None, watchdog: float | None, clock: Clock) -> None:
        """`watchdog` is the time, in seconds, after which silence means death."""
        self._address = address
        self._pause = watchdog / 2 if watchdog and address else None
        self._clock = clock
        self._fed_at = self._status_at = self._extended_at = float("-inf")
        self._told: PoolState | None = None
        self._reloading = False
        self._status = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], clock: Clock) -> Notifier:
        """Return who speaks to the manager that started this process; silent without one."""
        meant_for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environ.get("WATCHDOG_USEC", "")
        watchdog = None
        if meant_for_us and microseconds.isascii() and microseconds.isdigit():
            watchdog = int(microseconds) / _MICROSECONDS
        return cls(environ.get("NOTIFY_SOCKET"), watchdog, clock)

    @property
    def wants_status(self) -> bool:
        """Whether a new status line would go out now."""
        due = self._clock.monotonic() >= self._status_at + STATUS_PAUSE
        return due and self._address is not None and self._told is not None

    def patience(self) -> float:
        """Return how long the next look may take to come, in seconds."""
        if self._pause is None:
            return float("inf")
        return max(0.0, self._fed_at + self._pause - self._clock.monotonic())

    def look(self, state: PoolState, *, reloading: bool) -> None:
        """Tell what has changed since the last look."""
        now = self._clock.monotonic()
        if self._pause is not None and now >= self._fed_at + self._pause:
            fed = self._say("WATCHDOG=1")
            self._fed_at = now if fed else now - self._pause * _SOONER
        if state >= PoolState.DRAINING:
            self._stop(now)
        elif state > PoolState.STARTING:
            self._run(now, reloading=reloading)

    def describe(self, status: str) -> None:
        """Show a line to people, unless it is shown already."""
        self._status_at = self._clock.monotonic()
        if status != self._status and self._say(f"STATUS={status}"):
            self._status = status

    def _run(self, now: float, *, reloading: bool) -> None:
        if self._told is None and self._say("READY=1"):
            self._told = PoolState.RUNNING
        if reloading and not self._reloading:
            self._reloading = self._say(f"RELOADING=1\nMONOTONIC_USEC={int(now * _MICROSECONDS)}")
        elif self._reloading and not reloading:
            self._reloading = not self._say("READY=1")

    def _stop(self, now: float) -> None:
        if self._told is not PoolState.DRAINING and self._say("STOPPING=1"):
            self._told = PoolState.DRAINING
        if now >= self._extended_at + _EXTENSION_PAUSE:
            self._extended_at = now
            self._say(f"EXTEND_TIMEOUT_USEC={int(EXTENSION * _MICROSECONDS)}")

    def _say(self, message: str) -> bool:
        return self._address is not None and sd_notify(self._address, message)


def sd_notify(address: str, message: str) -> bool:
    """Send a datagram to a path or, after "@", to an abstract name; tell whether it went out."""
    if address[:1] not in ("/", "@"):
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        try:
            connection.sendto(message.encode(), name)
        except OSError:  # nobody listens, or not now: no reason to stop working
            return False
    return True
