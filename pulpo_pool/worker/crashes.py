"""CrashCheck: a job that killed too many workers is not given to another one, nor too soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulpo_pool.crashes import Coroner, CrashBook, crash_delay
from pulpo_pool.queues.adapter import Bury, BuryReason, Rollback

if TYPE_CHECKING:
    from pathlib import Path

    from pulpo_pool.clock import Clock
    from pulpo_pool.queues.adapter import QueueAdapter, Reservation
    from pulpo_pool.seat import Seat

_AGAIN_AT_ONCE: Final = 1  # crash; from the next on the job waits


class CrashCheck:
    """Asks the crash book about each job, where the engine itself does not count crashes."""

    def __init__(self, seat: Seat, crashes: Path, clock: Clock, *, max_crashes: int) -> None:
        self._slot = seat.slot
        self._max_crashes = max_crashes
        self._clock = clock
        coroner = Coroner(seat.pool, seat.instance, crashes)
        self._book = CrashBook(seat.scoreboard, coroner)
        self._counts_here = False

    def open_for(self, queue: QueueAdapter) -> None:
        """Begin with a queue that was just opened."""
        self._counts_here = self._book.open_at(queue)

    def verdict(self, reservation: Reservation) -> Bury | Rollback | None:
        """Tell a reservation its crashes; return what becomes of it if it must not run now.

        Each kick forgives as many as would bury the job. One that crashed a second time, or more
        often, is given back until its wait is over, since its engine handed it on at once.
        """
        if not self._counts_here or self._book.clears(reservation.job_id):
            return None
        deaths = self._book.deaths_with(reservation, self._slot)
        if not deaths:
            return None
        crashes = max(0, len(deaths) - reservation.pardons * self._max_crashes)
        reservation.crashes = crashes
        worker, at = deaths[-1]
        if crashes >= self._max_crashes:
            setback = self._book.setback_of(reservation, worker)
            text = setback.error if setback else f"worker {worker} died while it held this job"
            return Bury(reservation, BuryReason.CRASHED, text, setback)
        if crashes > _AGAIN_AT_ONCE:
            wait = at + crash_delay(crashes, of=(reservation.job_id, worker)) - self._clock.now()
            if wait > 0:
                return Rollback(reservation, wait, free=True)
        return None
