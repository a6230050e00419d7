"""A job's story in plain sentences: why it does not run, and what is next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.cli.moments import moment, span, until
from pulpo_pool.queues.adapter import JobState, KeptState, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulpo_pool.cli.story_facts import Facts, PoolSeen
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import JobRecord

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


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a job does not run now: a word for programs, a sentence for people."""

    code: str
    text: str


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
        return f"Nothing. What is kept of it goes {until(record.end.kept_until, facts.now)}."
    return _next_of_waiting(facts, causes)


def _next_of_waiting(facts: Facts, causes: list[Cause]) -> str:
    record = facts.record
    codes = {cause.code for cause in causes}
    if "expired" in codes:
        end = "buried" if facts.on_expired == "bury" else "discarded"
        return f"It is {end} by the worker that takes it next: it has expired."
    attempt = f"attempt {record.attempts + 1}"
    if record.state is JobState.DELAYED and codes <= {"delayed", "backoff", "put_back"}:
        return f"It becomes ready {until(record.due, facts.now)}; then {attempt} begins."
    if codes & _OBSTACLES:
        return f"It waits for that to change; then {attempt} begins."
    return f"The next worker that is free begins {attempt}."


# -- the present --------------------------------------------------------------------------------


def _why_buried(record: JobRecord) -> Cause:
    reason = record.reason or ""
    why = _BURIED.get(reason, reason)
    cause = (record.error or "").strip().rpartition("\n")[2]
    text = f"It is buried, because {why}" if why else "It is buried; why is not known here"
    return Cause("buried", f"{text}: {cause}" if cause else f"{text}.")


def _why_delayed(facts: Facts) -> Cause:
    record = facts.record
    due = until(record.due, facts.now)
    message = facts.message
    planned = message and message.not_before and message.not_before.timestamp() > facts.now
    if planned:
        return Cause("delayed", f"Its publisher wants it to wait: due {due}.")
    if record.history:
        last = record.history[-1]
        return Cause("backoff", f"It waits after its failed attempt {last.attempt}: due {due}.")
    if record.attempts:
        return Cause("backoff", f"It was put back after attempt {record.attempts}: due {due}.")
    return Cause("put_back", f"It was put back before it was begun: due {due}.")


def _what_else(facts: Facts) -> list[Cause]:
    """Return what a ready job would wait for."""
    record, message = facts.record, facts.message
    causes = []
    if message and message.expiration and message.expiration.timestamp() <= facts.now:
        causes.append(
            Cause("expired", f"It expired {moment(message.expiration.timestamp(), facts.now)}.")
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
            f"{span(worker['job_seconds'])}: this is attempt {facts.record.attempts}."
        )


def _next_of_reserved(facts: Facts) -> str:
    lease = f"its lease ends {until(facts.record.due, facts.now)}"
    if holder(facts) is not None:
        return f"Its handler ends; {lease} unless it is renewed."
    return f"It is settled by whoever holds it, or comes back: {lease}."
