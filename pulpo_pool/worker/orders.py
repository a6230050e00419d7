"""Orders: what a worker is told, by signals, by its master, by its master's end; and waiting."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Final

from pulpo_pool.signals import set_handler, set_mask
from pulpo_pool.states import ExitReason, Order

if TYPE_CHECKING:
    from types import FrameType

    from pulpo_pool.clock import Clock
    from pulpo_pool.seat import Seat

EXIT_FAILED: Final = 1
LONGEST_SILENCE: Final = 5.0  # seconds between two heartbeats of a worker without a job
_WORK: Final = int(Order.WORK)  # looked at in each turn: to look in an enum costs 0.07 us
_ONLY_WAKE: Final = (signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT,
                     signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # fmt: skip


class Orders:
    """What one life in a slot was told. `signals` are its handlers, for whoever puts them back."""

    def __init__(self, seat: Seat, clock: Clock, drain_timeout: float) -> None:
        self._seat = seat
        self._life = seat.life  # looked at twice a job
        self._clock = clock
        self._drain_timeout = drain_timeout  # seconds
        self._told_to_stop = False
        look, leave = self._on_look, self._on_leave
        self.signals = {
            **dict.fromkeys((signal.SIGTERM, signal.SIGINT), leave),
            **dict.fromkeys(_ONLY_WAKE, look),
        }

    def listen(self) -> None:
        """Note signals, never act: a handler that raised could tear a reply in two."""
        for number, handler in self.signals.items():
            set_handler(number, handler)
        set_mask(signal.SIG_SETMASK, ())

    def note_orphaned(self) -> None:
        """Called from the lease thread: the master is gone, so nobody else keeps the deadline."""
        self._told_to_stop = True
        last = threading.Timer(self._drain_timeout, os._exit, (EXIT_FAILED,))
        last.daemon = True
        last.start()

    def is_stopping(self) -> bool:
        """Tell whether the worker is to leave."""
        return self._told_to_stop or self._life.order == Order.LEAVE

    def is_resting(self) -> bool:
        """Tell whether its master has it rest."""
        return bool(self._life.order == Order.REST)

    def is_working(self) -> bool:
        """Tell whether nobody said anything else."""
        return not self._told_to_stop and self._life.order == _WORK

    def leaving_reason(self) -> ExitReason:
        """Return why it is to leave; whoever sends a signal past the master is an operator."""
        life = self._life
        return ExitReason(life.leave_as) if life.order == Order.LEAVE else ExitReason.OPERATOR

    def woken(self) -> bool:
        """Empty the wake-up pipe; tell whether anything was in it."""
        try:
            return bool(os.read(self._seat.wakeup, 4_096))
        except BlockingIOError:
            return False

    def nap(self, seconds: float) -> None:
        """Wait for a signal, the master's end or the time, with a heartbeat now and then."""
        # A lifeline that has ended would end every nap at once.
        watched = [self._seat.wakeup, *([] if self._told_to_stop else [self._seat.lifeline])]
        while seconds > 0:
            self._seat.work.heartbeat = self._clock.monotonic()
            if select.select(watched, [], [], min(seconds, LONGEST_SILENCE))[0]:
                return
            seconds -= LONGEST_SILENCE

    def _on_leave(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_stop = True

    def _on_look(self, _number: int, _frame: FrameType | None) -> None:
        """The wake-up descriptor has ended a wait already; the next turn reads the order."""
