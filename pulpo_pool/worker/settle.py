"""From what a handler answered to what the queue is told: the only table of its kind."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pulpo_pool.app.handlers import Fatal, RequestResult, ResultKind, SoftTimeLimit, Transient
from pulpo_pool.app.retry import RetryIn
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import Bury, BuryReason, Commit, Rollback
from pulpo_pool.worker.observer import JobDone

if TYPE_CHECKING:
    from pulpo_pool.app.retry import RetryPolicy
    from pulpo_pool.queues.adapter import Reservation

LONGEST_ERROR: Final = 16_384  # characters kept with a job: the end of a traceback names the cause


@dataclass(frozen=True, slots=True)
class Answer:
    """What came out of a handler: a result, or an exception and where it was raised."""

    result: RequestResult
    error: BaseException | None = None


_WELL: Final = Answer(RequestResult.success())  # made once: nearly every job ends so


def answer_of(returned: object) -> Answer:
    """Read what a handler returned.

    Only a RequestResult speaks about the job's fate. An exception that was returned rather than
    raised is taken for the failure it describes; any other value means that the handler ended
    well, since repeating finished work is worse than ignoring a value.
    """
    if returned is None:
        return _WELL
    if isinstance(returned, RequestResult):
        return Answer(_checked(returned))
    if isinstance(returned, BaseException):
        return answer_of_failure(returned)
    return _WELL


def answer_of_failure(error: BaseException) -> Answer:
    """Read what a handler raised: Transient and Fatal speak outright, the rest may be retried."""
    if isinstance(error, Transient):
        # A subclass may not have called its parent, so nothing of it is relied upon; the retry
        # policy refuses a wait that is none.
        wait = getattr(error, "retry_in", None)
        return Answer(RequestResult(ResultKind.TRANSIENT, _said(error), wait))
    if isinstance(error, Fatal):
        return Answer(RequestResult(ResultKind.FATAL, _said(error)), error)
    return Answer(RequestResult.transient(), error)


def conclude(
    reservation: Reservation,
    request_type: str,
    answer: Answer,
    policy: RetryPolicy,
    *,
    age: float,
    seconds: float,
) -> JobDone:
    """Return the attempt's end and the settlement it calls for. `age` is since publishing."""
    result, error = answer.result, answer.error
    if result.kind is ResultKind.SUCCESS:
        return JobDone(reservation, request_type, JobOutcome.SUCCESS, Commit(reservation), seconds)
    text = error_text(result.error, error)
    if result.kind is ResultKind.FATAL:
        return buried(reservation, request_type, BuryReason.FATAL, text, seconds, error)
    decision = policy.decide(
        attempt=reservation.attempt, error=error, age=age, retry_in=result.retry_in
    )
    if isinstance(decision, RetryIn):
        return JobDone(
            reservation,
            request_type,
            JobOutcome.RETRIED,
            Rollback(reservation, decision.seconds, text),
            seconds,
            error,
            _reason_to_retry(error),
        )
    return buried(
        reservation,
        request_type,
        decision.reason,
        f"{decision.text}\n{text}".strip(),
        seconds,
        error,
    )


def _reason_to_retry(error: BaseException | None) -> RetryReason:
    if error is None:
        return RetryReason.REQUESTED
    return RetryReason.TIMEOUT if isinstance(error, SoftTimeLimit) else RetryReason.EXCEPTION


def conclude_unknown(
    reservation: Reservation, request_type: str, policy: RetryPolicy, *, age: float
) -> JobDone:
    """Put a job without a handler back, for a worker that knows it, until its attempts end."""
    text = f"no handler for request_type {request_type!r} in this pool"
    decision = policy.decide(attempt=reservation.attempt, error=None, age=age, retry_in=None)
    if isinstance(decision, RetryIn):
        settlement = Rollback(reservation, decision.seconds, text)
        return JobDone(
            reservation,
            request_type,
            JobOutcome.RETRIED,
            settlement,
            retry_reason=RetryReason.UNKNOWN_TYPE,
        )
    return buried(reservation, request_type, BuryReason.UNKNOWN_TYPE, text)


def buried(
    reservation: Reservation,
    request_type: str,
    reason: BuryReason,
    text: str,
    seconds: float = 0.0,
    error: BaseException | None = None,
) -> JobDone:
    """Return the end of a job that is set aside for people."""
    return JobDone(
        reservation,
        request_type,
        JobOutcome.BURIED,
        Bury(reservation, reason, text[-LONGEST_ERROR:]),
        seconds,
        error,
    )


def error_text(said: str, error: BaseException | None) -> str:
    """Return what is kept with the job: the handler's words, or the end of the traceback."""
    if error is None or isinstance(error, Fatal):
        return said[-LONGEST_ERROR:]
    try:
        lines = traceback.format_exception(error)
    except Exception as problem:  # noqa: BLE001 - an exception's own attributes are user code
        lines = [f"{type(error).__name__}, whose traceback raises {type(problem).__name__}\n"]
    return "".join(lines)[-LONGEST_ERROR:]


def _checked(result: RequestResult) -> RequestResult:
    """Return a result of the right types: nothing checks them when a handler makes one."""
    kind: object = result.kind
    error: object = result.error
    if isinstance(kind, ResultKind) and isinstance(error, str):
        return result
    try:
        return replace(result, kind=ResultKind(_said(kind)), error=_said(error))
    except ValueError:
        return RequestResult.transient(f"its handler returned a result of kind {_said(kind)}")


def _said(words: object) -> str:
    """Return words as text, even those of an exception that fails to print itself."""
    try:
        return str(words)
    except Exception as problem:  # noqa: BLE001 - __str__ is user code
        return f"{type(words).__name__}, whose text raises {type(problem).__name__}"
