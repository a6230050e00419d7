"""What happens inside a file queue's transactions: a job stored, settled, reserved, promoted."""

from __future__ import annotations

import secrets
from collections import Counter
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pulpo_pool.queues.adapter import (
    Bury,
    Commit,
    JobState,
    Reservation,
    Rollback,
    Settled,
)
from pulpo_pool.queues.file_people import STATES
from pulpo_pool.queues.file_session import SQL
from pulpo_pool.queues.history import extended, kept, read, setback_of, written

if TYPE_CHECKING:
    import sqlite3

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import QueueAdapter, Settlement

SAFETY_LOOK: Final = 30.0  # seconds: what a ring lost with its hearer can cost

_READY: Final = STATES.index(JobState.READY)
_DELAYED: Final = STATES.index(JobState.DELAYED)
_PROMOTED_AT_ONCE: Final = 1_000  # some 5 ms, for which the other writers wait
_LARGEST_TOKEN: Final = 2**62 - 1
_NOBODY: Final[tuple[str, ...]] = ()

_INSERT_READY: Final = SQL["insert_ready"]
_INSERT_DELAYED: Final = SQL["insert_delayed"]
_LAST_ID: Final = SQL["last_id"]
_NEXT_DUE: Final = SQL["next_due"]
_PROMOTE: Final = SQL["promote"]
_CLAIM: Final = SQL["claim"]
_HAS_READY: Final = SQL["has_ready"]
_COMMIT: Final = SQL["commit"]
_ROLLBACK: Final = SQL["rollback"]
_PUT_BACK: Final = SQL["put_back"]
_BURY: Final = SQL["bury"]
_TOUCH: Final = SQL["touch"]
_HISTORY: Final = SQL["history"]
_KEEP: Final = SQL["keep"]

Claim: TypeAlias = tuple[int, str, bytes, int, int, float, int]  # see `Turns.reservation`
Insertion: TypeAlias = tuple[str, tuple[str | float | bytearray, ...]]  # a statement, its values


class Turn(NamedTuple):
    """What one transaction of a worker came to."""

    settled: Settled
    claim: Claim | None
    rings: tuple[str, ...]  # queues that others should be woken for
    next_due: float = 0.0  # Unix seconds; known where nothing was reserved


