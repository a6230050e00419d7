"""Taking back the jobs of dead workers from a file queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pulpo_pool.queues.adapter import BuryReason, Fate, JobState, Owner, Rescued
from pulpo_pool.queues.file_people import STATES
from pulpo_pool.queues.file_session import SQL
from pulpo_pool.queues.history import extended, kept, read, setback_of_rescue, written

if TYPE_CHECKING:
    import sqlite3

    from pulpo_pool.queues.adapter import CrashLimit, Judge, Verdict
    from pulpo_pool.queues.file_store import FileStore

_RESCUE: Final = SQL["rescue"]
_HISTORY: Final = SQL["history"]


class Plan(NamedTuple):
    """What to do about one reservation, if its lease is still the one that was judged."""

    job_id: int
    token: int
    owner: Owner
    verdict: Verdict
    crashes: int
    state: JobState
    delay: float


def plan(store: FileStore, judge: Judge, limit: CrashLimit) -> list[Plan]:
    """List the reservations, then judge their owners, each once."""
    verdicts: dict[str, Verdict] = {}
    plans = []
    for job_id, token, text, crashes in store.read(SQL["reservations"]):
        owner = Owner.read(text)
        if owner is None:
            continue
        if text not in verdicts:
            verdicts[text] = judge(owner)
        verdict = verdicts[text]
        if verdict.fate is Fate.ALIVE:
            continue
        state, delay = JobState.READY, 0.0
        if verdict.fate is Fate.CRASHED:
            crashes += 1  # noqa: PLW2901 - the count that is stored
            state, delay = _after_crash(crashes, limit)
        plans.append(Plan(job_id, token, owner, verdict, crashes, state, delay))
    return plans


def _after_crash(crashes: int, limit: CrashLimit) -> tuple[JobState, float]:
    if crashes >= limit.max_crashes:
        return JobState.BURIED, 0.0
    delay = limit.delay(crashes) if crashes > 1 else 0.0
    return (JobState.DELAYED, delay) if delay > 0 else (JobState.READY, 0.0)


def carry_out(cursor: sqlite3.Cursor, plans: list[Plan], now: float) -> list[Rescued]:
    """Take back what is still as it was judged; return that."""
    rescued = []
    for job in plans:
        found = cursor.execute(_HISTORY, (job.job_id, job.token)).fetchone()
        if found is None:
            continue
        row = cursor.execute(
            _RESCUE,
            (
                STATES.index(job.state),
                now + job.delay if job.state is JobState.DELAYED else None,
                job.crashes,
                1 if job.verdict.fate is Fate.CUT_OFF else 0,
                BuryReason.CRASHED.value if job.state is JobState.BURIED else None,
                kept(job.verdict.evidence) or None,
                _history(job, *found, now=now),
                job.job_id,
                job.token,
            ),
        ).fetchone()
        queue, raw = row
        rescued.append(
            Rescued(
                job_id=str(job.job_id),
                queue=queue,
                owner=job.owner,
                verdict=job.verdict,
                state=job.state,
                crashes=job.crashes,
                raw=raw,
            )
        )
    return rescued


def _history(job: Plan, attempts: int, stored: str | None, *, now: float) -> str:
    """Return the job's history with its owner's end, as it is stored."""
    buried = job.state is JobState.BURIED
    setback = setback_of_rescue(
        job.verdict, attempt=attempts, at=now, owner=job.owner, buried=buried
    )
    return written(extended(read(stored), setback))
