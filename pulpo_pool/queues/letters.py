"""Dead letters: which jobs are meant, how their last attempt went, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pulpo_pool.errors import UndecodableMessage
from pulpo_pool.fingerprint import fingerprint, headline
from pulpo_pool.setback import Setback

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import JobRecord, JobState, QueueAdapter


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant. What is left empty holds for every job; the rest must all hold.

    `since` is Unix seconds; a job of which nobody knows when it failed or was published is
    older. `error` is found in whatever case. `fingerprint` may be cut short.
    """

    queues: tuple[str, ...] = ()
    request_types: tuple[str, ...] = ()
    since: float | None = None
    error: str = ""
    fingerprint: str = ""

    @property
    def looks_inside(self) -> bool:
        """Whether a job must be read to know if it is meant; a queue's name asks no such thing."""
        return self != JobFilter(queues=self.queues)

    def matches(self, record: JobRecord) -> bool:
        """Tell whether this job is meant."""
        if self.queues and record.queue not in self.queues:
            return False
        if self.request_types and request_type_of(record) not in self.request_types:
            return False
        setback = last_setback(record)
        at = record.end.at if record.end else setback.at or 0.0
        if self.since is not None and at < self.since:
            return False
        if self.error:
            told = f"{setback.reason}\n{setback.error}".casefold()
            if self.error.casefold() not in told:
                return False
        return not self.fingerprint or fingerprint_of(record).startswith(self.fingerprint)

    def search(self, queue: QueueAdapter, states: Iterable[JobState]) -> Iterator[JobRecord]:
        """Yield the jobs in these states that are meant. The adapter's `unseen` tells of others."""
        for state in states:
            for record in queue.list_jobs(state, queues=self.queues):
                if self.matches(record):
                    yield record

    def search_done(self, queue: QueueAdapter) -> Iterator[JobRecord]:
        """Yield the kept jobs that are meant and gone; `since` is then when they went."""
        return filter(self.matches, queue.list_done(queues=self.queues))


@dataclass(slots=True)
class ErrorGroup:
    """Jobs that failed in the same way; `first` and `last` are Unix seconds, 0 if unknown."""

    fingerprint: str
    reason: str
    error: str  # the line that says most of the example's
    example: str  # the job_id of the one that failed last
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    request_types: dict[str, int] = field(default_factory=dict)

    def add(self, record: JobRecord, at: float) -> None:
        """Count a job in."""
        self.count += 1
        name = request_type_of(record)
        self.request_types[name] = self.request_types.get(name, 0) + 1
        if at:
            self.first = min(self.first or at, at)
        if at >= self.last:
            self.last, self.example = at, record.job_id
            self.error = headline(last_setback(record).error)


def group_by_error(records: Iterable[JobRecord]) -> list[ErrorGroup]:
    """Return the groups of jobs with one fingerprint, the largest first.

    Jobs that nothing happened to yet, and that are not buried, belong to none.
    """
    groups: dict[str, ErrorGroup] = {}
    for record in records:
        mark = fingerprint_of(record)
        if not mark:
            continue
        setback = last_setback(record)
        group = groups.setdefault(mark, ErrorGroup(mark, setback.reason, "", record.job_id))
        group.add(record, setback.at)
    return sorted(groups.values(), key=lambda group: (-group.count, -group.last))


def last_setback(record: JobRecord) -> Setback:
    """Return how a job's last attempt ended; without a history, what else is known of it.

    `at` is then when it was published, 0 if that is unknown.
    """
    if record.history:
        return record.history[-1]
    published = _published_at(record)
    return Setback(
        at=published,
        attempt=record.attempts,
        outcome=record.state.value,
        reason=record.reason or "",
        error=record.error or "",
    )


def fingerprint_of(record: JobRecord) -> str:
    """Return the fingerprint of a job's last error; empty for one that never failed."""
    setback = last_setback(record)
    if not setback.error and not setback.reason and record.state != "buried":
        return ""
    return fingerprint(setback.error, setback.reason)


def request_type_of(record: JobRecord) -> str:
    """Return a job's request_type; empty where the bytes are no message."""
    message = _message(record)
    return message.request_type if message else ""


def _published_at(record: JobRecord) -> float:
    message = _message(record)
    published = message.published_at if message else None
    return published.timestamp() if published else 0.0


def _message(record: JobRecord) -> Message | None:
    try:
        return record.message()
    except UndecodableMessage:
        return None
