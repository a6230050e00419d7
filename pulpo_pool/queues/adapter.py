"""QueueAdapter: what a queue must do, and the words it is done in."""

from __future__ import annotations

import enum
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeAlias, TypedDict

import msgspec

from pulpo_pool.clock import Clock, SystemClock
from pulpo_pool.codec import Codec
from pulpo_pool.errors import ReservationLost, UndecodableMessage, WrongProcess
from pulpo_pool.message import DEFAULT_QUEUE, Message

if TYPE_CHECKING:
    from types import TracebackType

    from pulpo_pool.queues.evidence import EvidenceStore
    from pulpo_pool.setback import Setback

DEFAULT_LEASE: Final = 60.0  # seconds


class JobState(enum.StrEnum):
    """Where a job is; the same four words on every engine, in metrics, CLI and dashboards.

    publish             dequeue                commit
    -------> READY ---------------> RESERVED ---------> gone
             ^ ^ ^                   |  |  |
             | | +-- lease ends -----+  |  |
             | |     rescue             |  |
             | +-- due -- DELAYED <-----+  |   rollback(delay), publish(delay)
             +---- kick - BURIED <---------+   bury
    """

    READY = "ready"
    DELAYED = "delayed"
    RESERVED = "reserved"
    BURIED = "buried"


class BuryReason(enum.StrEnum):
    """Why a job was set aside for people: a closed set, fit for a metric's label."""

    FATAL = "fatal"  # the handler said that it will never work
    EXHAUSTED = "exhausted"  # no attempts left
    CRASHED = "crashed"  # it killed its worker too often
    UNDECODABLE = "undecodable"  # the bytes are no message
    UNKNOWN_TYPE = "unknown_type"  # no handler, for as long as it may be retried
    EXPIRED = "expired"  # too late, and `on-expired = "bury"`


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a reservation: a life in a slot of one start of one pool."""

    pool: str
    instance: str
    slot: int
    serial: int

    def __str__(self) -> str:
        return f"{self.pool}/{self.instance}/{self.slot}/{self.serial}"

    @classmethod
    def read(cls, text: str) -> Owner | None:
        """Return the owner written in `text`; None for one that is not a pool's worker."""
        parts = text.split("/")
        if len(parts) != 4 or not (parts[2].isdecimal() and parts[3].isdecimal()):  # noqa: PLR2004
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))


class Reservation:
    """A job that is ours for the length of a lease.

    `attempt` counts from 1 and is raised by reserving; `crashes` are the deaths of workers that
    held this job. An adapter for which these cost a round trip overrides them with properties,
    and says so with `attempt_is_free`.
    """

    attempt_is_free: ClassVar[bool] = True

    __slots__ = ("_message", "attempt", "codec", "crashes", "job_id", "lease_end", "queue", "raw",
                 "token")  # fmt: skip

    def __init__(  # noqa: PLR0913 - a record
        self,
        *,
        job_id: str,
        queue: str,
        raw: bytes,
        codec: Codec,
        attempt: int = 1,
        crashes: int = 0,
        lease_end: float = 0.0,
        token: int = 0,
    ) -> None:
        self.job_id = job_id
        self.queue = queue
        self.raw = raw
        self.codec = codec
        self.attempt = attempt
        self.crashes = crashes
        self.lease_end = lease_end  # seconds, in the adapter's wall clock
        self.token = token  # proves which lease is being settled
        self._message: Message | None = None

    @property
    def message(self) -> Message:
        """The message; raises UndecodableMessage if the stored bytes are none."""
        if self._message is None:
            self._message = self.codec.decode(self.raw)
        return self._message

    @property
    def pardons(self) -> int:
        """How often people kicked the job, where the engine cannot forget its crashes for that."""
        return 0

    def __repr__(self) -> str:
        return f"Reservation(job_id={self.job_id!r}, queue={self.queue!r}, attempt={self.attempt})"


@dataclass(frozen=True, slots=True)
class Commit:
    """Done: the job goes."""

    reservation: Reservation


@dataclass(frozen=True, slots=True)
class Rollback:
    """Again, after `delay` seconds, with what went wrong for people to read.

    `free` says that nothing was tried: it costs no attempt where the engine counts them itself,
    and what went wrong before stays with the job. `reason` is a word of RetryReason. With neither
    reason nor error the job is only given back: no setback of it is kept.
    """

    reservation: Reservation
    delay: float = 0.0
    error: str = ""
    reason: str = ""
    free: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Bury:
    """Kept for people, out of the workers' way.

    `setback` is given where an earlier attempt is to blame: its evidence is kept then.
    """

    reservation: Reservation
    reason: BuryReason
    error: str = ""
    setback: Setback | None = None


Settlement: TypeAlias = Commit | Rollback | Bury


class Settled(enum.Enum):
    """What became of a settlement."""

    NOTHING = "nothing"  # there was none to make
    DONE = "done"
    LOST = "lost"  # the lease had ended; the job is somebody else's affair


