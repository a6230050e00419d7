"""Observer: whoever wants to know how a worker's jobs fare."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from pulpo_pool.app.handlers import JobContext
    from pulpo_pool.outcomes import JobOutcome, RetryReason
    from pulpo_pool.queues.adapter import Reservation, Rollback, Settlement


class JobDone(msgspec.Struct, frozen=True):
    """One attempt, from reservation to the settlement it will get.

    A Struct, which is made in 0.06 us; a tuple takes 0.23, a frozen dataclass more.
    """

    reservation: Reservation
    request_type: str  # empty where the bytes were no message
    outcome: JobOutcome
    settlement: Settlement
    seconds: float = 0.0  # inside the handler
    error: BaseException | None = None
    retry_reason: RetryReason | None = None
    ended: float = 0.0  # monotonic seconds; 0: nobody looked


class PutBack(NamedTuple):
    """A job that was not begun, since its type is paused or it has just crashed: no attempt."""

    reservation: Reservation
    request_type: str
    settlement: Rollback


class Observer:
    """Hears what happens; the methods do nothing unless overridden."""

    def reserved(self, reservation: Reservation) -> None:
        """A job is in hand; from now on its lease must be kept."""

    def started(self, context: JobContext) -> None:
        """Its handler is about to run."""

    def finished(self, done: JobDone) -> None:
        """The attempt is over, its settlement not yet made."""

    def put_back(self, back: PutBack) -> None:
        """The job was not begun, its settlement not yet made."""

    def settled(self) -> None:
        """Nothing is in hand any more."""

    def lost(self, reservation: Reservation) -> None:
        """A settlement came too late: the lease had ended."""