class Turns:
    """The turns of one adapter: each settles at most one job and reserves at most one."""

    def __init__(self, adapter: QueueAdapter, keep_done: float = 0.0) -> None:
        self._adapter = adapter
        self._keep_done = keep_done  # seconds
        self._owner = str(adapter.owner) if adapter.owner else None
        # Random, so that a lease of a database that was replaced does not fit the new one's.
        self._token = secrets.randbelow(_LARGEST_TOKEN)
        heads = " UNION ALL ".join([SQL["head"]] * len(adapter.queues))
        self._next_ready = SQL["next_ready"].format(heads=heads, next_due=_NEXT_DUE)

    def take(self, cursor: sqlite3.Cursor, settlement: Settlement | None) -> Turn:
        """Settle, then reserve the next job; what is due goes before what is ready."""
        settled, rings = Settled.NOTHING, _NOBODY
        if settlement is not None:
            settled, rings = self.settle(cursor, settlement)
        now = self._adapter.clock.now()
        claim = self._claim(cursor, now, unless_due=now)
        if claim is not None:
            return Turn(settled, claim, rings)
        if next_due(cursor) <= now:
            left = Counter(promote(cursor, now))
            claim = self._claim(cursor, now, unless_due=-1.0)
            if claim is not None:
                left[claim[1]] -= 1
            rings = (*rings, *+left)
        return Turn(settled, claim, rings, next_due(cursor))

    def take_woken(self, cursor: sqlite3.Cursor) -> Turn:
        """Take a turn and, having swallowed a ring, pass on what else it may have meant."""
        turn = self.take(cursor, None)
        if turn.claim is None:
            return turn
        rings = set(turn.rings)
        if next_due(cursor) - self._adapter.clock.now() < SAFETY_LOOK:
            rings.add(turn.claim[1])  # whoever wakes next keeps that date
        rings.update(
            queue
            for queue in self._adapter.queues
            if cursor.execute(_HAS_READY, (queue,)).fetchone()
        )
        return turn._replace(rings=tuple(rings))

    def _claim(self, cursor: sqlite3.Cursor, now: float, *, unless_due: float) -> Claim | None:
        """Reserve the next ready job, unless a job that is not ready yet was due by then."""
        row = cursor.execute(self._next_ready, (*self._adapter.queues, unless_due)).fetchone()
        if row is None:
            return None
        token = self._token = (self._token + 1) & _LARGEST_TOKEN
        lease_end = now + self._adapter.lease
        # Two statements: one UPDATE ... RETURNING keeps its rows in a table, and costs 1.3 us more.
        cursor.execute(_CLAIM, (lease_end, token, self._owner, row[0]))
        return (*row, lease_end, token)

    def reservation(self, claim: Claim) -> Reservation:
        """Return what was claimed; made after the transaction, for which all others wait."""
        job_id, queue, raw, attempts, crashes, lease_end, token = claim
        return Reservation(
            job_id=str(job_id),
            queue=queue,
            raw=raw,
            codec=self._adapter.codec,
            attempt=attempts + 1,
            crashes=crashes,
            lease_end=lease_end,
            token=token,
        )

    def settle(
        self, cursor: sqlite3.Cursor, settlement: Settlement
    ) -> tuple[Settled, tuple[str, ...]]:
        """Settle a job if its lease was kept; return also for which queues to ring."""
        held = settlement.reservation
        lease = (int(held.job_id), held.token)
        rings = _NOBODY
        match settlement:
            case Commit():
                if self._keep_done:
                    self._keep(cursor, settlement)
                done = cursor.execute(_COMMIT, lease)
            case Rollback(delay=delay, error=error, free=free):
                due = self._adapter.clock.now() + delay if delay > 0 else None
                state = _READY if due is None else _DELAYED
                if free:
                    done = cursor.execute(_PUT_BACK, (state, due, *lease))
                else:
                    past = self._history(cursor, settlement)
                    done = cursor.execute(_ROLLBACK, (state, due, kept(error), past, *lease))
                rings = (held.queue,)
            case Bury(reason=reason, error=error):
                past = self._history(cursor, settlement)
                done = cursor.execute(_BURY, (reason.value, kept(error), past, *lease))
        if done.rowcount == 0:
            return Settled.LOST, _NOBODY
        return Settled.DONE, rings

    def _keep(self, cursor: sqlite3.Cursor, commit: Commit) -> None:
        """Write down a job that is about to go, if its lease was kept."""
        held, now = commit.reservation, self._adapter.clock.now()
        ended = (commit.expired, now, commit.seconds, now + self._keep_done)
        cursor.execute(_KEEP, (*ended, int(held.job_id), held.token))

    def _history(self, cursor: sqlite3.Cursor, settlement: Settlement) -> str | None:
        """Return the job's history with this settlement, as it is stored; None if it adds none."""
        held = settlement.reservation
        setback = setback_of(
            settlement,
            attempt=held.attempt,
            at=self._adapter.clock.now(),
            owner=self._adapter.owner,
        )
        row = cursor.execute(_HISTORY, (int(held.job_id), held.token)).fetchone()
        if setback is None or row is None:
            return None
        return written(extended(read(row[1]), setback))


def insertion(message: Message, raw: bytes, now: float) -> Insertion:
    """Return what stores a message."""
    # A bytearray, since sqlite3 asks for an adapter of everything that is not of four types; so
    # it does for NULL. Without both, and with the state written out, a row takes 3 us, not 4.
    values = message.queue, message.priority, bytearray(raw)
    not_before = message.not_before
    due = None if not_before is None else not_before.timestamp()
    if due is None or due <= now:
        return _INSERT_READY, values
    return _INSERT_DELAYED, (*values, due)


def insert(cursor: sqlite3.Cursor, jobs: list[Insertion]) -> int:
    """Store jobs; return the number of the last, which end an unbroken series."""
    for statement, some in groupby(jobs, itemgetter(0)):
        cursor.executemany(statement, map(itemgetter(1), some))
    (last,) = cursor.execute(_LAST_ID).fetchone()
    return int(last)


def next_due(cursor: sqlite3.Cursor) -> float:
    """Return when the next delayed job or lease is due, in Unix seconds; infinity for never."""
    (due,) = cursor.execute(_NEXT_DUE).fetchone()
    return float(due)


def promote(cursor: sqlite3.Cursor, now: float) -> list[str]:
    """Make ready what is due, up to a number; return the queue of each job."""
    rows = cursor.execute(_PROMOTE, (now, _PROMOTED_AT_ONCE)).fetchall()
    return [queue for (queue,) in rows]


def touch(cursor: sqlite3.Cursor, lease_end: float, job_id: int, token: int) -> bool:
    """Renew a lease; tell whether it was kept."""
    return cursor.execute(_TOUCH, (lease_end, job_id, token)).rowcount == 1
