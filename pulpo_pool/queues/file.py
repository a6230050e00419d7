"""FileQueueAdapter: a queue in one SQLite file, shared by the processes of a host."""

from __future__ import annotations

import os
import sqlite3
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Unpack

from pulpo_pool.errors import QueueUnavailable, ReservationLost
from pulpo_pool.queues import file_people as people
from pulpo_pool.queues import file_place as place
from pulpo_pool.queues import file_rescue, file_turns
from pulpo_pool.queues.adapter import (
    AdapterOptions,
    JobState,
    QueueAdapter,
    Settled,
)
from pulpo_pool.queues.doorbell import Doorbell, Heard
from pulpo_pool.queues.file_session import SQL
from pulpo_pool.queues.file_store import Durability, FileStore
from pulpo_pool.queues.file_turns import SAFETY_LOOK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import (
        CrashLimit,
        JobRecord,
        Judge,
        QueueStats,
        Rescued,
        Reservation,
        Settlement,
    )


class _Seen(NamedTuple):
    """What a look found that found no job. Whoever listens ever since need not look again."""

    next_due: float  # Unix seconds
    safe_until: float  # monotonic seconds; then a ring may have been lost with its hearer


def _seen_in(turn: file_turns.Turn) -> _Seen:
    return _Seen(turn.next_due, time.monotonic() + SAFETY_LOOK)


