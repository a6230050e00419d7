"""FileQueueAdapter: a queue in one SQLite file, shared by the processes of a host."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, Unpack

from pulpo_pool.errors import QueueUnavailable, ReservationLost
from pulpo_pool.queues import file_people as people
from pulpo_pool.queues import file_place as place
from pulpo_pool.queues import file_rescue
from pulpo_pool.queues.adapter import (
    AdapterOptions,
    Bury,
    Commit,
    JobState,
    QueueAdapter,
    Reservation,
    Rollback,
    Settled,
)
from pulpo_pool.queues.doorbell import Doorbell, Heard
from pulpo_pool.queues.file_store import SQL, Durability, FileStore

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import (
        CrashLimit,
        JobRecord,
        Judge,
        QueueStats,
        Rescued,
        Settlement,
    )

SAFETY_LOOK: Final = 30.0  # seconds: what a ring lost with its hearer can cost
LONGEST_ERROR: Final = 16_384  # characters kept of what went wrong

_READY: Final = people.STATES.index(JobState.READY)
_DELAYED: Final = people.STATES.index(JobState.DELAYED)
_PROMOTED_AT_ONCE: Final = 1_000  # some 5 ms, for which the other writers wait

_NOBODY: Final[tuple[str, ...]] = ()

_INSERT: Final = SQL["insert"]
_LAST_ID: Final = SQL["last_id"]
_NEXT_DUE: Final = SQL["next_due"]
_PROMOTE: Final = SQL["promote"]
_HAS_READY: Final = SQL["has_ready"]
_COMMIT: Final = SQL["commit"]
_ROLLBACK: Final = SQL["rollback"]
_BURY: Final = SQL["bury"]
_TOUCH: Final = SQL["touch"]


_Row: TypeAlias = tuple[str, int, int, float | None, bytes]


class _Turn(NamedTuple):
    """What one transaction of a worker came to."""

    settled: Settled
    reservation: Reservation | None
    next_due: float
    rings: Collection[str]


class FileQueueAdapter(QueueAdapter):
    """Jobs as rows of a SQLite database in WAL mode, at `path`.

    Publishing returns when the job is on the disk (`durability="normal"`: when it is in the
    kernel); reserving and settling never wait for the disk, so a power cut may repeat jobs whose
    end it swallowed. A reservation whose lease has ended may still be settled or touched until
    somebody takes the job back, which the next dequeue of anybody does.
    """

    def __init__(
        self, path: str, *, durability: Durability = "full", **options: Unpack[AdapterOptions]
    ) -> None:
        super().__init__(**options)
        self._store = FileStore(path, durability)
        self.path = self._store.path
        self._bells = Doorbell(
            self.path + ".bells", entrust=lambda made: place.entrust(made, self.path)
        )
        self._owner_text = str(self.owner) if self.owner else None
        # Random, so that a lease of a database that was replaced does not fit the new one's.
        self._token = secrets.randbits(62)
        self._claim = SQL["claim"].format(
            heads=" UNION ALL ".join([SQL["head"]] * len(self.queues))
        )

    # -- publishing ---------------------------------------------------------------------------

    def enqueue_many(self, messages: Iterable[Message]) -> list[str]:
        """Store all messages or none; return their job_ids in order."""
        self._check_process()
        now = self.clock.now()
        rows = [self._row(message, now) for message in messages]
        if not rows:
            return []
        self._store.follow()
        last = self._store.publish(_insert, rows)
        if self._store.follow():
            raise QueueUnavailable(f"file queue {self.path}: was replaced while it was written to")
        for queue in {row[0] for row in rows}:
            self._bells.ring(queue)
        return [str(job_id) for job_id in range(last - len(rows) + 1, last + 1)]

    def _row(self, message: Message, now: float) -> _Row:
        raw = self.codec.encode(message)
        not_before = message.not_before
        due = None if not_before is None else not_before.timestamp()
        if due is None or due <= now:
            return message.queue, _READY, message.priority, None, raw
        return message.queue, _DELAYED, message.priority, due, raw

    # -- working ------------------------------------------------------------------------------

    def dequeue(self, timeout: float = 0.0) -> Reservation | None:
        """Reserve the next job of this adapter's queues; None after `timeout` seconds without."""
        return self.settle_and_dequeue(None, timeout)[1]

    def settle(self, settlement: Settlement) -> None:
        """Commit, roll back or bury; raise ReservationLost if somebody took the job back."""
        self._check_process()
        settled, rings = self._store.write(self._settle, settlement)
        self._ring(rings)
        if settled is Settled.LOST:
            raise ReservationLost(f"job {settlement.reservation.job_id}: the lease had ended")

    def touch(self, reservation: Reservation) -> None:
        """Renew the lease; raise ReservationLost if somebody took the job back."""
        self._check_process()
        lease_end = self.clock.now() + self.lease
        kept = self._store.write(_touch, lease_end, int(reservation.job_id), reservation.token)
        if not kept:
            raise ReservationLost(f"job {reservation.job_id}: the lease had ended")
        reservation.lease_end = lease_end

    def settle_and_dequeue(
        self, settlement: Settlement | None, timeout: float = 0.0
    ) -> tuple[Settled, Reservation | None]:
        """Settle the last job and reserve the next in one transaction; then wait, if need be."""
        self._check_process()
        if timeout > 0:
            # Before the look, so that whoever publishes after it finds somebody listening.
            self._bells.listen(self.queues)
        turn = self._store.write(self._take_turn, settlement)
        self._ring(turn.rings)
        if turn.reservation is not None:
            return turn.settled, turn.reservation
        try:
            return turn.settled, self._wait(timeout, turn.next_due)
        except QueueUnavailable:
            if turn.settled is Settled.NOTHING:
                raise
            return turn.settled, None  # the settlement stands; the next call will tell the rest

    def _wait(self, timeout: float, next_due: float) -> Reservation | None:
        if self._store.follow():
            next_due = 0.0  # what we looked at is gone: look at what is there now
        if timeout <= 0:
            return None
        deadline = time.monotonic() + timeout  # real time, whatever the clock: we really wait
        if self.before_wait is not None:
            self.before_wait()
        while True:
            until_due = next_due - self.clock.now()
            seconds = min(deadline - time.monotonic(), until_due, SAFETY_LOOK)
            heard = self._bells.wait(max(0.0, seconds), self.interrupts)
            if heard is Heard.INTERRUPT:
                if until_due < SAFETY_LOOK:
                    self._ring(self.queues)  # somebody else must keep that date
                return None
            if self._store.follow() or self._bells.moved():
                self._bells.close()
            self._bells.listen(self.queues)
            turn = self._store.write(self._take_turn_woken)
            self._ring(turn.rings)
            if turn.reservation is not None or time.monotonic() >= deadline:
                return turn.reservation
            next_due = turn.next_due

    def _take_turn(self, connection: sqlite3.Connection, settlement: Settlement | None) -> _Turn:
        settled, rings = Settled.NOTHING, _NOBODY
        if settlement is not None:
            settled, rings = self._settle(connection, settlement)
        now = self.clock.now()
        promoted: Collection[str] = ()
        (next_due,) = connection.execute(_NEXT_DUE).fetchone()
        if next_due <= now:
            promoted = _promote(connection, now)
            (next_due,) = connection.execute(_NEXT_DUE).fetchone()
        reservation = self._reserve(connection, now)
        if promoted:
            left = Counter(promoted)
            if reservation is not None:
                left[reservation.queue] -= 1
            rings = (*rings, *+left)
        return _Turn(settled, reservation, next_due, rings)

    def _take_turn_woken(self, connection: sqlite3.Connection) -> _Turn:
        """Take a turn and, having swallowed a ring, pass on what else it may have meant."""
        turn = self._take_turn(connection, None)
        if turn.reservation is None:
            return turn
        rings = set(turn.rings)
        if turn.next_due - self.clock.now() < SAFETY_LOOK:
            rings.add(turn.reservation.queue)  # whoever wakes next keeps that date
        rings.update(
            queue for queue in self.queues if connection.execute(_HAS_READY, (queue,)).fetchone()
        )
        return turn._replace(rings=rings)

    def _reserve(self, connection: sqlite3.Connection, now: float) -> Reservation | None:
        token = self._token = (self._token + 1) & 0x3FFF_FFFF_FFFF_FFFF
        lease_end = now + self.lease
        row = connection.execute(
            self._claim, (lease_end, token, self._owner_text, *self.queues)
        ).fetchone()
        if row is None:
            return None
        job_id, queue, raw, attempts, crashes = row
        return Reservation(
            job_id=str(job_id),
            queue=queue,
            raw=raw,
            codec=self.codec,
            attempt=attempts,
            crashes=crashes,
            lease_end=lease_end,
            token=token,
        )

    def _settle(
        self, connection: sqlite3.Connection, settlement: Settlement
    ) -> tuple[Settled, tuple[str, ...]]:
        held = settlement.reservation
        lease = (int(held.job_id), held.token)
        rings = _NOBODY
        match settlement:
            case Commit():
                done = connection.execute(_COMMIT, lease)
            case Rollback(delay=delay, error=error):
                due = self.clock.now() + delay if delay > 0 else None
                state = _READY if due is None else _DELAYED
                done = connection.execute(_ROLLBACK, (state, due, _kept(error), *lease))
                rings = (held.queue,)
            case Bury(reason=reason, error=error):
                done = connection.execute(_BURY, (reason.value, _kept(error), *lease))
        if done.rowcount == 0:
            return Settled.LOST, _NOBODY
        return Settled.DONE, rings

    def _ring(self, queues: Iterable[str]) -> None:
        for queue in queues:
            self._bells.ring(queue)

    # -- housekeeping -------------------------------------------------------------------------

    def rescue(self, judge: Judge, limit: CrashLimit) -> list[Rescued]:
        """Take back the jobs of dead owners, in all queues of the file."""
        self._check_process()
        plans = file_rescue.plan(self._store, judge, limit)
        if not plans:
            return []
        rescued = self._store.write(file_rescue.carry_out, plans, self.clock.now())
        self._ring({job.queue for job in rescued if job.state is not JobState.BURIED})
        return rescued

    def stats(self) -> Mapping[str, QueueStats]:
        """Return the counts of every queue that has jobs, by queue."""
        self._check_process()
        return people.stats(self._store, self.clock.now())

    # -- for people ---------------------------------------------------------------------------

    def peek(self, job_id: str) -> JobRecord:
        """Return a job in any state without taking it; raise NoSuchJob."""
        self._check_process()
        return people.peek(self._store, job_id, self.codec, self.clock.now())

    def list_jobs(self, state: JobState, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs in a state, in the order they would run; of all queues unless named."""
        self._check_process()
        self._promote_all()
        return people.list_jobs(self._store, state, queues, self.codec)

    def kick(self, job_ids: Collection[str]) -> int:
        """Make buried or delayed jobs ready with a fresh count; return how many. NoSuchJob."""
        self._check_process()
        self._promote_all()
        kicked = self._store.write(people.kick, job_ids)
        self._ring(kicked)
        return kicked.total()

    def kick_all(self, *, queues: Collection[str] = ()) -> int:
        """Make every buried job ready with a fresh count; return how many."""
        self._check_process()
        kicked = people.kick_all(self._store, queues)
        self._ring(kicked)
        return kicked.total()

    def delete(self, job_id: str) -> None:
        """Remove a job in any state; raise NoSuchJob."""
        self._check_process()
        self._store.write(people.delete, job_id)

    def purge(self, state: JobState, *, queues: Collection[str] = ()) -> int:
        """Remove every job in a state; return how many."""
        self._check_process()
        self._promote_all()
        return people.purge(self._store, state, queues)

    def _promote_all(self) -> None:
        """Let what is due be ready, so that people see it where the next dequeue would put it."""
        now = self.clock.now()
        while self._store.read(_NEXT_DUE)[0][0] <= now:
            self._ring(set(self._store.write(_promote, now)))

    # -- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the file. Reserved jobs stay reserved. Closing twice is fine."""
        self._bells.close()
        if os.getpid() == self._opened_in:
            self._store.close()  # a fork's copy is not its to close


def _insert(connection: sqlite3.Connection, rows: list[_Row]) -> int:
    if len(rows) == 1:
        return connection.execute(_INSERT, rows[0]).lastrowid or 0
    connection.executemany(_INSERT, rows)
    (last,) = connection.execute(_LAST_ID).fetchone()
    return int(last)


def _promote(connection: sqlite3.Connection, now: float) -> list[str]:
    """Make ready what is due, up to a number; return the queue of each job."""
    rows = connection.execute(_PROMOTE, (now, _PROMOTED_AT_ONCE)).fetchall()
    return [queue for (queue,) in rows]


def _touch(connection: sqlite3.Connection, lease_end: float, job_id: int, token: int) -> bool:
    return connection.execute(_TOUCH, (lease_end, job_id, token)).rowcount == 1


def _kept(error: str) -> str:
    """Return what is stored of an error: its end says most, and lone surrogates cannot be."""
    if len(error) > LONGEST_ERROR:
        error = "[...]" + error[-LONGEST_ERROR:]
    return error.encode("utf-8", "backslashreplace").decode()