class Fate(enum.Enum):
    """What is known of a reservation's owner, and so what rescuing its job costs."""

    ALIVE = "alive"  # nothing to rescue
    CRASHED = "crashed"  # seen dying with the job: counts a crash
    GONE = "gone"  # its pool or host died: the attempt is spent, no crash is counted
    CUT_OFF = "cut_off"  # ended by its own master at the drain timeout: costs no attempt


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement on an owner; `evidence` says how it ended, for the job's error text.

    `setback` has the same in fields, for the job's history, which fills in the job's part.
    """

    fate: Fate
    evidence: str = ""
    setback: Setback | None = None


Judge: TypeAlias = Callable[[Owner], Verdict]


@dataclass(frozen=True, slots=True)
class Numbering:
    """How long a job_id means the same job: since `since`, Unix seconds, under this name."""

    name: str
    since: float


@dataclass(frozen=True, slots=True)
class CrashLimit:
    """How many crashes a job may cost, and how long to wait after all but the first.

    `delay` gets the number of crashes so far (2 or more) and returns seconds.
    """

    max_crashes: int = 3
    delay: Callable[[int], float] = field(default=lambda _crashes: 0.0)


@dataclass(frozen=True, slots=True)
class Rescued:
    """A job that was taken back from a dead owner, and where it went."""

    job_id: str
    queue: str
    owner: Owner
    verdict: Verdict
    state: JobState
    crashes: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as people see it: what `peek` and `list` return.

    `due` is Unix seconds: when a delayed job becomes ready, or a reservation's lease ends.
    `body` and `request_type` are None where the bytes are no message. `history` has the attempts
    that did not end well, the oldest first; a kick leaves it, as evidence.
    """

    job_id: str
    queue: str
    state: JobState
    raw: bytes
    codec: Codec
    priority: int
    attempts: int
    crashes: int
    due: float | None = None
    owner: str | None = None
    reason: str | None = None
    error: str | None = None
    history: tuple[Setback, ...] = ()

    def message(self) -> Message:
        """Return the message; raises UndecodableMessage if the stored bytes are none."""
        return self.codec.decode(self.raw)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many jobs are in each state; a delayed job that is due counts as ready."""

    ready: int = 0
    delayed: int = 0
    reserved: int = 0
    buried: int = 0

    def __add__(self, other: QueueStats) -> QueueStats:
        return QueueStats(
            self.ready + other.ready,
            self.delayed + other.delayed,
            self.reserved + other.reserved,
            self.buried + other.buried,
        )


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

    def tidy(self) -> None:  # noqa: B027 - what is kept with a job goes with it
        """Forget the evidence of jobs that are gone, a part of them at each call."""

    def rest(self) -> None:  # noqa: B027 - most engines wait only inside a call
        """Reserve nothing until the next dequeue, even where an engine's wait outlives a call."""

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
        """Return a job in any state without taking it; raise NoSuchJob."""

    def jobs_in_front(self, record: JobRecord) -> int | None:  # noqa: ARG002 - for who can tell
        """Return how many ready jobs of its queue run before a ready one; None if not known."""
        return None

    def find_message(self, message_id: str) -> str | None:  # noqa: ARG002 - for who can search
        """Return the job_id of a message; None if there is none, or see `finds_messages`."""
        return None

    @abstractmethod
    def list_jobs(self, state: JobState, *, queues: Collection[str] = ()) -> Iterator[JobRecord]:
        """Yield the jobs in a state, in the order they would run; of all queues unless named."""

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
        """Remove a job in any state; raise NoSuchJob."""

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
        if os.getpid() != self._opened_in:
            raise WrongProcess(
                f"this {type(self).__name__} was opened in process {self._opened_in} and is used "
                f"in {os.getpid()}: open it after the fork"
            )


def since_when(message: Message) -> float | None:
    """Return when a job could first have run, in Unix seconds; None if nobody wrote it down."""
    moment = message.not_before or message.published_at
    return moment.timestamp() if moment else None


def oldest(heads: Iterable[tuple[str, bytes]], codec: Codec) -> dict[str, float]:
    """Return, by queue, since when the job with these bytes waits; none for what is no message."""
    found = {}
    for queue, raw in heads:
        try:
            since = since_when(codec.decode(raw))
        except UndecodableMessage:
            continue
        if since is not None:
            found[queue] = since
    return found


def named(message_id: str, candidates: Iterable[tuple[int, bytes]], codec: Codec) -> str | None:
    """Return which of these jobs, given as number and bytes, has a message of this id."""
    for number, raw in candidates:
        try:
            if codec.decode(raw).id == message_id:
                return str(number)
        except UndecodableMessage:
            continue
    return None


def describe(record: JobRecord) -> dict[str, Any]:
    """Return a job as the plain object that `list --json` and `peek --json` print."""
    try:
        message: Message | None = record.message()
    except UndecodableMessage:
        message = None
    from pulpo_pool.queues.letters import fingerprint_of  # not for those who only publish

    return {
        "job_id": record.job_id,
        "id": message.id if message else None,
        "queue": record.queue,
        "state": record.state.value,
        "request_type": message.request_type if message else None,
        "body": message.body if message else None,
        "header": dict(message.header) if message else None,
        "raw": None if message else record.raw.decode("utf-8", "backslashreplace"),
        "priority": record.priority,
        "attempts": record.attempts,
        "crashes": record.crashes,
        "due": record.due,
        "owner": record.owner,
        "fingerprint": fingerprint_of(record) or None,
        "reason": record.reason,
        "error": record.error,
        "history": [msgspec.structs.asdict(setback) for setback in record.history],
    }


def priority_of(message: Message, record: JobRecord) -> int:
    """Return the priority of a job whose message is replaced: its own, unless that is changed.

    The job's may differ from what its message says: others put jobs into queues as well.
    """
    try:
        before = record.message().priority
    except UndecodableMessage:
        return record.priority
    return record.priority if message.priority == before else message.priority