class FileQueueAdapter(QueueAdapter):
    """Jobs as rows of a SQLite database in WAL mode, at `path`.

    Publishing returns when the job is on the disk (`durability="normal"`: when it is in the
    kernel); reserving and settling never wait for the disk, so a power cut may repeat jobs whose
    end it swallowed. A reservation whose lease has ended may still be settled or touched until
    somebody takes the job back, which the next dequeue of anybody does.

    With `keep_done`, a job that is committed is kept for so many seconds, for people to read.
    """

    def __init__(
        self,
        path: str,
        *,
        durability: Durability = "full",
        keep_done: float = 0.0,
        **options: Unpack[AdapterOptions],
    ) -> None:
        super().__init__(**options)
        self._store = FileStore(path, durability)
        self.path = self._store.path
        self._bells = Doorbell(
            self.path + ".bells", entrust=lambda made: place.entrust(made, self.path)
        )
        self._keep_done = keep_done
        self._turns = file_turns.Turns(self, keep_done)
        self._seen: _Seen | None = None  # by a wait that ended without a job, if one follows

    # -- publishing ---------------------------------------------------------------------------

    def enqueue(self, message: Message) -> str:
        """Store one message and return its job_id."""
        self._check_usable()
        raw = self.codec.encode(message)
        statement, row = file_turns.insertion(message, raw, self.clock.now())
        ring = partial(self._bells.ring, message.queue)
        return str(self._store.add(statement, row, announce=ring))

    def enqueue_many(self, messages: Iterable[Message]) -> list[str]:
        """Store all messages or none; return their job_ids in order."""
        self._check_usable()
        now = self.clock.now()
        jobs: list[file_turns.Insertion] = []
        queues: set[str] = set()
        for message in messages:
            jobs.append(file_turns.insertion(message, self.codec.encode(message), now))
            queues.add(message.queue)
        if not jobs:
            return []
        last = self._store.publish(file_turns.insert, jobs, announce=lambda: self._ring(queues))
        return [str(job_id) for job_id in range(last - len(jobs) + 1, last + 1)]

    # -- working ------------------------------------------------------------------------------

    def dequeue(self, timeout: float = 0.0) -> Reservation | None:
        """Reserve the next job of this adapter's queues; None after `timeout` seconds without."""
        return self.settle_and_dequeue(None, timeout)[1]

    def settle(self, settlement: Settlement) -> None:
        """Commit, roll back or bury; raise ReservationLost if somebody took the job back."""
        self._check_usable()
        settled, rings = self._store.turn(self._turns.settle, settlement)
        self._ring(rings)
        if settled is Settled.LOST:
            raise ReservationLost(f"job {settlement.reservation.job_id}: the lease had ended")

    def touch(self, reservation: Reservation) -> None:
        """Renew the lease; raise ReservationLost if somebody took the job back."""
        self._check_usable()
        lease_end = self.clock.now() + self.lease
        kept = self._store.turn(
            file_turns.touch, lease_end, int(reservation.job_id), reservation.token
        )
        if not kept:
            raise ReservationLost(f"job {reservation.job_id}: the lease had ended")
        reservation.lease_end = lease_end

    def settle_and_dequeue(
        self, settlement: Settlement | None, timeout: float = 0.0
    ) -> tuple[Settled, Reservation | None]:
        """Settle the last job and reserve the next in one transaction; then wait, if need be."""
        self._check_usable()
        seen, self._seen = self._seen, None
        if seen is not None and settlement is None and timeout > 0 and not self._moved():
            return Settled.NOTHING, self._wait(timeout, seen)
        if timeout > 0:
            # Before the look, so that whoever publishes after it finds somebody listening.
            self._bells.listen(self.queues)
        turn = self._store.turn(self._turns.take, settlement)
        self._ring(turn.rings)
        if turn.claim is not None:
            return turn.settled, self._turns.reservation(turn.claim)
        try:
            if self._store.follow():
                turn = turn._replace(next_due=0.0)  # what we looked at is gone: look again
            return turn.settled, self._wait(timeout, _seen_in(turn))
        except QueueUnavailable:
            if turn.settled is Settled.NOTHING:
                raise
            return turn.settled, None  # the settlement stands; the next call will tell the rest

    def _wait(self, timeout: float, seen: _Seen) -> Reservation | None:
        if timeout <= 0:
            return None
        deadline = time.monotonic() + timeout  # real time, whatever the clock: we really wait
        if self.before_wait is not None:
            self.before_wait()
        while True:
            now = time.monotonic()
            until_look = min(seen.next_due - self.clock.now(), seen.safe_until - now)
            seconds = min(deadline - now, until_look)
            heard = self._bells.wait(max(0.0, seconds), self.interrupts)
            if heard is Heard.INTERRUPT:
                self._leave_date_to_others(seen)
                return None
            if heard is Heard.SILENCE and seconds < until_look:
                self._seen = seen
                return None
            turn = self._take_woken()
            if turn.claim is not None:
                return self._turns.reservation(turn.claim)
            seen = _seen_in(turn)
            if time.monotonic() >= deadline:
                self._seen = seen
                return None

    def rest(self) -> None:
        """Wait no more until the next dequeue: nothing is kept in mind for who comes back."""
        seen, self._seen = self._seen, None
        if seen is not None:
            self._leave_date_to_others(seen)

    def _leave_date_to_others(self, seen: _Seen) -> None:
        if seen.next_due - self.clock.now() < SAFETY_LOOK:
            self._ring(self.queues)

    def _take_woken(self) -> file_turns.Turn:
        """Take a turn, and another one if there was nothing because the file is another one."""
        while True:
            turn = self._store.turn(self._turns.take_woken)
            self._ring(turn.rings)
            if turn.claim is not None or not self._moved():
                return turn

    def _moved(self) -> bool:
        """Tell whether file or bells are not those we waited at; listen where they are now.

        Asked when there was nothing to do: to ask before was a twelfth of an idle worker's pick-up.
        """
        if not (self._store.follow() or self._bells.moved()):
            return False
        self._bells.close()
        self._bells.listen(self.queues)
        return True

    def _ring(self, queues: Iterable[str]) -> None:
        for queue in queues:
            self._bells.ring(queue)

    # -- housekeeping -------------------------------------------------------------------------

    def rescue(self, judge: Judge, limit: CrashLimit) -> list[Rescued]:
        """Take back the jobs of dead owners, in all queues of the file."""
        self._check_usable()
        plans = file_rescue.plan(self._store, judge, limit)
        if not plans:
            return []
        rescued = self._store.write(file_rescue.carry_out, plans, self.clock.now())
        self._ring({job.queue for job in rescued if job.state is not JobState.BURIED})
        return rescued

    def tidy(self) -> bool:
        """Forget some of the kept jobs whose time is over; tell whether more are left."""
        self._check_usable()
        return people.forget(self._store, self.clock.now())

    def engine(self) -> str:
        """Return the version of the embedded SQLite."""
        return f"SQLite {sqlite3.sqlite_version}"

    def stats(self) -> Mapping[str, QueueStats]:
        """Return the counts of every queue that has jobs, by queue."""
        self._check_usable()
        return people.stats(self._store, self.clock.now())

    def waiting_since(self) -> Mapping[str, float]:
        """Return since when each queue has had a job ready that nobody took, in Unix seconds."""
        self._check_usable()
        return people.waiting_since(self._store, self.codec, self.clock.now())

    # -- for people ---------------------------------------------------------------------------

    def peek(self, job_id: str) -> JobRecord:
        """Return a job in any state without taking it, or a kept one; raise NoSuchJob."""
        self._check_usable()
        return people.peek(self._store, job_id, self.codec, self.clock.now())

    def jobs_in_front(self, record: JobRecord) -> int | None:
        """Return how many ready jobs of its queue run before a ready one; an index is counted."""
        self._check_usable()
        return people.in_front(self._store, record)

    def find_message(self, message_id: str) -> str | None:
        """Return the job_id of a message; None if there is none. The bytes of all are searched."""
        self._check_usable()
        return people.find_message(self._store, message_id, self.codec)

    def list_jobs(self, state: JobState, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs in a state, in the order they would run; of all queues unless named."""
        self._check_usable()
        self._promote_all()
        return people.list_jobs(self._store, state, queues, self.codec)

    def list_done(self, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs that are gone and kept, the one first that goes last."""
        self._check_usable()
        off = "jobs that are done are not kept: this broker's URL has no keep_done"
        self.unseen = "" if self._keep_done else off
        return people.list_done(self._store, queues, self.codec)

    def purge_done(self) -> int:
        """Forget every kept job that is gone; return how many."""
        self._check_usable()
        return people.forget_all(self._store)

    def kick(self, job_ids: Collection[str]) -> int:
        """Make buried or delayed jobs ready with a fresh count; return how many. NoSuchJob."""
        self._check_usable()
        self._promote_all()
        kicked = self._store.write(people.kick, job_ids)
        self._ring(kicked)
        return kicked.total()

    def kick_all(self, *, queues: Collection[str] = ()) -> int:
        """Make every buried job ready with a fresh count; return how many."""
        self._check_usable()
        kicked = people.kick_all(self._store, queues)
        self._ring(kicked)
        return kicked.total()

    def replace(self, job_id: str, message: Message) -> str:
        """Put a message in the place of a job's own; raise NoSuchJob, JobReserved."""
        self._check_usable()
        self._promote_all()
        return self._store.publish(people.replace, job_id, message, self.codec)

    def delete(self, job_id: str) -> None:
        """Remove a job in any state, or a kept one; raise NoSuchJob."""
        self._check_usable()
        self._store.write(people.delete, job_id)

    def purge(self, state: JobState, *, queues: Collection[str] = ()) -> int:
        """Remove every job in a state; return how many."""
        self._check_usable()
        self._promote_all()
        return people.purge(self._store, state, queues)

    def _promote_all(self) -> None:
        """Let what is due be ready, so that people see it where the next dequeue would put it."""
        now = self.clock.now()
        while self._store.read(SQL["next_due"])[0][0] <= now:
            self._ring(set(self._store.write(file_turns.promote, now)))

    # -- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the file. Reserved jobs stay reserved. Closing twice is fine."""
        self._bells.close()
        if os.getpid() == self._opened_in:
            self._store.close()  # a fork's copy is not its to close

    def _check_usable(self) -> None:
        self._check_process()
        if self._store.closed:
            raise QueueUnavailable(f"file queue {self.path}: this adapter is closed")
