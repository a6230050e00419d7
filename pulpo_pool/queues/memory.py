"""MemoryQueueAdapter: a queue inside one process; the reference, and the test double."""

from __future__ import annotations

import os
import selectors
import time
from typing import TYPE_CHECKING, Unpack

from pulpo_pool.errors import JobReserved, NoSuchJob, QueueUnavailable, ReservationLost
from pulpo_pool.queues.adapter import (
    AdapterOptions,
    Bury,
    BuryReason,
    Commit,
    Fate,
    JobRecord,
    JobState,
    QueueAdapter,
    QueueStats,
    Rescued,
    Reservation,
    Rollback,
)
from pulpo_pool.queues.history import extended, setback_of, setback_of_rescue
from pulpo_pool.queues.memory_store import Job, MemoryStore
from pulpo_pool.queues.records import named, oldest, priority_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import CrashLimit, Judge, Settlement, Verdict


class MemoryQueueAdapter(QueueAdapter):
    """Jobs in this process's memory: gone with it, and of no use to workers that are forked.

    Adapters that are given one `store` see the same jobs. A reservation whose lease has ended may
    still be settled or touched until somebody takes the job back, which the next dequeue does.
    """

    def __init__(
        self, *, store: MemoryStore | None = None, **options: Unpack[AdapterOptions]
    ) -> None:
        super().__init__(**options)
        self.store = store or MemoryStore()
        self._bell: tuple[int, int] | None = None
        self._closed = False

    # -- publishing ---------------------------------------------------------------------------

    def enqueue_many(self, messages: Iterable[Message]) -> list[str]:
        """Store all messages or none; return their job_ids in order."""
        self._check_usable()
        now = self.clock.now()
        encoded = [(message, self.codec.encode(message)) for message in messages]
        with self.store.lock:
            return [
                str(self.store.add(message.queue, raw, message.priority, _later(message, now)))
                for message, raw in encoded
            ]

    # -- working ------------------------------------------------------------------------------

    def dequeue(self, timeout: float = 0.0) -> Reservation | None:
        """Reserve the next job of this adapter's queues; None after `timeout` seconds without."""
        self._check_usable()
        bell = self._listen() if timeout > 0 else -1
        reservation, next_due = self._look()
        if reservation is not None or timeout <= 0:
            return reservation
        deadline = time.monotonic() + timeout  # real time, whatever the clock: we really wait
        if self.before_wait is not None:
            self.before_wait()
        with selectors.DefaultSelector() as selector:
            for descriptor in {bell, *self.interrupts}:
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                until_due = next_due - self.clock.now()
                seconds = min(deadline - time.monotonic(), until_due)
                ready = {key.fd for key, _ in selector.select(max(0.0, seconds))}
                if bell in ready:
                    os.read(bell, 65_536)
                if not ready.isdisjoint(self.interrupts):
                    return None
                reservation, next_due = self._look()
                if reservation is not None or time.monotonic() >= deadline:
                    return reservation

    def _look(self) -> tuple[Reservation | None, float]:
        with self.store.lock:
            now = self.clock.now()
            next_due = self.store.promote(now)
            job = self.store.take(self.queues, self.owner, now + self.lease)
            if job is None:
                return None, next_due
            reservation = Reservation(
                job_id=str(job.number),
                queue=job.queue,
                raw=job.raw,
                codec=self.codec,
                attempt=job.attempts,
                crashes=job.crashes,
                lease_end=now + self.lease,
                token=job.token,
            )
            return reservation, next_due

    def settle(self, settlement: Settlement) -> None:
        """Commit, roll back or bury; raise ReservationLost if somebody took the job back."""
        self._check_usable()
        with self.store.lock:
            job = self._held(settlement.reservation)
            if type(settlement) is Commit:
                del self.store.jobs[job.number]
                return
            setback = setback_of(
                settlement, attempt=job.attempts, at=self.clock.now(), owner=self.owner
            )
            if setback is not None:
                job.history = extended(job.history, setback)
            match settlement:
                case Rollback(delay=delay, error=error, free=free):
                    if free:
                        job.attempts -= 1
                    else:
                        job.error = error
                    self.store.put_back(job, self.clock.now() + delay if delay > 0 else None)
                case Bury(reason=reason, error=error):
                    self.store.set_aside(job, reason, error)

    def touch(self, reservation: Reservation) -> None:
        """Renew the lease; raise ReservationLost if somebody took the job back."""
        self._check_usable()
        with self.store.lock:
            job = self._held(reservation)
            reservation.lease_end = self.clock.now() + self.lease
            self.store.lease(job, reservation.lease_end)

    def _held(self, reservation: Reservation) -> Job:
        job = self.store.jobs.get(int(reservation.job_id))
        if job is None or job.state is not JobState.RESERVED or job.token != reservation.token:
            raise ReservationLost(f"job {reservation.job_id}: the lease had ended")
        return job

    # -- housekeeping -------------------------------------------------------------------------

    def rescue(self, judge: Judge, limit: CrashLimit) -> list[Rescued]:
        """Take back the jobs of dead owners, in all queues of the store."""
        self._check_usable()
        with self.store.lock:
            held = [
                (job.number, job.token, job.owner)
                for job in self.store.jobs.values()
                if job.state is JobState.RESERVED and job.owner is not None
            ]
        verdicts = {owner: judge(owner) for owner in dict.fromkeys(owner for _, _, owner in held)}
        rescued = []
        with self.store.lock:
            for number, token, owner in held:
                job = self.store.jobs.get(number)
                verdict = verdicts[owner]
                if job is None or job.state is not JobState.RESERVED or job.token != token:
                    continue
                if verdict.fate is not Fate.ALIVE:
                    self._take_back(job, verdict, limit)
                    rescued.append(
                        Rescued(
                            job_id=str(number),
                            queue=job.queue,
                            owner=owner,
                            verdict=verdict,
                            state=job.state,
                            crashes=job.crashes,
                            raw=job.raw,
                        )
                    )
        return rescued

    def _take_back(self, job: Job, verdict: Verdict, limit: CrashLimit) -> None:
        crashed = verdict.fate is Fate.CRASHED
        buried = crashed and job.crashes + 1 >= limit.max_crashes
        if verdict.evidence:
            job.error = verdict.evidence
        if job.owner is not None:
            setback = setback_of_rescue(
                verdict,
                attempt=job.attempts,
                at=self.clock.now(),
                owner=job.owner,
                buried=buried,
            )
            job.history = extended(job.history, setback)
        if verdict.fate is Fate.CUT_OFF:
            job.attempts -= 1
        delay = 0.0
        if crashed:
            job.crashes += 1
            if buried:
                self.store.set_aside(job, BuryReason.CRASHED, verdict.evidence)
                return
            if job.crashes > 1:
                delay = limit.delay(job.crashes)
        self.store.put_back(job, self.clock.now() + delay if delay > 0 else None)

    def stats(self) -> Mapping[str, QueueStats]:
        """Return the counts of every queue that has jobs, by queue."""
        self._check_usable()
        counts: dict[str, QueueStats] = {}
        with self.store.lock:
            now = self.clock.now()
            for job in self.store.jobs.values():
                one = QueueStats(**{_seen_as(job, now).value: 1})
                counts[job.queue] = counts.get(job.queue, QueueStats()) + one
        return counts

    def waiting_since(self) -> Mapping[str, float]:
        """Return since when each queue has had a job ready that nobody took, in Unix seconds."""
        self._check_usable()
        with self.store.lock:
            now = self.clock.now()
            jobs = [job for job in self.store.jobs.values() if _seen_as(job, now) is JobState.READY]
            found = oldest(((j.queue, j.raw) for j in reversed(jobs) if j.due is None), self.codec)
            for job in jobs:
                if job.due is not None:
                    found[job.queue] = min(job.due, found.get(job.queue, job.due))
        return found

    # -- for people ---------------------------------------------------------------------------

    def peek(self, job_id: str) -> JobRecord:
        """Return a job in any state without taking it; raise NoSuchJob."""
        self._check_usable()
        with self.store.lock:
            return self._record(self._find(job_id), self.clock.now())

    def jobs_in_front(self, record: JobRecord) -> int | None:
        """Return how many ready jobs of its queue run before a ready one."""
        self._check_usable()
        place = (record.priority, int(record.job_id))
        with self.store.lock:
            self.store.promote(self.clock.now())
            ready = self._select(JobState.READY, (record.queue,))
            return sum((job.priority, job.number) < place for job in ready)

    def find_message(self, message_id: str) -> str | None:
        """Return the job_id of a message; None if there is none. Every job is looked at."""
        self._check_usable()
        with self.store.lock:
            rows = [(job.number, job.raw) for job in self.store.jobs.values()]
        return named(message_id, rows, self.codec)

    def list_jobs(self, state: JobState, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs in a state, in the order they would run; of all queues unless named."""
        self._check_usable()
        with self.store.lock:
            now = self.clock.now()
            self.store.promote(now)
            jobs = self._select(state, queues)
            jobs.sort(key=lambda job: (job.due or 0.0, job.priority, job.number))
            return iter([self._record(job, now) for job in jobs])

    def kick(self, job_ids: Collection[str]) -> int:
        """Make buried or delayed jobs ready with a fresh count; return how many. NoSuchJob."""
        self._check_usable()
        with self.store.lock:
            self.store.promote(self.clock.now())
            jobs = [self._find(job_id) for job_id in dict.fromkeys(job_ids)]
            return self._revive(
                job for job in jobs if job.state in (JobState.DELAYED, JobState.BURIED)
            )

    def kick_all(self, *, queues: Collection[str] = ()) -> int:
        """Make every buried job ready with a fresh count; return how many."""
        self._check_usable()
        with self.store.lock:
            return self._revive(self._select(JobState.BURIED, queues))

    def replace(self, job_id: str, message: Message) -> str:
        """Put a message in the place of a job's own; raise NoSuchJob, JobReserved."""
        self._check_usable()
        raw = self.codec.encode(message)
        with self.store.lock:
            now = self.clock.now()
            self.store.promote(now)
            job = self._find(job_id)
            if job.state is JobState.RESERVED:
                raise JobReserved(f"job {job_id} is in a worker's hands")
            self.store.replace(job, raw, priority_of(message, self._record(job, now)))
            return str(job.number)

    def delete(self, job_id: str) -> None:
        """Remove a job in any state; raise NoSuchJob."""
        self._check_usable()
        with self.store.lock:
            del self.store.jobs[self._find(job_id).number]

    def purge(self, state: JobState, *, queues: Collection[str] = ()) -> int:
        """Remove every job in a state; return how many."""
        self._check_usable()
        with self.store.lock:
            self.store.promote(self.clock.now())
            jobs = self._select(state, queues)
            for job in jobs:
                del self.store.jobs[job.number]
            return len(jobs)

    def _select(self, state: JobState, queues: Collection[str]) -> list[Job]:
        return [
            job
            for job in self.store.jobs.values()
            if job.state is state and (not queues or job.queue in queues)
        ]

    def _revive(self, jobs: Iterable[Job]) -> int:
        revived = 0
        for job in jobs:
            job.attempts = job.crashes = 0
            job.reason = job.error = None
            self.store.put_back(job, None)
            revived += 1
        return revived

    def _find(self, job_id: str) -> Job:
        number = int(job_id) if job_id.isascii() and job_id.isdigit() else 0
        job = self.store.jobs.get(number)
        if job is None:
            raise NoSuchJob(f"there is no job {job_id!r} in this queue")
        return job

    def _record(self, job: Job, now: float) -> JobRecord:
        state = _seen_as(job, now)
        standing = state in (JobState.READY, JobState.BURIED)
        return JobRecord(
            job_id=str(job.number),
            queue=job.queue,
            state=state,
            raw=job.raw,
            codec=self.codec,
            priority=job.priority,
            attempts=job.attempts,
            crashes=job.crashes,
            due=None if standing else job.due,
            owner=str(job.owner) if job.owner and not standing else None,
            reason=job.reason,
            error=job.error,
            history=job.history,
        )

    # -- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the store. Reserved jobs stay reserved. Closing twice is fine."""
        self._closed = True
        bell, self._bell = self._bell, None
        if bell is not None:
            with self.store.lock:
                self.store.bells.discard(bell[1])
            for descriptor in bell:
                os.close(descriptor)

    def _listen(self) -> int:
        if self._bell is None:
            self._bell = os.pipe()
            for descriptor in self._bell:
                os.set_blocking(descriptor, False)
            with self.store.lock:
                self.store.bells.add(self._bell[1])
        return self._bell[0]

    def _check_usable(self) -> None:
        if not self._is_ours():
            self._check_process()  # which says what is wrong
        if self._closed:
            raise QueueUnavailable("memory queue: this adapter is closed")


def _later(message: Message, now: float) -> float | None:
    """Return the Unix seconds before which a message is not wanted; None if that is now."""
    not_before = message.not_before
    due = None if not_before is None else not_before.timestamp()
    return None if due is None or due <= now else due


def _seen_as(job: Job, now: float) -> JobState:
    """Return a job's state with what the next dequeue would do first."""
    return JobState.READY if job.due is not None and job.due <= now else job.state
