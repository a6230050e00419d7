"""Vigil: finds the processes that hang, without blaming them for a machine that slept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pulpo_pool.states import Activity, ExitReason, Role, SlotState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.scoreboard import Scoreboard, WorkRow
    from pulpo_pool.settings import Settings

WORKER_SILENCE: Final = 5.0  # seconds, or the sleep duration if that is longer
SERVICE_SILENCE: Final = 60.0
GRACE: Final = 15.0  # seconds on top, for a machine that is busy
LATE: Final = 5.0  # seconds by which a master that was itself held up comes back


@dataclass(frozen=True, slots=True)
class Sentence:
    """A process that must be ended, and why."""

    slot: Slot
    reason: ExitReason
    why: str


class Vigil:
    """Compares what processes said last with the time.

    A deadline condemns only when it is seen to have passed on two looks in a row. A look that
    comes late, since the machine was suspended, stopped or starved, condemns nobody and starts
    the count anew: the others were held up as well. (pitchfork's monitor does the same.)
    """

    def __init__(self, table: SlotTable, scoreboard: Scoreboard, sleep_duration: float) -> None:
        self._table = table
        self._scoreboard = scoreboard
        self._sleep_duration = sleep_duration
        self._suspects: set[tuple[int, float]] = set()  # serial, and the deadline that passed
        self._look_due: float | None = None

    def take(self, settings: Settings) -> None:
        """Go by this sleep duration from now on."""
        self._sleep_duration = settings.sleep_duration

    def look(self, now: float, interval: float) -> list[Sentence]:
        """Return who must be ended; the next look is planned `interval` seconds from now."""
        late = self._look_due is not None and now - self._look_due > LATE
        self._look_due = now + interval
        before, self._suspects = (set() if late else self._suspects), set()
        sentences = []
        for slot, deadline, sentence in self._overdue(now):
            suspect = (slot.serial, deadline)
            self._suspects.add(suspect)
            if suspect in before:
                sentences.append(sentence)
        return sentences

    def _overdue(self, now: float) -> Iterator[tuple[Slot, float, Sentence]]:
        for slot in self._table:
            row = self._scoreboard.read_work(slot.index) if slot.state is SlotState.UP else None
            if row is None:
                continue
            if row.activity == Activity.BUSY:
                if 0 < row.job_deadline < now:
                    yield (
                        slot,
                        row.job_deadline,
                        Sentence(slot, ExitReason.JOB_TIMEOUT, _overrun(row, now)),
                    )
                continue
            patience = self._patience(slot.role)
            if row.heartbeat + patience < now:
                silence = f"has been silent for {now - row.heartbeat:.0f} s"
                yield slot, row.heartbeat, Sentence(slot, ExitReason.HEARTBEAT, silence)

    def _patience(self, role: Role) -> float:
        if role is not Role.WORKER:
            return SERVICE_SILENCE + GRACE
        return max(WORKER_SILENCE, self._sleep_duration) + GRACE


def _overrun(row: WorkRow, now: float) -> str:
    request_type = row.request_type.decode("utf-8", "replace")
    job_id = row.job_id.decode("utf-8", "replace")
    return (
        f"is past the time limit of {request_type} job {job_id}, "
        f"which has run for {now - row.job_started:.1f} s"
    )
