"""Why jobs of a beanstalkd failed: written when they are settled, read when people look."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pulpo_pool.queues.adapter import Bury, JobState
from pulpo_pool.queues.beanstalkd_jobs import facts_of
from pulpo_pool.queues.beanstalkd_people import attempts
from pulpo_pool.queues.evidence import LONGEST_KEPT, JobName
from pulpo_pool.queues.history import crash_setback, setback_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulpo_pool.queues.adapter import JobRecord, Owner, Settlement
    from pulpo_pool.queues.beanstalkd_link import Link
    from pulpo_pool.queues.beanstalkd_people import Seen
    from pulpo_pool.queues.evidence import EvidenceStore
    from pulpo_pool.setback import Setback

_TIDIED_AT_ONCE: Final = 1_000  # jobs asked about: some ten milliseconds of the server's time


def keep(
    store: EvidenceStore, link: Link, settlement: Settlement, *, owner: Owner | None, now: float
) -> None:
    """Keep what a settlement that is about to be made says of its attempt."""
    reservation = settlement.reservation
    facts = facts_of(link, reservation)
    attempt = max(1, attempts(facts))
    setback = setback_of(settlement, attempt=attempt, at=now, owner=owner)
    if setback is None:
        return
    crash = isinstance(settlement, Bury) and settlement.setback is not None
    store.add(
        JobName.of(reservation.job_id, reservation.raw),
        setback,
        kicks=facts["kicks"],
        reserves=None if crash else facts["reserves"],
    )


def note_crash(store: EvidenceStore, seen: Seen, setback: Setback) -> None:
    """Keep how a worker died with a job."""
    # The server hands a dead worker's job on at once: the next attempt may be under way.
    attempt = seen.record.attempts - (seen.record.state is JobState.RESERVED)
    store.add(
        JobName.of(seen.record.job_id, seen.record.raw),
        crash_setback(setback, attempt=max(1, attempt)),
        kicks=seen.kicks,
    )


def hand_on(store: EvidenceStore, old: Seen, job_id: str, raw: bytes, now: float) -> None:
    """Give a job's past to the one with these bytes that takes its place."""
    name = JobName.of(old.record.job_id, old.record.raw)
    store.hand_on(name, JobName.of(job_id, raw), at=now, kicks=old.kicks)


def with_evidence(store: EvidenceStore, seen: Seen) -> JobRecord:
    """Return a job's record with what is known of its past.

    After a kick that is history; before one the last setback is also what is wrong now.
    """
    record = seen.record
    past = store.of(JobName.of(record.job_id, record.raw), since=seen.published_at)
    if not past.history or seen.kicks > past.kicks:
        return replace(record, history=past.history)
    last = past.history[-1]
    buried = record.state is JobState.BURIED and last.outcome == "buried"
    return replace(
        record,
        history=past.history,
        crashes=past.crashes,
        reason=last.reason if buried else None,
        error=last.error,
    )


def tidy(store: EvidenceStore, link: Link, after: str, now: float) -> str:
    """Forget jobs that are gone, a part of all after `after`; return after which to go on."""
    store.forget_before(now - LONGEST_KEPT)
    failed_at = store.jobs_after(after, _TIDIED_AT_ONCE)
    store.forget(_gone(link, failed_at, now))
    return max(failed_at, default="")


def _gone(link: Link, failed_at: Mapping[str, float], now: float) -> list[str]:
    """Return those of these jobs that are no more, or whose id is another job's by now."""
    ids = [int(job_id) for job_id in failed_at]
    published_at = {str(facts["id"]): now - facts["age"] - 1 for facts in link.facts_of_many(ids)}
    return [job_id for job_id, at in failed_at.items() if published_at.get(job_id, math.inf) > at]
