"""BeanstalkdQueueAdapter: a queue in a beanstalkd, for workers and producers on many hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Unpack

import greenstalk

from pulpo_pool.errors import NoSuchJob, PartlyPublished, QueueUnavailable, ReservationLost
from pulpo_pool.queues import beanstalkd_evidence as evidence
from pulpo_pool.queues import beanstalkd_people as people
from pulpo_pool.queues import beanstalkd_replace
from pulpo_pool.queues.adapter import AdapterOptions, QueueAdapter, Reservation, Settled
from pulpo_pool.queues.beanstalkd_encoding import Encoding
from pulpo_pool.queues.beanstalkd_puts import Put, check_size, checked_tubes, whole_seconds
from pulpo_pool.queues.beanstalkd_replace import Draft
from pulpo_pool.queues.beanstalkd_turns import Turns
from pulpo_pool.queues.evidence import EvidenceStore
from pulpo_pool.queues.records import oldest, priority_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import (
        CrashLimit,
        JobRecord,
        JobState,
        Judge,
        Numbering,
        QueueStats,
        Rescued,
        Settlement,
    )
    from pulpo_pool.setback import Setback

DEFAULT_PORT: Final = 11_300
DEFAULT_SOCKET_TIMEOUT: Final = 10.0  # seconds


class BeanstalkdQueueAdapter(QueueAdapter):
    """Jobs in the tubes of a beanstalkd at `host`:`port`.

    The lease is the job's: the time-to-run it was published with, in whole seconds. The server
    hands the jobs of a closed connection back at once, those of a host that vanished when their
    lease ends. `socket_timeout` is in seconds: a server that is silent for longer counts as away.
    Every verb reconnects if it must. `encoding` is that of the jobs' bytes in the tubes. What
    became of attempts, which the server does not keep, goes into `evidence_file`.
    """

    finds_messages = False

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        socket_timeout: float = DEFAULT_SOCKET_TIMEOUT,
        encoding: str = "utf-8",
        evidence_file: Path | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        super().__init__(**options)
        checked_tubes(self.queues)
        self._encoding = Encoding(encoding)
        self._turns = Turns(self, self._encoding, host, port, socket_timeout)
        self._line = self._turns.line
        self.where = self._line.where
        self.evidence = EvidenceStore(evidence_file, self.where) if evidence_file else None
        self._tidied_up_to = ""
        self._published_lease = whole_seconds(self.lease, least=1)  # whatever touches learn
        self._closed = False
        with self._line.talking:  # so that a wrong address is told at once
            pass

    # -- publishing ---------------------------------------------------------------------------

    def enqueue_many(self, messages: Iterable[Message]) -> list[str]:
        """Store all messages or none; return their job_ids in order.

        All are sent without waiting for each one's answer. A connection that is lost on the way
        may have stored some: PartlyPublished says which.
        """
        self._check_usable()
        now = self.clock.now()
        puts = [self._put(message, now) for message in messages]
        if not puts:
            return []
        stored: list[int] = []
        sent = False
        try:
            with self._line.talking as link:
                for put in puts:
                    check_size(put, link.largest)
                sent = True
                link.put_all(puts, stored)
        except QueueUnavailable as failure:
            refused = isinstance(failure.__cause__, greenstalk.BeanstalkdError) and not stored
            if refused or not sent:
                raise
            raise PartlyPublished(str(failure), _texts(stored), len(puts)) from failure
        return _texts(stored)

    def _put(self, message: Message, now: float) -> Put:
        due = message.not_before
        return Put(
            tube=message.queue,
            body=self._encoding.outward(self.codec.encode(message)),
            priority=message.priority,
            delay=whole_seconds(due.timestamp() - now, least=0) if due else 0,
            lease=self._published_lease,
        )

    # -- working ------------------------------------------------------------------------------

    def dequeue(self, timeout: float = 0.0) -> Reservation | None:
        """Reserve the next job of this adapter's queues; None after `timeout` seconds without."""
        return self.settle_and_dequeue(None, timeout)[1]

    def settle_and_dequeue(
        self, settlement: Settlement | None, timeout: float = 0.0
    ) -> tuple[Settled, Reservation | None]:
        """Settle the last job and reserve the next in one round trip; then wait, if need be.

        Rolling back and burying take one more, for the job's priority.
        """
        if self._closed or not self._is_ours():
            self._check_usable()  # which says what is wrong
        return self._turns.take(settlement, timeout)

    def settle(self, settlement: Settlement) -> None:
        """Commit, roll back or bury; raise ReservationLost if the lease was not kept.

        A job whose connection was lost meanwhile is settled too, if it still waits where the
        server put it back.
        """
        self._check_usable()
        if self._turns.settle(settlement) is Settled.LOST:
            raise ReservationLost(f"job {settlement.reservation.job_id}: the lease had ended")

    def touch(self, reservation: Reservation) -> None:
        """Renew the lease; raise ReservationLost if it was not kept. Safe from another thread.

        The job's own lease is learned here; if it is shorter than `lease`, that is shortened, so
        that whoever renews leases does so in time.
        """
        self._check_usable()
        lease = self._turns.touch(reservation)
        self.lease = min(self.lease, lease)
        reservation.lease_end = self.clock.now() + lease

    def rest(self) -> None:
        """Reserve nothing until the next dequeue: the server no longer waits on our behalf."""
        if self._is_ours():
            self._line.rest()

    # -- housekeeping -------------------------------------------------------------------------

    def rescue(self, judge: Judge, limit: CrashLimit) -> list[Rescued]:
        """Return nothing: the server frees what the dead held when their connection closes."""
        del judge, limit
        self._check_usable()
        return []

    def engine(self) -> str:
        """Return the server's version."""
        self._check_usable()
        with self._line.talking as link:
            version = link.client.stats()["version"]
        return f"beanstalkd {version}".replace('"', "")

    def numbering(self) -> Numbering:
        """Return the server's life: without a log it counts jobs from 1 at every start.

        With one it counts on, but nothing tells whether two starts have read the same log. So
        crashes are counted anew, rather than held against a job that only has the same number.
        """
        self._check_usable()
        with self._line.talking as link:
            return link.numbering

    def note_crash(self, job_id: str, setback: Setback) -> None:
        """Keep the evidence of a job that killed its worker, unless it was done since."""
        self._check_usable()
        if self.evidence is None:
            return
        try:
            seen = self._seen(job_id)
        except NoSuchJob:
            return
        evidence.note_crash(self.evidence, seen, setback)

    def tidy(self) -> bool:
        """Forget the evidence of jobs that are gone, a part of them at each call."""
        self._check_usable()
        if self.evidence is not None:
            with self._line.talking as link:
                self._tidied_up_to = evidence.tidy(
                    self.evidence, link, self._tidied_up_to, self.clock.now()
                )
        return False  # no hurry: failures are few

    def stats(self) -> Mapping[str, QueueStats]:
        """Return the server's counts of every queue that has jobs, by queue."""
        self._check_usable()
        with self._line.talking as link:
            return people.stats(link)

    def waiting_since(self) -> Mapping[str, float]:
        """Return since when the job next in line has waited in each queue, in Unix seconds.

        The protocol shows no other: one of lower urgency that starves is not seen.
        """
        self._check_usable()
        with self._line.talking as link:
            heads = [(tube, self._encoding.inward(raw)) for tube, raw in people.next_in_line(link)]
        return oldest(heads, self.codec)

    # -- for people ---------------------------------------------------------------------------

    def peek(self, job_id: str) -> JobRecord:
        """Return a job in any state without taking it; raise NoSuchJob."""
        self._check_usable()
        seen = self._seen(job_id)
        return evidence.with_evidence(self.evidence, seen) if self.evidence else seen.record

    def _seen(self, job_id: str) -> people.Seen:
        with self._line.talking as link:
            seen = people.peek(link, job_id, self.codec, self.clock.now())
        return people.recoded(seen, self._encoding.inward) if self._encoding.differs else seen

    def list_jobs(self, state: JobState, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs in a state, in the order they would run; of all queues unless named.

        The protocol shows the first job of a state only, so the ids are walked: from the newest
        down, as far as `people.MOST_IDS` goes. `unseen` says what lies beyond.
        """
        self._check_usable()
        with self._line.talking as link:
            found, self.unseen = people.find(link, state, queues)
        return self._records(found)

    def _records(self, found: Iterable[str]) -> Iterator[JobRecord]:
        for job_id in found:
            try:
                yield self.peek(job_id)
            except NoSuchJob:  # gone since
                continue

    def kick(self, job_ids: Collection[str]) -> int:
        """Make buried or delayed jobs ready with a fresh count; return how many. NoSuchJob.

        The server cannot forget its counts: a kick raises the limits instead.
        """
        self._check_usable()
        with self._line.talking as link:
            return people.kick(link, job_ids)

    def kick_all(self, *, queues: Collection[str] = ()) -> int:
        """Make every buried job ready with a fresh count; return how many."""
        self._check_usable()
        with self._line.talking as link:
            return people.kick_all(link, queues)

    def replace(self, job_id: str, message: Message) -> str:
        """Put a new job with this message in the place of another; return its new job_id.

        The server cannot change a job. The new one has the evidence of the old, but begins with
        fresh counts, behind the others of its priority. Raises NoSuchJob, JobReserved.
        """
        self._check_usable()
        seen = self._seen(job_id)
        body = self._encoding.outward(self.codec.encode(message))

        def stored(number: int) -> None:
            if self.evidence is not None:
                now = self.clock.now()
                evidence.hand_on(self.evidence, seen, str(number), self._encoding.inward(body), now)

        draft = Draft(body, priority_of(message, seen.record), stored)
        with self._line.talking as link:
            new_id = beanstalkd_replace.replace(link, int(seen.record.job_id), draft)
        if self.evidence is not None:
            self.evidence.forget([seen.record.job_id])
        return new_id

    def delete(self, job_id: str) -> None:
        """Remove a job; raise NoSuchJob, or QueueError for one that a worker holds."""
        self._check_usable()
        with self._line.talking as link:
            people.delete(link, job_id)
        if self.evidence is not None:
            self.evidence.forget([job_id])

    def purge(self, state: JobState, *, queues: Collection[str] = ()) -> int:
        """Remove every job in a state; return how many. Reserved ones are their holders'."""
        self._check_usable()
        with self._line.talking as link:
            removed, self.unseen = people.purge(link, state, queues)
        return removed

    # -- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the server, which hands back what was reserved. Closing twice is fine."""
        self._closed = True
        self._line.drop()
        if self.evidence is not None:
            self.evidence.close()

    def _check_usable(self) -> None:
        self._check_process()
        if self._closed:
            raise QueueUnavailable(f"beanstalkd at {self.where}: this adapter is closed")


def _texts(numbers: Iterable[int]) -> list[str]:
    return [str(number) for number in numbers]
