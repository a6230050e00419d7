"""CrashBook: which jobs killed their workers, for engines that hand jobs back by themselves.

The master notes in shared memory with which job a worker died; the keeper writes that down with
the job's evidence, for the time after this start of the pool; whoever reserves a job looks it up.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pulpo_pool.queues.adapter import Owner
from pulpo_pool.queues.evidence import JobName
from pulpo_pool.queues.history import LONGEST_STACK
from pulpo_pool.setback import Setback
from pulpo_pool.stacks import FAULT_TITLE, fault_of
from pulpo_pool.states import ExitReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pulpo_pool.queues.adapter import Numbering, QueueAdapter, Reservation
    from pulpo_pool.queues.evidence import EvidenceStore
    from pulpo_pool.scoreboard import Death, JobInHand, Scoreboard

logger = logging.getLogger(__name__)

FORGOTTEN: Final = -1  # the wait status of a death that the ledger no longer holds

ENDED_BY_MASTER: Final = {
    ExitReason.CUT_OFF: "was ended at the drain timeout",
    ExitReason.JOB_TIMEOUT: "was ended at the time limit of the job",
    ExitReason.HEARTBEAT: "was ended for its silence",
    ExitReason.OOM: "had too much memory and was killed for it",
}

_MOST_JOBS: Final = 10_000  # remembered; the oldest are forgotten first
_MASTERS_TURN: Final = 1.0  # seconds in which a dead worker should have been reaped
_PAUSE: Final = 0.002  # seconds between two looks at whether it was
_MEGABYTE: Final = 1_000_000
_LONGEST_CRASH_WAIT: Final = 600.0  # seconds


class Crash(NamedTuple):
    """A death that a job is to blame for; `crashes` are that job's so far."""

    job: JobInHand
    crashes: int
    setback: Setback


@dataclass(frozen=True, slots=True)
class Coroner:
    """Tells how the workers of one start of a pool ended.

    `stacks` is where the master keeps what the ended showed of themselves before.
    """

    pool: str
    instance: str
    stacks: Path | None = None

    def setback(self, slot: int, death: Death) -> Setback:
        """Return a worker's end as evidence; the job's part of it is for others to fill in."""
        signaled = os.WIFSIGNALED(death.wait_status)
        known = death.wait_status != FORGOTTEN
        return Setback(
            at=death.died_at,
            attempt=0,
            outcome="",
            error=describe_death(slot, death),
            worker=str(Owner(self.pool, self.instance, slot, death.serial)),
            exit_code=None
            if signaled or not known
            else os.waitstatus_to_exitcode(death.wait_status),
            signal=os.WTERMSIG(death.wait_status) if signaled and known else None,
            out_of_memory=death.reason is ExitReason.OOM,
            max_rss=death.max_rss if known else None,
            cpu=death.cpu if known else None,
            stack=self._stack_of(death),
        )

    def _stack_of(self, death: Death) -> str:
        """Return what the process showed of itself at its end, if it did."""
        by_fault = fault_of(death.wait_status) is not None
        if self.stacks is None or not (by_fault or death.reason in ENDED_BY_MASTER):
            return ""
        try:
            text = (self.stacks / f"{death.serial}.txt").read_text(errors="replace")
        except OSError:
            return ""
        if by_fault:  # somebody may have asked for its stacks before
            _, title, text = text.rpartition(FAULT_TITLE)
            text = title + text if title else ""
        return text[:LONGEST_STACK]


class _Known(NamedTuple):
    """A death with a job; of one that is only written down, `setback` is in the store."""

    at: float  # Unix seconds
    mark: bytes | None  # of the job's bytes, where it is known
    setback: Setback | None


