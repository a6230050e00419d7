"""WorkerReport: tells the scoreboard, the metrics, the log and `ps` what a worker does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from setproctitle import setproctitle

from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.queues.adapter import Bury, Rollback
from pulpo_pool.queues.records import since_when
from pulpo_pool.scoreboard import writing
from pulpo_pool.states import Activity
from pulpo_pool.worker.observer import JobDone, Observer, PutBack
from pulpo_pool.worker.row import JobRow
from pulpo_pool.worker.settle import SUCCESS

if TYPE_CHECKING:
    from pulpo_pool.app.context import JobContext
    from pulpo_pool.clock import Clock
    from pulpo_pool.log import Fields
    from pulpo_pool.message import Message
    from pulpo_pool.metrics.jobs import JobMetrics
    from pulpo_pool.queues.adapter import Reservation
    from pulpo_pool.seat import Seat
    from pulpo_pool.worker.lease import LeaseKeeper

logger = logging.getLogger(__name__)

COSTLY_LOOK: Final = 1.0  # seconds between two jobs whose attempt is asked for at a price


class _Job(NamedTuple):
    job_id: str
    request_type: str
    attempt: int


class WorkerReport(Observer):
    """Every job passes through here twice, so the writes are few and plain."""

    def __init__(
        self,
        seat: Seat,
        metrics: JobMetrics,
        fields: Fields,
        lease: LeaseKeeper,
        clock: Clock,
        *,
        redacts: bool = False,
    ) -> None:
        self._seat = seat
        self._row = seat.work
        self._job_row = JobRow(seat.work, seat.scoreboard.hand(seat.slot))
        self._metrics = metrics
        self._fields = fields
        self._lease = lease
        self._clock = clock
        self._redacts = redacts  # an exception itself would tell what was taken out of its text
        self._title = ""
        self._waited_for_work = True
        self._next_costly_look = 0.0  # monotonic seconds

    def reserved(self, reservation: Reservation) -> None:
        """Keep its lease from now on."""
        self._lease.in_hand = reservation

    def started(self, context: JobContext) -> None:
        """Show the job while its handler runs."""
        message = context.message
        request_type, queue = message.request_type, context.queue
        self._fields.job = context
        deadline, now = context.deadline, context.began
        ends_at = deadline.at if deadline is not None else 0.0
        self._job_row.begin(context.job_id, queue, request_type, now, ends_at)
        if self._waited_for_work:
            self._waited_for_work = False
            if self._seat.scoreboard.header.parked_workers:
                self._seat.ring()  # perhaps nobody is left to wait for the next job
        if request_type != self._title:
            self._entitle(request_type)
        if now >= self._next_costly_look and self._is_first_attempt(now):
            self._metrics.job_waited(queue, self._waited(message))

    def finished(self, done: JobDone) -> None:
        """Count the attempt, and log it unless it went well."""
        outcome = done.outcome
        self._job_row.end(done.ended or self._clock.monotonic())
        self._metrics.job_finished(done.reservation.queue, done.request_type, outcome, done.seconds)
        if outcome is not SUCCESS:
            self._explain(done)
        self._fields.job = None

    def put_back(self, back: PutBack) -> None:
        """Count it; thousands may follow each other, so the log has the pause alone."""
        self._row.heartbeat = self._clock.monotonic()
        self._row.activity = Activity.IDLE  # the row still names the job before
        self._metrics.job_put_back(back.reservation.queue, back.request_type)

    def settled(self) -> None:
        """Nothing is in hand: there is no lease to keep."""
        self._lease.in_hand = None
        self._row.activity = Activity.IDLE

    def lost(self, reservation: Reservation) -> None:
        """Say that a job may run twice."""
        self._metrics.settlement_lost(reservation.queue)
        logger.warning(
            "job %s was settled too late: its lease had ended, so it may run twice",
            reservation.job_id,
        )

    def idle(self) -> None:
        """Show that the worker waits, with the last job settled."""
        self.settled()
        self._waited_for_work = True
        self._row.heartbeat = self._clock.monotonic()
        self._entitle("idle")

    def show(self, activity: Activity, title: str) -> None:
        """Show another state of the worker."""
        self._waited_for_work = True
        with writing(self._row):
            self._row.activity = activity
            self._row.heartbeat = self._clock.monotonic()
        self._entitle(title)

    def _is_first_attempt(self, now: float) -> bool:
        """Tell whether a job's wait counts: later attempts have waited for other reasons.

        Where asking costs a round trip, one job a second is asked.
        """
        reservation = self._lease.in_hand
        if reservation is None:
            return False
        if not reservation.attempt_is_free:
            self._next_costly_look = now + COSTLY_LOOK
        return reservation.attempt == 1

    def _waited(self, message: Message) -> float:
        """Return the seconds from when a job could first have run until now."""
        since = since_when(message)
        return max(0.0, self._clock.now() - since) if since is not None else 0.0

    def _entitle(self, doing: str) -> None:
        if doing != self._title:
            self._title = doing
            setproctitle(f"pulpo-pool: worker {self._seat.label} {doing}")

    def _explain(self, done: JobDone) -> None:
        """A failure costs microseconds more than a success: here the attempt is looked up."""
        reservation, settlement = done.reservation, done.settlement
        attempt = reservation.attempt
        self._fields.job = _Job(reservation.job_id, done.request_type or "?", attempt)
        if done.outcome is JobOutcome.EXPIRED:
            logger.warning("discarded: it expired before a worker was free")
        elif isinstance(settlement, Rollback):
            if done.retry_reason:
                self._metrics.job_retried(reservation.queue, done.request_type, done.retry_reason)
            logger.warning(
                "attempt %d failed, again in %.1f s: %s",
                attempt,
                settlement.delay,
                _last_line(settlement.error),
            )
        elif isinstance(settlement, Bury):
            self._metrics.job_buried(reservation.queue, done.request_type, settlement.reason)
            reason, cause = settlement.reason, _last_line(settlement.error)
            if self._redacts:
                trace = {"pulpo_trace": settlement.error}
                logger.error("buried (%s): %s", reason, cause, extra=trace)
            else:
                logger.error("buried (%s): %s", reason, cause, exc_info=done.error)


def _last_line(text: str) -> str:
    """Return the line of a traceback that names the exception."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"
