"""The words a queue is spoken of in: states, owners, reservations, settlements, verdicts."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import msgspec

if TYPE_CHECKING:
    from pulpo_pool.codec import Codec
    from pulpo_pool.message import Message
    from pulpo_pool.setback import Setback


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


class KeptState(enum.StrEnum):
    """How a job ended that is in no state any more, and kept for a while for people to read."""

    DONE = "done"
    EXPIRED = "expired"  # too late, and discarded


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
        message = self._message
        if message is None:
            message = self._message = self.codec.decode(self.raw)
        return message

    @property
    def pardons(self) -> int:
        """How often people kicked the job, where the engine cannot forget its crashes for that."""
        return 0

    def __repr__(self) -> str:
        return f"Reservation(job_id={self.job_id!r}, queue={self.queue!r}, attempt={self.attempt})"


class Commit(msgspec.Struct, frozen=True):
    """Done: the job goes. A Struct, since one is made for each job.

    `seconds` were spent in its handler; `expired` says that it went unhandled. Both are for who
    keeps done jobs.
    """

    reservation: Reservation
    seconds: float = 0.0
    expired: bool = False


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
