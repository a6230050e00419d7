"""WorkerLoop: settle the last job, reserve the next, handle it. One turn can be called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from pulpo_pool.app.handlers import JobContext
from pulpo_pool.app.retry import GiveUp, default_policy
from pulpo_pool.circuits import Circuits
from pulpo_pool.clock import Deadline
from pulpo_pool.errors import ReservationLost, UndecodableMessage
from pulpo_pool.forks import ours
from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.queues.adapter import BuryReason, Commit, Rollback, Settled
from pulpo_pool.worker.limits import run_within
from pulpo_pool.worker.observer import JobDone, PutBack
from pulpo_pool.worker.settle import (
    SUCCESS,
    WELL,
    answer_of,
    answer_of_failure,
    buried,
    conclude,
    conclude_unknown,
    error_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.app.handlers import Handler
    from pulpo_pool.app.pulpo import Pulpo
    from pulpo_pool.clock import Clock
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import Bury, QueueAdapter, Reservation
    from pulpo_pool.worker.observer import Observer
    from pulpo_pool.worker.settle import Answer


_LOST: Final = Settled.LOST  # to look in an enum costs 0.07 us


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLimits:
    """What a loop needs to know of the settings. Times are seconds."""

    sleep_duration: float = 5.0
    max_attempts: int = 20
    on_expired: Literal["discard", "bury"] = "discard"


class WorkerLoop:
    """Turns reservations into settlements.

    1. settle the job that was handled last and reserve the next, in one call to the queue
    2. find its handler and run it; whatever it raises is the job's failure, never the worker's
       a job of a paused type is put back instead
    3. remember the settlement it calls for, and tell the observer

    QueueUnavailable leaves a turn with the settlement kept: give the loop a working `queue` and
    take the next turn.
    """

    def __init__(  # noqa: PLR0913 - what a loop is composed of
        self,
        queue: QueueAdapter,
        app: Pulpo,
        observer: Observer,
        limits: LoopLimits,
        clock: Clock,
        stopping: Callable[[], bool] = lambda: False,
        crash_verdict: Callable[[Reservation], Bury | Rollback | None] = lambda _reservation: None,
        *,
        circuits: Circuits | None = None,
    ) -> None:
        self.queue = queue
        self._app = app
        self._find = app.registry.find
        self._observer = observer
        self._limits = limits
        self._clock = clock
        self._stopping = stopping
        self._crash_verdict = crash_verdict
        self._default_policy = default_policy(limits.max_attempts)
        self._circuits = circuits or Circuits.alone(clock)
        self._pending: JobDone | PutBack | None = None
        self._is_ours = ours()

    @property
    def has_unsettled(self) -> bool:
        """Whether a handled job still waits for its settlement."""
        return self._pending is not None

    @property
    def has_put_back(self) -> bool:
        """Whether the job that waits for its settlement was not begun."""
        return isinstance(self._pending, PutBack)

    def turn(self) -> bool:
        """Take one turn; tell whether there was a job. Waits up to the sleep duration."""
        pending, observer = self._pending, self._observer
        settled, reservation = self.queue.settle_and_dequeue(
            pending.settlement if pending is not None else None, self._limits.sleep_duration
        )
        self._pending = None
        if settled is _LOST and pending is not None:
            observer.lost(pending.reservation)
        if reservation is None:
            observer.settled()
            return False
        observer.reserved(reservation)
        self._pending = done = self._work_on(reservation)
        if isinstance(done, PutBack):
            observer.put_back(done)
        else:
            observer.finished(done)
        return True

    def finish(self) -> None:
        """Settle what was handled last, and reserve nothing."""
        self.queue.rest()
        if self._pending is None:
            return
        try:
            self.queue.settle(self._pending.settlement)
        except ReservationLost:
            self._observer.lost(self._pending.reservation)
        self._pending = None
        self._observer.settled()

    def _work_on(  # noqa: PLR0911 - one for each fate of a job
        self, reservation: Reservation
    ) -> JobDone | PutBack:
        try:
            message = reservation.message
        except UndecodableMessage as error:
            text = error_text(str(error), None, self._app.redactors)
            return buried(reservation, "", BuryReason.UNDECODABLE, text)
        request_type = message.request_type
        expiration = message.expiration
        if expiration is not None and expiration.timestamp() <= self._clock.now():
            return self._expire(reservation, request_type)
        sentence = self._crash_verdict(reservation)
        if sentence is not None:
            return self._sentenced(reservation, request_type, sentence)
        handler = self._find(request_type)
        if handler is None:
            return conclude_unknown(
                reservation, request_type, self._default_policy, age=self._age(message)
            )
        if reservation.attempt_is_free and reservation.attempt > self._limits.max_attempts:
            spent = self._spent(reservation, handler, message)
            if spent is not None:
                return spent
        wait = self._circuits.hold_back(request_type)
        if wait is not None:
            return PutBack(reservation, request_type, Rollback(reservation, wait, free=True))
        return self._handle(reservation, message, handler)

    def _handle(self, reservation: Reservation, message: Message, handler: Handler) -> JobDone:
        monotonic, limits = self._clock.monotonic, handler.limits
        # Read twice a job, here and at its end, for the time limit and all that is shown.
        began = monotonic()
        deadline = Deadline(began + limits.hard) if limits.hard else None
        context = JobContext(reservation, self._stopping, deadline, began)
        self._observer.started(context)
        try:
            perform = self._perform_within if limits.soft else self._app.perform
            returned = perform(handler, context)
            answer = WELL if returned is None else answer_of(returned)
        except BaseException as error:  # noqa: BLE001 - sys.exit and Ctrl-C in a handler end the job
            answer = answer_of_failure(error)
        ended = monotonic()
        if not self._is_ours():
            # A handler forked and let its child run back into us: two of us must not settle.
            os._exit(0)
        if answer is WELL and not self._circuits.is_probing:  # nearly every job: 1 us less
            request_type, seconds = handler.request_type, ended - began
            commit = Commit(reservation, seconds)
            return JobDone(reservation, request_type, SUCCESS, commit, seconds, None, None, ended)
        shortest_wait = self._tell_circuits(handler, answer, began)
        return conclude(
            reservation,
            handler.request_type,
            answer,
            handler.retry,
            age=self._age(message),
            seconds=ended - began,
            shortest_wait=shortest_wait,
            redactors=self._app.redactors,
        )

    def _tell_circuits(self, handler: Handler, answer: Answer, began: float) -> float:
        """Return how long the job had better wait, if it is to be tried again."""
        request_type, learn = handler.request_type, self._circuits.learn
        if answer.result.isSuccess:
            return learn(request_type, began=began, succeeded=True)
        pause = handler.pauses.asked(answer.result, answer.error)
        cause = type(answer.error).__name__ if answer.error else "its handler asked for it"
        return learn(request_type, began=began, pause=pause, cause=cause)

    def _perform_within(self, handler: Handler, context: JobContext) -> object:
        soft = handler.limits.soft or 0.0
        return run_within(soft, partial(self._app.perform, handler, context))

    def _spent(
        self, reservation: Reservation, handler: Handler, message: Message
    ) -> JobDone | None:
        """Bury a job that has no attempt left though nothing answered that, so far.

        Its pools died under it, or a deploy has lowered the limit since it failed last.
        """
        policy = handler.retry
        decision = policy.decide(
            attempt=reservation.attempt - 1, error=None, age=self._age(message), retry_in=None
        )
        if not isinstance(decision, GiveUp):
            return None
        text = (
            f"{decision.text}, and was not begun again: the attempts ended without an answer, with "
            "the pools that ran them, or the limit was higher then"
        )
        return buried(reservation, message.request_type, BuryReason.EXHAUSTED, text)

    def _sentenced(
        self, reservation: Reservation, request_type: str, sentence: Bury | Rollback
    ) -> JobDone | PutBack:
        """Return what becomes of a job that killed workers."""
        if isinstance(sentence, Rollback):
            return PutBack(reservation, request_type, sentence)
        return JobDone(reservation, request_type, JobOutcome.BURIED, sentence)

    def _expire(self, reservation: Reservation, request_type: str) -> JobDone:
        if self._limits.on_expired == "bury":
            text = "it expired before a worker was free"
            return buried(reservation, request_type, BuryReason.EXPIRED, text)
        commit = Commit(reservation, expired=True)
        return JobDone(reservation, request_type, JobOutcome.EXPIRED, commit)

    def _age(self, message: Message) -> float:
        """Return the seconds since the job could first have run: a planned delay is no age."""
        began = message.not_before or message.published_at
        return max(0.0, self._clock.now() - began.timestamp()) if began else 0.0
