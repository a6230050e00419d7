"""A job's story in plain sentences: what became of it so far, why it does not run, what is next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.errors import UndecodableMessage
from pulpo_pool.queues.adapter import JobState, KeptState, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import JobEnd, JobRecord
    from pulpo_pool.setback import Setback

_OURS: Final = frozenset(
    {"request_type", "queue", "priority", "not_before", "expiration", "published_at"}
)
_UP: Final = ("idle", "busy")
_OBSTACLES: Final = frozenset(
    {"no_pool", "queue_not_worked_on", "pool_not_working", "no_worker", "no_handler"}
    | {"type_paused"}
)
_STANDING: Final = {
    "paused": "is paused: `pulpo-pool resume` lets it go on",
    "quiet": "was told to be quiet: it reserves nothing more until `pulpo-pool resume`",
    "draining": "is draining: it reserves nothing more and ends",
    "stopped": "has stopped",
    "starting": "is still starting",
}
_BURIED: Final = {
    "fatal": "its handler said that it will never work",
    "exhausted": "its attempts are used up",
    "crashed": "its workers died with it too often",
    "undecodable": "its bytes are no message",
    "unknown_type": "no pool that met it has a handler for its type",
    "expired": "it was too late, and on-expired is `bury`",
}
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


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """A pool of this state directory, as its control socket answers."""

    master: Mapping[str, Any]
    workers: list[Mapping[str, Any]]
    same_queue: bool = True  # it works on the broker that we look at
    paused: list[Mapping[str, Any]] = field(default_factory=list)  # request_types, with why

    @property
    def name(self) -> str:
        """The name it was started with."""
        return str(self.master["name"])

    def pause_of(self, message: Message | None) -> str:
        """Return how its type is paused here, as a sentence; nothing if it is not."""
        kind = message.request_type if message else ""
        for each in self.paused:
            if each["request_type"] == kind:
                left = "one job finds out whether it works again"
                if each["state"] == "paused":
                    left = f"for another {_span(each['seconds_left'])}"
                return f"Pool {self.name} has paused {kind} ({each['cause']}), {left}."
        return ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about a job. `handled` is None where nobody can tell; `told_by` says who.

    `in_front` are ready jobs of its queue that run before it, None if that is not known.
    """

    record: JobRecord
    now: float
    pools: list[PoolSeen] = field(default_factory=list)
    in_front: int | None = None
    handled: bool | None = None
    told_by: str = ""
    on_expired: str = "discard"

    @property
    def message(self) -> Message | None:
        """The message; None where the bytes are none."""
        try:
            return self.record.message()
        except UndecodableMessage:
            return None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a job does not run now: a word for programs, a sentence for people."""

    code: str
    text: str


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


def why_not_running(facts: Facts) -> list[Cause]:
    """Return all that keeps a job from running, the nearest first; nothing for one that runs."""
    match facts.record.state:
        case KeptState.DONE:
            return [Cause("done", "It is done.")]
        case KeptState.EXPIRED:
            return [Cause("expired", "It came too late, and is gone.")]
        case JobState.BURIED:
            return [_why_buried(facts.record)]
        case JobState.RESERVED:
            return [cause for cause in [_why_only_held(facts)] if cause]
        case JobState.DELAYED:
            return [_why_delayed(facts), *_what_else(facts)]
        case _:
            return _what_else(facts)


def next_step(facts: Facts, causes: list[Cause]) -> str:
    """Return what happens next."""
    record = facts.record
    if record.state is JobState.BURIED:
        return f"Nothing, until `pulpo-pool kick {record.job_id}` makes it ready again."
    if record.state is JobState.RESERVED:
        return _next_of_reserved(facts)
    if record.end is not None:
        return f"Nothing. What is kept of it goes {_until(record.end.kept_until, facts.now)}."
    return _next_of_waiting(facts, causes)


def _next_of_waiting(facts: Facts, causes: list[Cause]) -> str:
    record = facts.record
    codes = {cause.code for cause in causes}
    if "expired" in codes:
        end = "buried" if facts.on_expired == "bury" else "discarded"
        return f"It is {end} by the worker that takes it next: it has expired."
    attempt = f"attempt {record.attempts + 1}"
    if record.state is JobState.DELAYED and codes <= {"delayed", "backoff", "put_back"}:
        return f"It becomes ready {_until(record.due, facts.now)}; then {attempt} begins."
    if codes & _OBSTACLES:
        return f"It waits for that to change; then {attempt} begins."
    return f"The next worker that is free begins {attempt}."


# -- the past -----------------------------------------------------------------------------------


def _published(message: Message, now: float) -> Iterator[str]:
    when = message.published_at
    told = f"It was published {_moment(when.timestamp(), now)}" if when else "It has no date"
    yield f"{told}, as message {message.id or 'without an id'}, priority {message.priority}."
    if message.not_before:
        yield f"It was not to run before {_moment(message.not_before.timestamp(), now)}."
    if message.expiration:
        yield f"It expires {_moment(message.expiration.timestamp(), now)}."
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
        return f"It was discarded {_moment(end.at, now)}: it expired before a worker was free."
    owner = Owner.read(record.owner or "")
    who = f" by worker {owner.slot} (serial {owner.serial})" if owner else ""
    took = f"{_span(end.seconds)} in its handler"
    return f"Attempt {record.attempts}{who} ended well {_moment(end.at, now)}, after {took}."


def _told(setback: Setback) -> str:
    owner = Owner.read(setback.worker)
    who = f" by worker {owner.slot} (serial {owner.serial})" if owner else ""
    where = f" on {setback.host}" if setback.host else ""
    what = _ENDED.get(setback.reason, "failed")
    end = "; the job was buried" if setback.outcome == "buried" else ""
    cause = setback.error.strip().rpartition("\n")[2]
    shown = "; `peek` shows its last stack" if setback.stack else ""
    told = f"Attempt {setback.attempt}{who}{where} {what} at {_date(setback.at)}{end}{shown}"
    return f"{told}: {cause}" if cause else f"{told}."


# -- the present --------------------------------------------------------------------------------


def _why_buried(record: JobRecord) -> Cause:
    reason = record.reason or ""
    why = _BURIED.get(reason, reason)
    cause = (record.error or "").strip().rpartition("\n")[2]
    text = f"It is buried, because {why}" if why else "It is buried; why is not known here"
    return Cause("buried", f"{text}: {cause}" if cause else f"{text}.")


def _why_delayed(facts: Facts) -> Cause:
    record = facts.record
    until = _until(record.due, facts.now)
    message = facts.message
    planned = message and message.not_before and message.not_before.timestamp() > facts.now
    if planned:
        return Cause("delayed", f"Its publisher wants it to wait: due {until}.")
    if record.history:
        last = record.history[-1]
        return Cause("backoff", f"It waits after its failed attempt {last.attempt}: due {until}.")
    if record.attempts:
        return Cause("backoff", f"It was put back after attempt {record.attempts}: due {until}.")
    return Cause("put_back", f"It was put back before it was begun: due {until}.")


def _what_else(facts: Facts) -> list[Cause]:
    """Return what a ready job would wait for."""
    record, message = facts.record, facts.message
    causes = []
    if message and message.expiration and message.expiration.timestamp() <= facts.now:
        causes.append(
            Cause("expired", f"It expired {_moment(message.expiration.timestamp(), facts.now)}.")
        )
    working = [pool for pool in facts.pools if pool.same_queue]
    serving = [pool for pool in working if record.queue in pool.master["queues"]]
    if not working:
        causes.append(_no_pool(facts))
    elif not serving:
        names = ", ".join(
            f"pool {pool.name} works on {', '.join(pool.master['queues'])}" for pool in working
        )
        text = f"No pool that runs here works on queue {record.queue}: {names}."
        causes.append(Cause("queue_not_worked_on", text))
    else:
        causes += _pools_standing(serving, message)
    if message and facts.handled is False:
        text = f"{facts.told_by} has no handler for {message.request_type}."
        causes.append(Cause("no_handler", text))
    if record.state is JobState.READY and facts.in_front:
        text = f"{facts.in_front:,} ready jobs of its queue are in front of it."
        causes.append(Cause("in_front", text))
    return causes


def _no_pool(facts: Facts) -> Cause:
    others = ", ".join(pool.name for pool in facts.pools)
    rest = f" (but on another broker: {others})" if others else ""
    return Cause("no_pool", f"No pool of this state directory runs{rest}; others are not known.")


def _pools_standing(serving: list[PoolSeen], message: Message | None) -> list[Cause]:
    """Return why none of these pools takes a job; nothing if one of them could."""
    causes = []
    for pool in serving:
        state = str(pool.master["state"])
        states = Counter(str(worker["state"]) for worker in pool.workers)
        if state != "running":
            text = f"Pool {pool.name} {_STANDING.get(state, f'is {state}')}."
            causes.append(Cause("pool_not_working", text))
        elif not any(states[up] for up in _UP):
            what = ", ".join(f"{number} {word}" for word, number in sorted(states.items()))
            text = f"Pool {pool.name} has no worker that is up ({what or 'none at all'})."
            causes.append(Cause("no_worker", text))
        elif paused := pool.pause_of(message):
            causes.append(Cause("type_paused", paused))
        elif not states["idle"]:
            text = f"All {states['busy']} workers of pool {pool.name} are busy."
            causes.append(Cause("busy", text))
        else:
            return []
    return causes


# -- in somebody's hands ------------------------------------------------------------------------


def holder(facts: Facts) -> tuple[PoolSeen, Mapping[str, Any]] | None:
    """Return the pool and the worker that say they run the job."""
    for pool in facts.pools:
        for worker in pool.workers:
            if pool.same_queue and worker["job_id"] == facts.record.job_id:
                return pool, worker
    return None


def _why_only_held(facts: Facts) -> Cause | None:
    """Return why a reserved job may not be running; None while a worker says that it is."""
    record = facts.record
    if holder(facts) is not None:
        return None
    owner = Owner.read(record.owner or "")
    if owner is None:
        return Cause(
            "held_elsewhere",
            "It is reserved, by a worker of another host or state directory or by another "
            "program: who that is is not known here.",
        )
    told = f"worker {owner.slot} (serial {owner.serial})"
    pool = next((pool for pool in facts.pools if pool.master.get("identity") == owner.pool), None)
    if pool is None:
        return Cause(
            "owner_unknown",
            f"It is reserved by {told} of a pool that does not run here: if that pool died, its "
            "next start takes the job back at once.",
        )
    alive = pool.master.get("instance") == owner.instance and any(
        worker["serial"] == owner.serial and worker["pid"] for worker in pool.workers
    )
    if alive:
        return Cause("between", f"{told.capitalize()} of pool {pool.name} is about to settle it.")
    return Cause(
        "owner_dead",
        f"It is reserved by {told} of pool {pool.name}, which is dead: the keeper takes it back.",
    )


def running(facts: Facts) -> Iterator[str]:
    """Yield who runs the job now, if anybody here does."""
    found = holder(facts)
    if found is not None:
        pool, worker = found
        yield (
            f"Worker {worker['slot']} of pool {pool.name} (pid {worker['pid']}) has run it for "
            f"{_span(worker['job_seconds'])}: this is attempt {facts.record.attempts}."
        )


def _next_of_reserved(facts: Facts) -> str:
    lease = f"its lease ends {_until(facts.record.due, facts.now)}"
    if holder(facts) is not None:
        return f"Its handler ends; {lease} unless it is renewed."
    return f"It is settled by whoever holds it, or comes back: {lease}."


# -- words --------------------------------------------------------------------------------------


def _date(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%F %TZ}"
    except (OverflowError, OSError, ValueError):
        return f"Unix second {at:g}"


def _moment(at: float, now: float) -> str:
    gap = now - at
    return f"{_date(at)} ({_span(abs(gap))} {'ago' if gap >= 0 else 'from now'})"


def _until(due: float | None, now: float) -> str:
    if due is None:
        return "at a time that is not known"
    return f"at {_date(due)} (in {_span(max(0.0, due - now))})"


def _span(seconds: float) -> str:
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"
