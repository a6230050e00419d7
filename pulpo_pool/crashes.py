"""CrashBook: which jobs killed their workers, for engines that hand jobs back by themselves.

The master notes in shared memory with which job a worker died; the keeper writes that into a file,
for the time after this start of the pool; whoever reserves a job looks it up.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from pulpo_pool.scoreboard import ExitReason

if TYPE_CHECKING:
    from pathlib import Path

    from pulpo_pool.queues.adapter import Numbering
    from pulpo_pool.scoreboard import Death, JobInHand, Scoreboard

logger = logging.getLogger(__name__)

CRASH_FILE: Final = "crashes.json"  # in the run directory
FORGOTTEN: Final = -1  # the wait status of a death that the ledger no longer holds

ENDED_BY_MASTER: Final = {
    ExitReason.CUT_OFF: "was ended at the drain timeout",
    ExitReason.JOB_TIMEOUT: "was ended at the time limit of the job",
    ExitReason.HEARTBEAT: "was ended for its silence",
    ExitReason.OOM: "had too much memory and was killed for it",
}

_MOST_JOBS: Final = 1_000  # remembered; the oldest are forgotten first
_MASTERS_TURN: Final = 1.0  # seconds in which a dead worker should have been reaped
_PAUSE: Final = 0.002  # seconds between two looks at whether it was
_MEGABYTE: Final = 1_000_000


class Crash(NamedTuple):
    """A death that a job is to blame for; `crashes` are that job's so far."""

    job: JobInHand
    crashes: int
    evidence: str


class _Page(msgspec.Struct):
    """What the file holds: evidence, by death and job, of one numbering of jobs."""

    numbering: str = ""
    jobs: dict[str, dict[str, str]] = {}


class CrashBook:
    """What one process knows of jobs that killed their workers.

    A death is known by the start of the pool and the worker's serial, so that none counts twice,
    in memory and in the file.
    """

    def __init__(self, scoreboard: Scoreboard, instance: str, path: Path) -> None:
        self._scoreboard = scoreboard
        self._instance = instance
        self._path = path
        self._page = _Page()
        self._read_up_to = 0

    def open_at(self, numbering: Numbering) -> None:
        """Turn to what is known of the jobs of this numbering."""
        self._numbering = numbering
        self._read_up_to = 0
        self._page = _Page(numbering.name)
        with suppress(OSError, msgspec.MsgspecError):
            page = msgspec.json.decode(self._path.read_bytes(), type=_Page)
            if page.numbering == numbering.name:
                self._page = page

    def evidence_of(self, job_id: str, slot: int) -> list[str]:
        """Return how each worker that this job killed ended; for the worker in `slot`, at once.

        The engine may hand a job on before the master has reaped who died with it. So if another
        worker still says that it holds the job, its end is waited for, a moment.
        """
        raw = job_id.encode()
        if self._scoreboard.other_holders(raw, slot):
            self._let_the_master_see(raw, slot)
            self._read_new()  # the death is written before its number is
        elif self._scoreboard.header.jobs_died_with != self._read_up_to:
            self._read_new()
        deaths = self._page.jobs.get(job_id)
        return list(deaths.values()) if deaths else []

    def write_down(self, numbering: Numbering) -> list[Crash]:
        """Save what is new, and return it. Only the keeper writes."""
        if self._page.numbering != numbering.name:
            self.open_at(numbering)
        if self._scoreboard.header.jobs_died_with == self._read_up_to:
            return []
        crashes = self._read_new()
        if crashes:
            while len(self._page.jobs) > _MOST_JOBS:
                del self._page.jobs[next(iter(self._page.jobs))]
            self._save()
        return crashes

    def _save(self) -> None:
        draft = self._path.with_suffix(".draft")
        try:
            draft.write_bytes(msgspec.json.encode(self._page))
            draft.replace(self._path)
        except OSError as error:
            logger.warning(
                "crashes of jobs cannot be written to %s and will be forgotten with this start "
                "of the pool: %s",
                self._path,
                error,
            )

    def _let_the_master_see(self, job_id: bytes, slot: int) -> None:
        deadline = time.monotonic() + _MASTERS_TURN
        while time.monotonic() < deadline:
            # The rows of several dead may name it: each keeps its last words until it is refilled.
            holders = self._scoreboard.other_holders(job_id, slot)
            if all(self._scoreboard.death_of(row.serial) is not None for row in holders):
                return
            time.sleep(_PAUSE)

    def _read_new(self) -> list[Crash]:
        read_up_to = self._scoreboard.header.jobs_died_with
        crashes = []
        for death in sorted(self._scoreboard.deaths_with_jobs(), key=lambda death: death.died_at):
            job = death.job
            if job is None or not is_crash(death) or death.died_at < self._numbering.since:
                continue
            known = self._page.jobs.setdefault(job.job_id, {})
            name = f"{self._instance}/{death.serial}"
            if name not in known:
                known[name] = describe_death(job.slot, death)
                crashes.append(Crash(job, len(known), known[name]))
        self._read_up_to = read_up_to
        return crashes


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
