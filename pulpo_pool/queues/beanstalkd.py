"""BeanstalkdQueueAdapter: a queue in a beanstalkd, for workers and producers on many hosts."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final, Unpack

import greenstalk

from pulpo_pool.errors import NoSuchJob, PartlyPublished, QueueUnavailable, ReservationLost
from pulpo_pool.queues import beanstalkd_evidence as evidence
from pulpo_pool.queues import beanstalkd_jobs as jobs
from pulpo_pool.queues import beanstalkd_people as people
from pulpo_pool.queues import beanstalkd_replace
from pulpo_pool.queues.adapter import (
    AdapterOptions,
    Commit,
    QueueAdapter,
    Reservation,
    Settled,
    oldest,
    priority_of,
)
from pulpo_pool.queues.beanstalkd_jobs import BeanstalkdReservation
from pulpo_pool.queues.beanstalkd_link import (
    ANSWER_GRACE,
    Link,
    Put,
    check_size,
    checked_tubes,
    keeps_step,
    unavailable,
    whole_seconds,
)
from pulpo_pool.queues.beanstalkd_replace import Draft
from pulpo_pool.queues.evidence import EvidenceStore

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
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._address = (host, port, socket_timeout)
        self.evidence = EvidenceStore(evidence_file, self.where) if evidence_file else None
        self._tidied_up_to = ""
        self._encoding = encoding
        self._published_lease = whole_seconds(self.lease, least=1)  # whatever touches learn
        self._link: Link | None = None
        self._granted: Reservation | None = None  # came when nobody waited for it any more
        self._untold: QueueUnavailable | None = None  # came after a settlement that stands
        self._closed = False
        self._lock = threading.RLock()
        self._waiting = _Talk(self, resumes=True)
        self._talking = _Talk(self, resumes=False)
        with self._talking:  # so that a wrong address is told at once
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
        try:
            with self._talking as link:
                for put in puts:
                    check_size(put, link.largest)
                link.put_all(puts, stored)
        except QueueUnavailable as failure:
            if not stored:
                raise
            raise PartlyPublished(str(failure), _texts(stored), len(puts)) from failure
        return _texts(stored)

    def _put(self, message: Message, now: float) -> Put:
        due = message.not_before
        return Put(
            tube=message.queue,
            body=self._outward(self.codec.encode(message)),
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
        self._check_usable()
        if self._untold is not None:
            failure, self._untold = self._untold, None
            raise failure
        settled = Settled.NOTHING
        waits = timeout > 0
        try:
            with self._waiting if waits and settlement is None else self._talking as link:
                link.watch(self.queues)
                if settlement is not None:
                    parks_until = time.monotonic() + timeout if waits else None
                    settled = self._settle(link, settlement, parks_until)
                return settled, self._next(link, timeout)
        except QueueUnavailable as failure:
            if settled is Settled.NOTHING:
                raise
            self._untold = failure
            return settled, None  # the settlement stands; the next call will tell the rest

    def _next(self, link: Link, timeout: float) -> Reservation | None:
        granted, self._granted = self._granted, None
        if granted is not None:
            return granted
        deadline = time.monotonic() + timeout
        if link.parked is None:
            job = link.look(self.queues)
        else:
            job = link.wait(time.monotonic() + ANSWER_GRACE, ())
        if job is None and timeout > 0:
            if self.before_wait is not None:
                self.before_wait()
            link, job = self._wait(link, deadline)
        if job is not None:
            return self._reserved(link, job)
        if link.parked is not None and not (timeout > 0 and self.interrupts) and not link.held:
            # Only a worker's loop comes back soon: for others the server shall not wait on.
            self._drop_link()
        return None

    def _wait(self, link: Link, deadline: float) -> tuple[Link, greenstalk.Job[bytes] | None]:
        """Wait for a job, and look now and then whether the server is there at all."""
        while True:
            if link.parked is None:
                link.park(deadline)
            job = link.wait(min(deadline, link.stale_at), self.interrupts)
            if job is not None or time.monotonic() >= deadline or not link.went_stale:
                return link, job
            link = self._connected(resumes=True)
            link.watch(self.queues)

    def _reserved(self, link: Link, job: greenstalk.Job[bytes]) -> Reservation:
        reservation = BeanstalkdReservation(
            self.ask_about,
            link,
            job_id=str(job.id),
            queue=self.queues[0],
            raw=self._inward(job.body),
            codec=self.codec,
            lease_end=self.clock.now() + self.lease,
        )
        if len(self.queues) > 1:
            reservation.queue = jobs.queue_of(link, reservation, self.queues)
        link.held[job.id] = reservation
        return reservation

    def settle(self, settlement: Settlement) -> None:
        """Commit, roll back or bury; raise ReservationLost if the lease was not kept.

        A job whose connection was lost meanwhile is settled too, if it still waits where the
        server put it back.
        """
        self._check_usable()
        with self._talking as link:
            settled = self._settle(link, settlement)
        if settled is Settled.LOST:
            raise ReservationLost(f"job {settlement.reservation.job_id}: the lease had ended")

    def _settle(
        self, link: Link, settlement: Settlement, parks_until: float | None = None
    ) -> Settled:
        """Settle; with a deadline ask in the same write for the next job."""
        reservation = settlement.reservation
        number = int(reservation.job_id)
        if link.held.get(number) is not reservation and not self._reclaimed(link, reservation):
            return Settled.LOST
        try:
            command, call = jobs.verb(link, settlement)
        except greenstalk.NotFoundError:
            link.held.pop(number, None)
            return Settled.LOST
        try:
            if self.evidence is not None and not isinstance(settlement, Commit):
                # First: whoever sees it buried asks why.
                evidence.keep(
                    self.evidence, link, settlement, owner=self.owner, now=self.clock.now()
                )
            if parks_until is not None and self._granted is None:
                link.park(parks_until, after=command)
            call()
        except greenstalk.NotFoundError:
            return Settled.LOST
        except jobs.REFUSALS as refusal:
            return jobs.refused(self.where, number, refusal)
        finally:
            link.held.pop(number, None)
        return Settled.DONE

    def _reclaimed(self, link: Link, reservation: Reservation) -> bool:
        return jobs.reclaim(link, reservation, self._outward(reservation.raw))

    def touch(self, reservation: Reservation) -> None:
        """Renew the lease; raise ReservationLost if it was not kept. Safe from another thread.

        The job's own lease is learned here; if it is shorter than `lease`, that is shortened, so
        that whoever renews leases does so in time.
        """
        self._check_usable()
        number = int(reservation.job_id)
        try:
            with self._talking as link:
                if link.held.get(number) is not reservation:
                    raise ReservationLost(f"job {number}: the connection it was held on is gone")
                link.client.touch(greenstalk.Job(number, b""))
                lease = float(jobs.facts_of(link, reservation)["ttr"])
        except greenstalk.NotFoundError:
            raise ReservationLost(f"job {number}: the lease had ended") from None
        self.lease = min(self.lease, lease)
        reservation.lease_end = self.clock.now() + lease

    def rest(self) -> None:
        """Reserve nothing until the next dequeue: the server no longer waits on our behalf."""
        with self._lock:
            granted, self._granted = self._granted, None
            link = self._link
            if link is None or os.getpid() != self._opened_in:
                return
            others = [held for held in link.held.values() if held is not granted]
            if not others and (granted is not None or link.parked is not None):
                self._drop_link()  # which hands back what came, or is about to

    def ask_about(self, reservation: BeanstalkdReservation) -> None:
        """Let a reservation learn its counts, if the server can be asked and knows the job."""
        try:
            with self._talking as link:
                if reservation.link is link:
                    reservation.facts(link)
        except (QueueUnavailable, greenstalk.NotFoundError):
            return  # its reader has an answer for that

    # -- housekeeping -------------------------------------------------------------------------

    def rescue(self, judge: Judge, limit: CrashLimit) -> list[Rescued]:
        """Return nothing: the server frees what the dead held when their connection closes."""
        del judge, limit
        self._check_usable()
        return []

    def engine(self) -> str:
        """Return the server's version."""
        self._check_usable()
        with self._talking as link:
            version = link.client.stats()["version"]
        return f"beanstalkd {version}".replace('"', "")

    def numbering(self) -> Numbering:
        """Return the server's life: without a log it counts jobs from 1 at every start.

        With one it counts on, but nothing tells whether two starts have read the same log. So
        crashes are counted anew, rather than held against a job that only has the same number.
        """
        self._check_usable()
        with self._talking as link:
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

    def tidy(self) -> None:
        """Forget the evidence of jobs that are gone, a part of them at each call."""
        self._check_usable()
        if self.evidence is not None:
            with self._talking as link:
                self._tidied_up_to = evidence.tidy(
                    self.evidence, link, self._tidied_up_to, self.clock.now()
                )

    def stats(self) -> Mapping[str, QueueStats]:
        """Return the server's counts of every queue that has jobs, by queue."""
        self._check_usable()
        with self._talking as link:
            return people.stats(link)

    def waiting_since(self) -> Mapping[str, float]:
        """Return since when the job next in line has waited in each queue, in Unix seconds.

        The protocol shows no other: one of lower urgency that starves is not seen.
        """
        self._check_usable()
        with self._talking as link:
            heads = [(tube, self._inward(raw)) for tube, raw in people.next_in_line(link)]
        return oldest(heads, self.codec)

    # -- for people ---------------------------------------------------------------------------

    def peek(self, job_id: str) -> JobRecord:
        """Return a job in any state without taking it; raise NoSuchJob."""
        self._check_usable()
        seen = self._seen(job_id)
        return evidence.with_evidence(self.evidence, seen) if self.evidence else seen.record

    def _seen(self, job_id: str) -> people.Seen:
        with self._talking as link:
            seen = people.peek(link, job_id, self.codec, self.clock.now())
        return seen if self._encoding == "utf-8" else people.recoded(seen, self._inward)

    def list_jobs(self, state: JobState, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs in a state, in the order they would run; of all queues unless named.

        The protocol shows the first job of a state only, so the ids are walked: from the newest
        down, as far as `people.MOST_IDS` goes. `unseen` says what lies beyond.
        """
        self._check_usable()
        with self._talking as link:
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
        with self._talking as link:
            return people.kick(link, job_ids)

    def kick_all(self, *, queues: Collection[str] = ()) -> int:
        """Make every buried job ready with a fresh count; return how many."""
        self._check_usable()
        with self._talking as link:
            return people.kick_all(link, queues)

    def replace(self, job_id: str, message: Message) -> str:
        """Put a new job with this message in the place of another; return its new job_id.

        The server cannot change a job. The new one has the evidence of the old, but begins with
        fresh counts, behind the others of its priority. Raises NoSuchJob, JobReserved.
        """
        self._check_usable()
        seen = self._seen(job_id)
        body = self._outward(self.codec.encode(message))

        def stored(number: int) -> None:
            if self.evidence is not None:
                now = self.clock.now()
                evidence.hand_on(self.evidence, seen, str(number), self._inward(body), now)

        draft = Draft(body, priority_of(message, seen.record), stored)
        with self._talking as link:
            new_id = beanstalkd_replace.replace(link, int(seen.record.job_id), draft)
        if self.evidence is not None:
            self.evidence.forget([seen.record.job_id])
        return new_id

    def delete(self, job_id: str) -> None:
        """Remove a job; raise NoSuchJob, or QueueError for one that a worker holds."""
        self._check_usable()
        with self._talking as link:
            people.delete(link, job_id)
        if self.evidence is not None:
            self.evidence.forget([job_id])

    def purge(self, state: JobState, *, queues: Collection[str] = ()) -> int:
        """Remove every job in a state; return how many. Reserved ones are their holders'."""
        self._check_usable()
        with self._talking as link:
            removed, self.unseen = people.purge(link, state, queues)
        return removed

    # -- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the server, which hands back what was reserved. Closing twice is fine."""
        self._closed = True
        self._drop_link()
        if self.evidence is not None:
            self.evidence.close()

    def _check_usable(self) -> None:
        self._check_process()
        if self._closed:
            raise QueueUnavailable(f"beanstalkd at {self.where}: this adapter is closed")

    def _connected(self, *, resumes: bool) -> Link:
        """Return a connection in step, on which no wait is outstanding unless it `resumes`."""
        link = self._link
        if link is not None and link.parked is not None and not resumes:
            self._end_wait(link)
        elif link is not None and link.went_stale:
            self._drop_link()
        elif link is not None and link.parked is None and not link.held and link.wire.has_news():
            self._drop_link()  # the server has gone, perhaps come back, since the last call
        if self._link is None:
            try:
                self._link = Link(*self._address)
            except Exception as error:
                raise unavailable(self.where, error) or error from error
        return self._link

    def _end_wait(self, link: Link) -> None:
        if not link.held and not link.wire.has_news():
            self._drop_link()
            return
        job = None
        while link.parked is not None and job is None:
            job = link.wait(time.monotonic() + self._address[2], ())
        if job is not None:
            self._granted = self._reserved(link, job)

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._granted = None
        if link is not None:
            link.close()

    def _fail(self, error: BaseException) -> None:
        """Drop a connection that may be out of step; raise what the error means to a caller."""
        if isinstance(error, people.HARMLESS):
            return
        if not keeps_step(error):
            self._drop_link()
        if isinstance(error, Exception):
            word = unavailable(self.where, error)
            if word is not None:
                raise word from error

    # -- bytes --------------------------------------------------------------------------------

    def _outward(self, raw: bytes) -> bytes:
        return raw if self._encoding == "utf-8" else _recoded(raw, "utf-8", self._encoding)

    def _inward(self, body: bytes) -> bytes:
        return body if self._encoding == "utf-8" else _recoded(body, self._encoding, "utf-8")


class _Talk:
    """`with talk as link`: the lock, a connection in step, and failures in our words."""

    __slots__ = ("_adapter", "_resumes")

    def __init__(self, adapter: BeanstalkdQueueAdapter, *, resumes: bool) -> None:
        self._adapter = adapter
        self._resumes = resumes

    def __enter__(self) -> Link:
        adapter = self._adapter
        adapter._lock.acquire()  # noqa: SLF001 - its other half
        try:
            return adapter._connected(resumes=self._resumes)  # noqa: SLF001
        except BaseException as error:
            try:
                adapter._fail(error)  # noqa: SLF001
            finally:
                adapter._lock.release()  # noqa: SLF001
            raise

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if error is not None:
                self._adapter._fail(error)  # noqa: SLF001
        finally:
            self._adapter._lock.release()  # noqa: SLF001


def _texts(numbers: Iterable[int]) -> list[str]:
    return [str(number) for number in numbers]


def _recoded(raw: bytes, source: str, target: str) -> bytes:
    try:
        return raw.decode(source).encode(target)
    except UnicodeError:  # not text: MessagePack, or a stranger's
        return raw
