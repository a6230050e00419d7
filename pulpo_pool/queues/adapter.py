"""QueueAdapter: what a queue must do. Its words are imported from here as well."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypedDict

from pulpo_pool.clock import Clock, SystemClock
from pulpo_pool.codec import Codec
from pulpo_pool.errors import ReservationLost, WrongProcess
from pulpo_pool.forks import ours
from pulpo_pool.message import DEFAULT_QUEUE, Message
from pulpo_pool.queues.records import JobEnd, JobRecord, QueueStats
from pulpo_pool.queues.words import (
    Bury,
    BuryReason,
    Commit,
    CrashLimit,
    Fate,
    JobState,
    Judge,
    KeptState,
    Numbering,
    Owner,
    Rescued,
    Reservation,
    Rollback,
    Settled,
    Settlement,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from pulpo_pool.queues.evidence import EvidenceStore
    from pulpo_pool.setback import Setback

# Whoever writes an adapter needs this one module: the contract and the words it is made of.
__all__ = [
    "DEFAULT_LEASE",
    "AdapterOptions",
    "Bury",
    "BuryReason",
    "Commit",
    "CrashLimit",
    "Fate",
    "JobEnd",
    "JobRecord",
    "JobState",
    "Judge",
    "KeptState",
    "Numbering",
    "Owner",
    "QueueAdapter",
    "QueueStats",
    "Rescued",
    "Reservation",
    "Rollback",
    "Settled",
    "Settlement",
    "Verdict",
]

DEFAULT_LEASE: Final = 60.0  # seconds
_KEEPS_NONE: Final = "this engine keeps no done jobs; the file queue does, with keep_done"


class AdapterOptions(TypedDict, total=False):
    """What every adapter's constructor takes; engines add their own."""

    queues: Sequence[str]
    lease: float
    owner: Owner | None
    codec: Codec | None
    clock: Clock | None


