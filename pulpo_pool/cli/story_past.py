"""What became of a job so far, in plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulpo_pool.cli.moments import date, moment, span
from pulpo_pool.queues.adapter import JobState, KeptState, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.cli.story_facts import Facts
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import JobEnd, JobRecord
    from pulpo_pool.setback import Setback

_OURS: Final = frozenset(
    {"request_type", "queue", "priority", "not_before", "expiration", "published_at"}
)
_ENDED: Final = {
    "crash": "ended with its worker",
    "crashed": "ended with its worker",
    "gone": "ended with its pool or host",
    "cut_off": "was cut off when its pool ended",
    "timeout": "ran into its soft time limit",
    "requested": "asked to be tried again",
    "unknown_type": "found no handler",
    "fatal": "was fatal",
    "expired": "came too late",
    "undecodable": "found no message",
}


def past(facts: Facts) -> Iterator[str]:
    """Yield what became of a job so far."""
    record, message = facts.record, facts.message
    kind = message.request_type if message else "its bytes are no message"
    yield f"Job {record.job_id} ({kind}) is {record.state.value} in queue {record.queue}."
    if message is not None:
        yield from _published(message, facts.now)
    if record.crashes:
        number = record.crashes
        yield "A worker died with it." if number == 1 else f"{number} workers died with it."
    yield from _attempts(record)
    if record.end is not None:
        yield _end(record, record.end, facts.now)
    if message and facts.told_by and facts.handled is None:
        kind = message.request_type
        yield f"Whether a pool has a handler for {kind} is not known: {facts.told_by}."


def _published(message: Message, now: float) -> Iterator[str]:
    when = message.published_at
    told = f"It was published {moment(when.timestamp(), now)}" if when else "It has no date"
    yield f"{told}, as message {message.id or 'without an id'}, priority {message.priority}."
    if message.not_before:
        yield f"It was not to run before {moment(message.not_before.timestamp(), now)}."
    if message.expiration:
        yield f"It expires {moment(message.expiration.timestamp(), now)}."
    others = {name: value for name, value in message.header.items() if name not in _OURS}
    if others:
        yield f"Its header also says: {', '.join(f'{k}={v}' for k, v in others.items())}."


def _attempts(record: JobRecord) -> Iterator[str]:
    history = record.history
    last = 0
    for each in history:
        if last and each.attempt > last + 1:
            yield f"Of attempts {last + 1} to {each.attempt - 1} nothing is kept."
        elif last and each.attempt <= last:
            yield "It was kicked, and its attempts are counted anew."
        last = each.attempt
        yield _told(each)
    if not history and record.attempts == 0:
        yield "It was not tried yet."
    told_elsewhere = record.state is JobState.RESERVED or record.end is not None
    silent = record.attempts - last - told_elsewhere
    if silent > 0 and record.attempts >= last:
        yield (
            f"{silent} more of its {record.attempts} attempts ended without a word: a lease or a "
            "connection was lost, its pool or host died, or the job was given back unrun."
        )


def _end(record: JobRecord, end: JobEnd, now: float) -> str:
    if record.state is KeptState.EXPIRED:
        return f"It was discarded {moment(end.at, now)}: it expired before a worker was free."
    owner = Owner.read(record.owner or "")
    who = f" by worker {owner.slot} (serial {owner.serial})" if owner else ""
    took = f"{span(end.seconds)} in its handler"
    return f"Attempt {record.attempts}{who} ended well {moment(end.at, now)}, after {took}."


def _told(setback: Setback) -> str:
    owner = Owner.read(setback.worker)
    who = f" by worker {owner.slot} (serial {owner.serial})" if owner else ""
    where = f" on {setback.host}" if setback.host else ""
    what = _ENDED.get(setback.reason, "failed")
    end = "; the job was buried" if setback.outcome == "buried" else ""
    cause = setback.error.strip().rpartition("\n")[2]
    shown = "; `peek` shows its last stack" if setback.stack else ""
    told = f"Attempt {setback.attempt}{who}{where} {what} at {date(setback.at)}{end}{shown}"
    return f"{told}: {cause}" if cause else f"{told}."