class CrashBook:
    """What one process knows of jobs that killed their workers.

    A death is known by its worker, so that none counts twice, in memory and in the store.
    """

    def __init__(self, scoreboard: Scoreboard, coroner: Coroner) -> None:
        self._scoreboard = scoreboard
        self._header = scoreboard.header
        self._coroner = coroner
        self._numbering: Numbering | None = None
        self._evidence: EvidenceStore | None = None
        self._jobs: dict[str, dict[str, _Known]] = {}  # by job_id and worker
        self._unwritten: list[Crash] = []
        self._read_up_to = 0

    def open_at(self, queue: QueueAdapter) -> bool:
        """Turn to what is known of this queue's jobs; tell whether it needs a book at all."""
        self._numbering = queue.numbering()
        self._evidence = queue.evidence
        self._read_up_to = 0
        self._jobs = {}
        if self._numbering is not None and self._evidence is not None:
            for job, worker, at in self._evidence.crashes():
                self._jobs.setdefault(job.job_id, {})[worker] = _Known(at, job.mark, None)
        return self._numbering is not None

    def clears(self, job_id: str) -> bool:
        """Tell whether nothing at all speaks against a job, as of nearly every one."""
        return (
            job_id not in self._jobs
            and self._header.jobs_died_with == self._read_up_to
            and not self._scoreboard.may_be_held(job_id.encode())
        )

    def deaths_with(self, reservation: Reservation, slot: int) -> list[tuple[str, float]]:
        """Return who died with this job, and when; for the worker in `slot`, at once.

        The engine may hand a job on before the master has reaped who died with it. So if another
        worker still says that it holds the job, its end is waited for, a moment.
        """
        raw = reservation.job_id.encode()
        if self._scoreboard.other_holders(raw, slot):
            self._let_the_master_see(raw, slot)
            self._read_new()  # the death is written before its number is
        elif self._scoreboard.header.jobs_died_with != self._read_up_to:
            self._read_new()
        known = self._jobs.get(reservation.job_id)
        if not known:
            return []
        mark = JobName.of(reservation.job_id, reservation.raw).mark
        deaths = [(who, each.at) for who, each in known.items() if each.mark in (None, mark)]
        return sorted(deaths, key=lambda death: death[1])

    def setback_of(self, reservation: Reservation, worker: str) -> Setback | None:
        """Return the evidence of one of these deaths, if it is at hand."""
        known = self._jobs.get(reservation.job_id, {}).get(worker)
        if known and known.setback:
            return known.setback
        if self._evidence is None:
            return None
        past = self._evidence.of(JobName.of(reservation.job_id, reservation.raw), since=0.0)
        return next((each for each in past.history if each.worker == worker), None)

    def write_down(self, queue: QueueAdapter) -> Iterator[Crash]:
        """Keep each new crash with its job's evidence, then yield it. For the keeper.

        Raises QueueUnavailable; what is not written then comes next time.
        """
        numbering = queue.numbering()
        if self._numbering is None or numbering is None or numbering.name != self._numbering.name:
            self.open_at(queue)
        if self._scoreboard.header.jobs_died_with != self._read_up_to:
            self._unwritten += self._read_new()
        while self._unwritten:
            crash = self._unwritten[0]
            queue.note_crash(crash.job.job_id, crash.setback)
            del self._unwritten[0]
            yield crash

    def _let_the_master_see(self, job_id: bytes, slot: int) -> None:
        deadline = time.monotonic() + _MASTERS_TURN
        while time.monotonic() < deadline:
            # The rows of several dead may name it: each keeps its last words until it is refilled.
            holders = self._scoreboard.other_holders(job_id, slot)
            if all(self._scoreboard.death_of(row.serial) is not None for row in holders):
                return
            time.sleep(_PAUSE)

    def _read_new(self) -> list[Crash]:
        assert self._numbering is not None
        read_up_to = self._scoreboard.header.jobs_died_with
        crashes = []
        for death in sorted(self._scoreboard.deaths_with_jobs(), key=lambda death: death.died_at):
            job = death.job
            if job is None or not is_crash(death) or death.died_at < self._numbering.since:
                continue
            known = self._jobs.setdefault(job.job_id, {})
            setback = self._coroner.setback(job.slot, death)
            if setback.worker not in known:
                crashes.append(Crash(job, len(known) + 1, setback))
                known[setback.worker] = _Known(death.died_at, None, setback)
        while len(self._jobs) > _MOST_JOBS:
            del self._jobs[next(iter(self._jobs))]
        self._read_up_to = read_up_to
        return crashes


def crash_delay(crashes: int, of: Iterable[object] = ()) -> float:
    """Return how many seconds a job waits after its second crash or a later one.

    Exponential with full jitter, as after an exception: two jobs that kill their workers shall
    not keep meeting. Whoever asks `of` the same crash gets the same answer.
    """
    ceiling = min(_LONGEST_CRASH_WAIT, 2.0 ** min(crashes - 1, 10))
    chance = random.Random("/".join(map(str, of)) or None)  # noqa: S311 - not a secret
    return chance.uniform(0, ceiling)


def is_crash(death: Death) -> bool:
    """Tell whether a job in hand is to blame: not for an end that its master brought about."""
    return (
        death.reason.failed
        and death.reason is not ExitReason.CUT_OFF
        and death.wait_status != FORGOTTEN
    )


def describe_death(slot: int, death: Death) -> str:
    """Return how a worker ended, for the error text of the job it held."""
    if death.wait_status == FORGOTTEN:
        return f"worker {slot} (serial {death.serial}) died; how is no longer known"
    if death.reason in ENDED_BY_MASTER:
        end = ENDED_BY_MASTER[death.reason]
    elif os.WIFSIGNALED(death.wait_status):
        end = f"was killed by {_signal_name(os.WTERMSIG(death.wait_status))}"
    else:
        end = f"left with exit status {os.waitstatus_to_exitcode(death.wait_status)}"
    return (
        f"worker {slot} (serial {death.serial}) {end} while it held this job; "
        f"max RSS {death.max_rss / _MEGABYTE:.0f} MB, CPU {death.cpu:.1f} s"
    )


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