class QueueAdapter(ABC):
    """Where jobs wait. One verb for each step of a job's life, a few for people.

    Delivery is at-least-once: a job goes only by commit, delete, purge or expiry. Smaller
    priority first, then first in, first out. Every verb raises QueueUnavailable when the engine
    cannot be reached, and may be called again then.

    Open an adapter in the process that uses it: it raises WrongProcess after a fork.
    """

    finds_messages: ClassVar[bool] = True  # False: find_message would have to ask for every job

    def __init__(
        self,
        *,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        lease: float = DEFAULT_LEASE,
        owner: Owner | None = None,
        codec: Codec | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.queues = tuple(dict.fromkeys(queues))
        self.lease = lease  # seconds
        self.owner = owner
        self.codec = codec or Codec()
        self.clock = clock or SystemClock()
        self.interrupts: tuple[int, ...] = ()  # descriptors: one readable ends a waiting dequeue
        self.before_wait: Callable[[], None] | None = None  # called as dequeue begins to wait
        self.unseen = ""  # what the last list or purge could not reach, for people
        self.evidence: EvidenceStore | None = None  # None: the engine keeps it with the jobs
        self._opened_in = os.getpid()
        self._is_ours = ours()

    # -- publishing ---------------------------------------------------------------------------

    def enqueue(self, message: Message) -> str:
        """Store a stamped message and return its job_id. When it returns, it is accepted."""
        return self.enqueue_many((message,))[0]

    @abstractmethod
    def enqueue_many(self, messages: Iterable[Message]) -> list[str]:
        """Store all messages or none; return their job_ids in order."""

    # -- working ------------------------------------------------------------------------------

    @abstractmethod
    def dequeue(self, timeout: float = 0.0) -> Reservation | None:
        """Reserve the next job of this adapter's queues; None after `timeout` seconds without.

        Waiting costs no CPU and ends early when one of `interrupts` becomes readable.
        """

    @abstractmethod
    def settle(self, settlement: Settlement) -> None:
        """Commit, roll back or bury; raise ReservationLost if the lease was not kept."""

    @abstractmethod
    def touch(self, reservation: Reservation) -> None:
        """Renew the lease; raise ReservationLost if it was not kept. Safe from another thread."""

    def settle_and_dequeue(
        self, settlement: Settlement | None, timeout: float = 0.0
    ) -> tuple[Settled, Reservation | None]:
        """Settle the last job and reserve the next: the worker's only hot call.

        Engines override it to do both in one transaction or round trip. After QueueUnavailable
        the settlement may or may not have been made; making it again is harmless.
        """
        settled = Settled.NOTHING
        if settlement is not None:
            try:
                self.settle(settlement)
                settled = Settled.DONE
            except ReservationLost:
                settled = Settled.LOST
        return settled, self.dequeue(timeout)

    def commit(self, reservation: Reservation) -> None:
        """Settle a job as done."""
        self.settle(Commit(reservation))

    def rollback(
        self, reservation: Reservation, *, delay: float = 0.0, error: str = "", reason: str = ""
    ) -> None:
        """Settle a job as to be tried again after `delay` seconds."""
        self.settle(Rollback(reservation, delay, error, reason))

    def bury(self, reservation: Reservation, *, reason: BuryReason, error: str = "") -> None:
        """Settle a job as one for people."""
        self.settle(Bury(reservation, reason, error))

    # -- housekeeping -------------------------------------------------------------------------

    @abstractmethod
    def rescue(self, judge: Judge, limit: CrashLimit) -> list[Rescued]:
        """Take back the jobs of dead owners, in all queues of the engine.

        Reservations are listed first and judged afterwards, so that an owner which reserves in
        between is never judged by old knowledge. Returns what was taken back: nothing where
        the engine itself frees the jobs of the dead, see `numbering`.
        """

    def numbering(self) -> Numbering | None:
        """Return in which numbering its job_ids are; None where `rescue` finds what the dead held.

        An engine that frees the jobs of the dead by itself cannot count crashes: its workers
        do, by what their master saw of deaths, and need to know which job_ids are comparable.
        """
        return None

    def note_crash(self, job_id: str, setback: Setback) -> None:  # noqa: B027 - see numbering
        """Keep the evidence of a job that killed its worker, where `rescue` cannot."""

    def tidy(self) -> bool:
        """Forget what is kept of jobs that are gone, a part at each call; tell whether to go on.

        A call takes a small part of a second: in the meantime nobody is rescued.
        """
        return False  # what is kept with a job goes with it

    def rest(self) -> None:  # noqa: B027 - for most a wait is a call
        """Reserve nothing until the next dequeue, even where a wait outlives a call."""

    def engine(self) -> str:
        """Return what keeps the jobs, and its version, for people; "" where there is no telling."""
        return ""

    @abstractmethod
    def stats(self) -> Mapping[str, QueueStats]:
        """Return the counts of every queue that has jobs, by queue."""

    def waiting_since(self) -> Mapping[str, float]:
        """Return since when, in Unix seconds, each queue has had a job ready that nobody took.

        Of the ready jobs the one is meant that was published first; where an engine shows no
        other, the one that is next in line. Queues without are left out, and so is every queue of
        an engine that cannot tell.
        """
        return {}

    # -- for people ---------------------------------------------------------------------------

    @abstractmethod
    def peek(self, job_id: str) -> JobRecord:
        """Return a job in any state without taking it, or a kept one; raise NoSuchJob."""

    def jobs_in_front(self, record: JobRecord) -> int | None:  # noqa: ARG002 - for who can tell
        """Return how many ready jobs of its queue run before a ready one; None if not known."""
        return None

    def find_message(self, message_id: str) -> str | None:  # noqa: ARG002 - for who can search
        """Return the job_id of a message; None if there is none, or see `finds_messages`."""
        return None

    @abstractmethod
    def list_jobs(self, state: JobState, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs in a state, in the order they would run; of all queues unless named."""

    def list_done(self, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:  # noqa: ARG002 - for who keeps them
        """Yield the jobs that are gone and kept, the one first that goes last."""
        self.unseen = _KEEPS_NONE
        return iter(())

    def purge_done(self) -> int:
        """Forget every kept job that is gone; return how many."""
        self.unseen = _KEEPS_NONE
        return 0

    @abstractmethod
    def kick(self, job_ids: Collection[str]) -> int:
        """Make buried or delayed jobs ready with a fresh count; return how many. NoSuchJob."""

    @abstractmethod
    def kick_all(self, *, queues: Collection[str] = ()) -> int:
        """Make every buried job ready with a fresh count; return how many."""

    @abstractmethod
    def replace(self, job_id: str, message: Message) -> str:
        """Put a message in the place of a job's own; return its job_id, perhaps a new one.

        The job keeps its state, its queue and its date, and where the engine can its counts and
        what is known of its failures; a changed priority holds. A job is never lost on the way;
        an engine that cannot change one may leave both behind if it is cut off. Raises NoSuchJob,
        JobReserved for one in a worker's hands, InvalidMessage, MessageTooLarge.
        """

    @abstractmethod
    def delete(self, job_id: str) -> None:
        """Remove a job in any state, or a kept one; raise NoSuchJob."""

    @abstractmethod
    def purge(self, state: JobState, *, queues: Collection[str] = ()) -> int:
        """Remove every job in a state; return how many."""

    # -- life ---------------------------------------------------------------------------------

    @abstractmethod
    def close(self) -> None:
        """Let go of the engine. Reserved jobs stay reserved. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_process(self) -> None:
        if not self._is_ours():
            raise WrongProcess(
                f"this {type(self).__name__} was opened in process {self._opened_in} and is used "
                f"in {os.getpid()}: open it after the fork"
            )
