"""From what a handler answered to what the queue is told: the only table of its kind."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from pulpo_pool.app.handlers import Fatal, RequestResult, ResultKind, SoftTimeLimit, Transient
from pulpo_pool.app.retry import RetryIn
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import Bury, BuryReason, Commit, Rollback
from pulpo_pool.worker.observer import JobDone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pulpo_pool.app.retry import RetryPolicy
    from pulpo_pool.queues.adapter import Reservation

LONGEST_ERROR: Final = 16_384  # characters kept with a job: the end of a traceback names the cause
Redactor: TypeAlias = "Callable[[str], str]"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came out of a handler: a result, or an exception and where it was raised."""

    result: RequestResult
    error: BaseException | None = None


SUCCESS: Final = JobOutcome.SUCCESS  # to look in an enum costs 0.07 us
WELL: Final = Answer(RequestResult.success())  # made once: nearly every job ends so


def answer_of(returned: object) -> Answer:
    """Read what a handler returned.

    Only a RequestResult speaks about the job's fate. An exception that was returned rather than
    raised is taken for the failure it describes; any other value means that the handler ended
    well, since repeating finished work is worse than ignoring a value.
    """
    if returned is None:
        return WELL
    if isinstance(returned, RequestResult):
        return Answer(_checked(returned))
    if isinstance(returned, BaseException):
        return answer_of_failure(returned)
    return WELL


def answer_of_failure(error: BaseException) -> Answer:
    """Read what a handler raised: Transient and Fatal speak outright, the rest may be retried."""
    if isinstance(error, Transient):
        # A subclass may not have called its parent, so nothing of it is relied upon; the retry
        # policy refuses a wait that is none.
        wait = getattr(error, "retry_in", None)
        pause = getattr(error, "pause", None)
        return Answer(RequestResult(ResultKind.TRANSIENT, _said(error), wait, pause=pause))
    if isinstance(error, Fatal):
        return Answer(RequestResult(ResultKind.FATAL, _said(error)), error)
    return Answer(RequestResult.transient(), error)


def conclude(  # noqa: PLR0913 - all that decides about an attempt
    reservation: Reservation,
    request_type: str,
    answer: Answer,
    policy: RetryPolicy,
    *,
    age: float,
    seconds: float,
    shortest_wait: float = 0.0,
    redactors: Sequence[Redactor] = (),
) -> JobDone:
    """Return the attempt's end and the settlement it calls for. `age` is since publishing.

    A job that is tried again waits for `shortest_wait` seconds at least.
    """
    result, error = answer.result, answer.error
    if result.kind is ResultKind.SUCCESS:
        return JobDone(reservation, request_type, SUCCESS, Commit(reservation, seconds), seconds)
    text = error_text(result.error, error, redactors)
    if result.kind is ResultKind.FATAL:
        return buried(reservation, request_type, BuryReason.FATAL, text, seconds, error)
    decision = policy.decide(
        attempt=reservation.attempt, error=error, age=age, retry_in=result.retry_in
    )
    if isinstance(decision, RetryIn):
        reason = _reason_to_retry(error)
        return JobDone(
            reservation,
            request_type,
            JobOutcome.RETRIED,
            Rollback(reservation, max(decision.seconds, shortest_wait), text, reason),
            seconds,
            error,
            reason,
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
        settlement = Rollback(reservation, decision.seconds, text, RetryReason.UNKNOWN_TYPE)
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


def error_text(said: str, error: BaseException | None, redactors: Sequence[Redactor] = ()) -> str:
    """Return what is kept with the job: the handler's words, or the end of the traceback.

    Redacted before it is cut: half a secret is none that a function would know.
    """
    text = said if error is None or isinstance(error, Fatal) else _traceback(error)
    for redact in redactors:
        try:
            text = redact(text)
            if not isinstance(text, str):
                raise TypeError(f"it returned {type(text).__name__}")  # noqa: TRY301
        except BaseException as problem:  # noqa: BLE001 - a hook must not end a worker, nor leak
            who = f"{type(error).__name__}: " if error is not None else ""
            return f"{who}its text is withheld, since redacting it raised {type(problem).__name__}"
    return text[-LONGEST_ERROR:]


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(error)
    except Exception as problem:  # noqa: BLE001 - an exception's own attributes are user code
        lines = [f"{type(error).__name__}, whose traceback raises {type(problem).__name__}\n"]
    return "".join(lines)


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
