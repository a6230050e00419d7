"""Service: how keeper and web sit in their slots: they report, beat, wait, and leave when told."""

from __future__ import annotations

import select
from contextlib import suppress
from os import read, write
from typing import TYPE_CHECKING, Final

from setproctitle import setproctitle

from pulpo_pool.scoreboard import writing
from pulpo_pool.states import Activity, Order

if TYPE_CHECKING:
    from pulpo_pool.clock import Clock
    from pulpo_pool.seat import Seat

_AT_ONCE: Final = 4_096  # bytes


class Service:
    """A seat that is kept until the master says LEAVE, or is gone.

    Signals only wake it: platforms send TERM to every process of a pool, and keeper and web must
    outlive the workers.
    """

    def __init__(self, seat: Seat, clock: Clock) -> None:
        self.seat = seat
        self.orphaned = False  # the master is gone, and nobody keeps the scoreboard
        self._clock = clock
        self._poll = select.poll()
        self._poll.register(seat.lifeline, select.POLLIN)
        self._poll.register(seat.wakeup, select.POLLIN)
        self._watched: set[int] = set()

    @property
    def leaving(self) -> bool:
        """Whether it is time to go."""
        return self.orphaned or self.seat.life.order == Order.LEAVE

    def listen_to(self, bell: int) -> None:
        """Wake also when this descriptor, which does not block, becomes readable."""
        self._poll.register(bell, select.POLLIN)

    def watch(self, descriptor: int) -> None:
        """Wake also when this descriptor is readable; reading it is the caller's."""
        self._watched.add(descriptor)
        self._poll.register(descriptor, select.POLLIN)

    def wake(self) -> None:
        """End the wait, from another thread."""
        with suppress(BlockingIOError):  # it is full of such bytes already
            write(self.seat.wakeup_end, b"!")

    def report_ready(self, title: str = "") -> None:
        """Take the seat, for everybody to see; `ps` shows the title, by default the role."""
        row = self.seat.work
        with writing(row):
            row.serial = self.seat.serial
            row.activity = Activity.IDLE
            row.heartbeat = self._clock.monotonic()
            row.jobs_done = row.queue_up = 0
        setproctitle(f"pulpo-pool: {title or self.seat.label}")
        self.seat.ring()

    def report_leaving(self) -> None:
        """Say that the exit to come is a planned one."""
        row = self.seat.work
        with writing(row):
            row.activity = Activity.LEAVING
            row.exit_reason = self.seat.life.leave_as

    def wait(self, seconds: float) -> None:
        """Beat, then wait for a bell, a signal or the master's end, `seconds` at most."""
        self.seat.work.heartbeat = self._clock.monotonic()
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self.seat.lifeline:
                self.orphaned = True
                continue
            if descriptor in self._watched:
                continue
            with suppress(BlockingIOError):
                if not read(descriptor, _AT_ONCE):
                    self._poll.unregister(descriptor)  # its other end is gone: never readable again
