"""Jobs as people see them, how many there are, and what is read in their messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from pulpo_pool.errors import NoSuchJob, UndecodableMessage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pulpo_pool.codec import Codec
    from pulpo_pool.message import Message
    from pulpo_pool.queues.words import JobState, KeptState
    from pulpo_pool.setback import Setback


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job went that is kept though it is gone: Unix seconds, and seconds in its handler."""

    at: float
    seconds: float
    kept_until: float


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as people see it: what `peek` and `list` return.

    `due` is Unix seconds: when a delayed job becomes ready, or a reservation's lease ends.
    `body` and `request_type` are None where the bytes are no message. `history` has the attempts
    that did not end well, the oldest first; a kick leaves it, as evidence. `end` is known of a
    kept job that is gone.
    """

    job_id: str
    queue: str
    state: JobState | KeptState
    raw: bytes
    codec: Codec
    priority: int
    attempts: int
    crashes: int
    due: float | None = None
    owner: str | None = None
    reason: str | None = None
    error: str | None = None
    history: tuple[Setback, ...] = ()
    end: JobEnd | None = None

    def message(self) -> Message:
        """Return the message; raises UndecodableMessage if the stored bytes are none."""
        return self.codec.decode(self.raw)


def kept_only(job_id: str) -> NoSuchJob:
    """Return what to raise where a job would be needed, and is gone though it is kept."""
    return NoSuchJob(f"job {job_id} is gone, and kept for reading only: publish a new one")


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many jobs are in each state; a delayed job that is due counts as ready."""

    ready: int = 0
    delayed: int = 0
    reserved: int = 0
    buried: int = 0

    def __add__(self, other: QueueStats) -> QueueStats:
        return QueueStats(
            self.ready + other.ready,
            self.delayed + other.delayed,
            self.reserved + other.reserved,
            self.buried + other.buried,
        )


def since_when(message: Message) -> float | None:
    """Return when a job could first have run, in Unix seconds; None if nobody wrote it down."""
    moment = message.not_before or message.published_at
    return moment.timestamp() if moment else None


def oldest(heads: Iterable[tuple[str, bytes]], codec: Codec) -> dict[str, float]:
    """Return, by queue, since when the job with these bytes waits; none for what is no message."""
    found = {}
    for queue, raw in heads:
        try:
            since = since_when(codec.decode(raw))
        except UndecodableMessage:
            continue
        if since is not None:
            found[queue] = since
    return found


def named(message_id: str, candidates: Iterable[tuple[int, bytes]], codec: Codec) -> str | None:
    """Return which of these jobs, given as number and bytes, has a message of this id."""
    for number, raw in candidates:
        try:
            if codec.decode(raw).id == message_id:
                return str(number)
        except UndecodableMessage:
            continue
    return None


def describe(record: JobRecord) -> dict[str, Any]:
    """Return a job as the plain object that `list --json` and `peek --json` print."""
    try:
        message: Message | None = record.message()
    except UndecodableMessage:
        message = None
    from pulpo_pool.queues.letters import fingerprint_of  # not for those who only publish

    end = record.end
    ended = {"ended": end.at, "seconds": end.seconds, "kept_until": end.kept_until} if end else {}
    return {
        "job_id": record.job_id,
        "id": message.id if message else None,
        "queue": record.queue,
        "state": record.state.value,
        "request_type": message.request_type if message else None,
        "body": message.body if message else None,
        "header": dict(message.header) if message else None,
        "raw": None if message else record.raw.decode("utf-8", "backslashreplace"),
        "priority": record.priority,
        "attempts": record.attempts,
        "crashes": record.crashes,
        "due": record.due,
        **ended,
        "owner": record.owner,
        "fingerprint": fingerprint_of(record) or None,
        "reason": record.reason,
        "error": record.error,
        "history": [msgspec.structs.asdict(setback) for setback in record.history],
    }


def priority_of(message: Message, record: JobRecord) -> int:
    """Return the priority of a job whose message is replaced: its own, unless that is changed.

    The job's may differ from what its message says: others put jobs into queues as well.
    """
    try:
        before = record.message().priority
    except UndecodableMessage:
        return record.priority
    return record.priority if message.priority == before else message.priority
