"""CrashCheck: a job that killed too many workers is not given to another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpo_pool.crashes import CRASH_FILE, CrashBook

if TYPE_CHECKING:
    from pathlib import Path

    from pulpo_pool.queues.adapter import QueueAdapter, Reservation
    from pulpo_pool.seat import Seat


class CrashCheck:
    """Asks the crash book about each job, where the engine itself does not count crashes."""

    def __init__(self, seat: Seat, run_directory: Path, *, max_crashes: int) -> None:
        self._slot = seat.slot
        self._max_crashes = max_crashes
        self._book = CrashBook(seat.scoreboard, seat.instance, run_directory / CRASH_FILE)
        self._counts_here = False

    def open_for(self, queue: QueueAdapter) -> None:
        """Begin with a queue that was just opened."""
        numbering = queue.numbering()
        self._counts_here = numbering is not None
        if numbering is not None:
            self._book.open_at(numbering)

    def verdict(self, reservation: Reservation) -> str | None:
        """Tell a reservation its crashes; return the evidence if there are too many.

        Each kick forgives as many as would bury the job.
        """
        if not self._counts_here:
            return None
        evidence = self._book.evidence_of(reservation.job_id, self._slot)
        if not evidence:
            return None
        crashes = max(0, len(evidence) - reservation.pardons * self._max_crashes)
        reservation.crashes = crashes
        return evidence[-1] if crashes >= self._max_crashes else None
