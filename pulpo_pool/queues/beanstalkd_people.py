"""What people ask of a beanstalkd: look at jobs, count them, revive them, remove them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import greenstalk

from pulpo_pool.errors import NoSuchJob, PulpoPoolError, QueueError
from pulpo_pool.queues.adapter import JobRecord, JobState, QueueStats

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from pulpo_pool.codec import Codec
    from pulpo_pool.queues.beanstalkd_link import Link

MOST_IDS: Final = 200_000  # walked by one list: some seconds on a quiet server
ATTEMPTS_A_KICK: Final = 20  # that a kick forgives: the server itself cannot count anew
HARMLESS: Final = (PulpoPoolError, greenstalk.NotFoundError)  # after which a connection is in step

_LARGEST_ID: Final = 2**64 - 1
_STEP: Final = 2_000  # ids looked at before the counts are compared


def stats(link: Link) -> Mapping[str, QueueStats]:
    """Return the counts of every tube that has jobs."""
    counts = {
        tube["name"]: QueueStats(
            ready=tube["current-jobs-ready"],
            delayed=tube["current-jobs-delayed"],
            reserved=tube["current-jobs-reserved"],
            buried=tube["current-jobs-buried"],
        )
        for tube in link.stats_of_tubes()
    }
    return {str(name): count for name, count in counts.items() if count != QueueStats()}


class Seen(NamedTuple):
    """A job as the server shows it; `published_at` is Unix seconds, a second early at most."""

    record: JobRecord
    kicks: int
    published_at: float


def next_in_line(link: Link) -> Iterator[tuple[str, bytes]]:
    """Yield the queues that have ready jobs, and the bytes of the one that each gives out next."""
    for tube, counts in stats(link).items():
        if counts.ready:
            link.use(tube)
            with suppress(greenstalk.NotFoundError):  # taken since
                yield tube, link.client.peek_ready().body


def peek(link: Link, job_id: str, codec: Codec, now: float) -> Seen:
    """Return a job in any state; raise NoSuchJob."""
    number = _number(job_id)
    link.wire.send_ahead((b"peek %d\r\n" % number, b"stats-job %d\r\n" % number))
    body = facts = None
    try:
        body = link.client.peek(number).body
    except greenstalk.NotFoundError:
        body = None
    try:
        facts = link.client.stats_job(number)
    except greenstalk.NotFoundError:
        facts = None
    if body is None or facts is None:
        raise _missing(job_id)
    state = JobState(facts["state"])
    timed = state in (JobState.DELAYED, JobState.RESERVED)
    record = JobRecord(
        job_id=str(number),
        queue=str(facts["tube"]),
        state=state,
        raw=body,
        codec=codec,
        priority=facts["pri"],
        attempts=attempts(facts),
        crashes=0,
        due=now + facts["time-left"] if timed else None,
    )
    return Seen(record, facts["kicks"], now - facts["age"] - 1)


def attempts(facts: greenstalk.StatsJob) -> int:
    """Return how often a job was reserved, less what kicks forgave."""
    return max(0, facts["reserves"] - ATTEMPTS_A_KICK * facts["kicks"])


def find(link: Link, state: JobState, queues: Collection[str]) -> tuple[list[str], str]:
    """Return the ids of the jobs in a state in the order they would run, and what was not seen."""
    wanted = sum(
        getattr(counts, state.value)
        for name, counts in stats(link).items()
        if not queues or name in queues
    )
    found: list[greenstalk.StatsJob] = []
    walked = 0
    for ids in _walk(link):
        if len(found) >= wanted or walked >= MOST_IDS:
            break
        walked += len(ids)
        found += [
            facts
            for facts in link.facts_of_many(ids)
            if facts["state"] == state.value and (not queues or facts["tube"] in queues)
        ]
    timed = state in (JobState.DELAYED, JobState.RESERVED)
    found.sort(key=lambda facts: (facts["time-left"] if timed else 0, facts["pri"], facts["id"]))
    missing = wanted - len(found)
    unseen = ""
    if missing > 0:
        unseen = (
            f"{missing:,} of {wanted:,} {state.value} jobs are not shown: beanstalkd cannot list "
            f"a state, and the {walked:,} newest job ids were looked at"
        )
    return [str(facts["id"]) for facts in found], unseen


def _walk(link: Link) -> Iterator[range]:
    """Yield the ids that there may be, newest first, after those just above what is known."""
    known = [link.client.stats()["total-jobs"], *_first_ids(link)]
    newest = max(known)
    top = newest + _STEP  # a server that restarted from its log has forgotten how many there were
    yield range(newest + 1, top)
    for high in range(newest, 0, -_STEP):
        yield range(max(1, high - _STEP + 1), high + 1)


def _first_ids(link: Link) -> Iterator[int]:
    for tube in list(stats(link)):
        link.use(tube)
        for look in (link.client.peek_ready, link.client.peek_delayed, link.client.peek_buried):
            try:
                yield look().id
            except greenstalk.NotFoundError:
                continue


def kick(link: Link, job_ids: Collection[str]) -> int:
    """Make buried and delayed jobs ready; return how many, or raise NoSuchJob."""
    numbers = [_number(job_id) for job_id in dict.fromkeys(job_ids)]
    for number in numbers:
        _check_there(link, number)
    return sum(_kicked(link, number) for number in numbers)


def kick_all(link: Link, queues: Collection[str]) -> int:
    """Make every buried job that is there now ready; return how many.

    One by one: the protocol's kick for many would go on with the delayed ones.
    """
    kicked = 0
    for tube, counts in stats(link).items():
        if queues and tube not in queues:
            continue
        link.use(tube)
        for _ in range(counts.buried):
            try:
                kicked += _kicked(link, link.client.peek_buried().id)
            except greenstalk.NotFoundError:
                break
    return kicked


def delete(link: Link, job_id: str) -> None:
    """Remove a job; raise NoSuchJob, or QueueError for one that another connection holds."""
    number = _number(job_id)
    try:
        link.client.delete(number)
    except greenstalk.NotFoundError:
        _check_there(link, number)
        raise QueueError(
            f"job {job_id} is in a worker's hands, and beanstalkd lets nobody else delete it: "
            "try again when it is done, rolled back or buried"
        ) from None
    link.held.pop(number, None)


def purge(link: Link, state: JobState, queues: Collection[str]) -> tuple[int, str]:
    """Remove every job in a state that is there now; return how many, and what was not reached."""
    removed, left = 0, 0
    for tube, counts in stats(link).items():
        number: int = getattr(counts, state.value)
        if not number or (queues and tube not in queues):
            continue
        if state is JobState.RESERVED:
            left += number
            continue
        link.use(tube)
        look = getattr(link.client, f"peek_{state.value}")
        for _ in range(number):
            try:
                link.client.delete(look().id)
                removed += 1
            except greenstalk.NotFoundError:
                break
    unseen = f"{left:,} reserved jobs stay: beanstalkd lets only their holders delete them"
    return removed, unseen if left else ""


def recoded(seen: Seen, inward: Callable[[bytes], bytes]) -> Seen:
    """Return a job whose bytes are in our encoding."""
    return seen._replace(record=replace(seen.record, raw=inward(seen.record.raw)))


def _kicked(link: Link, number: int) -> int:
    try:
        link.client.kick_job(number)
    except greenstalk.NotFoundError:  # ready, or in somebody's hands
        return 0
    return 1


def _check_there(link: Link, number: int) -> None:
    try:
        link.client.stats_job(number)
    except greenstalk.NotFoundError:
        raise _missing(str(number)) from None


def _number(job_id: str) -> int:
    if not (job_id.isascii() and job_id.isdigit()) or not 0 < int(job_id[:21]) <= _LARGEST_ID:
        raise _missing(job_id)
    return int(job_id)


def _missing(job_id: str) -> NoSuchJob:
    return NoSuchJob(f"there is no job {job_id!r} in this queue")
