"""Whether a failed job is tried again, and when: tenacity's strategies, with the queue waiting."""

from __future__ import annotations

import inspect
import logging
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from pulpo_pool.app.results import Transient
from pulpo_pool.app.strategies import check_strategy, describe_strategy
from pulpo_pool.errors import BodyMismatch
from pulpo_pool.queues.adapter import BuryReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

T = TypeVar("T")

DEFAULT_MAX_ATTEMPTS: Final = 20
LONGEST_DEFAULT_WAIT: Final = 600.0  # seconds
LONGEST_WAIT: Final = 366 * 86_400.0  # seconds; more is a mistake, not a wish

Wait: TypeAlias = "Callable[[RetryCallState], float]"
Stop: TypeAlias = "Callable[[RetryCallState], bool]"
Retry: TypeAlias = "Callable[[RetryCallState], bool]"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Again, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Not again: bury it for this reason."""

    reason: BuryReason
    text: str


class RetryPolicy:
    """When to try a failed job again: tenacity's `wait`, `stop` and `retry`, any of them missing.

    They mean what they mean in tenacity, but across processes and restarts: attempts are counted
    by the queue, and time runs from publishing. InvalidHandler for a strategy that cannot work so.
    """

    def __init__(
        self, wait: Wait | None = None, stop: Stop | None = None, retry: Retry | None = None
    ) -> None:
        for piece, strategy in (("wait", wait), ("stop", stop), ("retry", retry)):
            if strategy is not None:
                check_strategy(piece, strategy)
        self.wait = wait
        self.stop = stop
        self.retry = retry
        self.max_attempts = DEFAULT_MAX_ATTEMPTS

    def with_defaults(self, max_attempts: int) -> RetryPolicy:
        """Return this policy with its missing pieces filled in from the pool's settings."""
        # Imported when a worker needs it: a producer pays for no tenacity.
        from tenacity import retry_always, stop_after_attempt, wait_random_exponential

        policy = RetryPolicy(
            self.wait or wait_random_exponential(multiplier=1, max=LONGEST_DEFAULT_WAIT),
            self.stop or stop_after_attempt(max_attempts),
            self.retry or retry_always,
        )
        policy.max_attempts = max_attempts
        return policy

    def decide(
        self, *, attempt: int, error: BaseException | None, age: float, retry_in: float | None
    ) -> RetryIn | GiveUp:
        """Return what becomes of a job that failed.

        `error` is what the handler raised, None if it answered "transient"; `age` is seconds since
        the job could first run; `retry_in` is the wait the handler asked for, in seconds. A
        strategy that raises or returns nonsense is logged, and the default's answer taken.
        """
        state = _call_state(attempt, error, age)
        if self._is_refused(error, state):
            what = describe_strategy(self.retry)
            return GiveUp(BuryReason.FATAL, f"{type(error).__name__} is not retried ({what})")
        seconds = self._wait_for(retry_in, state)
        state.upcoming_sleep = seconds
        if self._is_over(state):
            what = describe_strategy(self.stop) if self.stop else f"limit {self.max_attempts}"
            return GiveUp(BuryReason.EXHAUSTED, f"gave up at attempt {attempt} ({what})")
        return RetryIn(seconds)

    def describe(self) -> str:
        """Return the policy as text, for `pulpo-pool check`."""
        pieces = (("wait", self.wait), ("stop", self.stop), ("retry", self.retry))
        given = [f"{name}={describe_strategy(piece)}" for name, piece in pieces if piece]
        return ", ".join(given) or "the pool's default"

    def _is_refused(self, error: BaseException | None, state: RetryCallState) -> bool:
        # A body that does not fit comes from another version of the app, not from the job's
        # work: a `retry=retry_if_exception_type(OSError)` must not bury it during a deploy.
        if self.retry is None or error is None or isinstance(error, Transient | BodyMismatch):
            return False
        answer = _ask("retry", self.retry, state, _truth)
        return answer is False

    def _wait_for(self, retry_in: float | None, state: RetryCallState) -> float:
        if retry_in is not None:
            asked = _ask("retry_in", lambda _: retry_in, state, _sane_wait)
            if asked is not None:
                return asked
        if self.wait is not None:
            wait = _ask("wait", self.wait, state, _sane_wait)
            if wait is not None:
                return wait
        from tenacity import wait_random_exponential

        return float(wait_random_exponential(multiplier=1, max=LONGEST_DEFAULT_WAIT)(state))

    def _is_over(self, state: RetryCallState) -> bool:
        if self.stop is not None:
            answer = _ask("stop", self.stop, state, _truth)
            if answer is not None:
                return answer
        return state.attempt_number >= self.max_attempts


@lru_cache(maxsize=8)  # workers find what their template made: 0.4 MB of each stays shared
def default_policy(max_attempts: int = DEFAULT_MAX_ATTEMPTS) -> RetryPolicy:
    """Return what applies where nothing is said: full jitter from 1 s to 10 min, `max_attempts`."""
    return RetryPolicy().with_defaults(max_attempts)


def _call_state(attempt: int, error: BaseException | None, age: float) -> RetryCallState:
    """Return the state tenacity would have reached after failing `attempt` times in `age` s."""
    from tenacity import Future, RetryCallState, Retrying

    state = RetryCallState(retry_object=Retrying(), fn=None, args=(), kwargs={})
    age = max(age, 0.0)
    now = time.monotonic()
    state.attempt_number = attempt
    state.start_time = now - age
    state.outcome_timestamp = now
    # How long a job waited between its attempts is not recorded; nearly all of its age is waiting.
    state.idle_for = age if attempt > 1 else 0.0
    outcome = Future(attempt)
    outcome.set_exception(error if error is not None else Transient())
    state.outcome = outcome
    return state


def _ask(
    piece: str,
    strategy: Callable[[RetryCallState], object],
    state: RetryCallState,
    read: Callable[[object], T],
) -> T | None:
    """Return a strategy's answer; None, logged, if it has none that makes sense."""
    try:
        return read(strategy(state))
    except BaseException as error:  # noqa: BLE001 - not even a strategy's sys.exit() may lose the job
        _log.error(
            "%s=%s failed with %s: %s; the default applies",
            piece,
            describe_strategy(strategy),
            type(error).__name__,
            error,
        )
        return None


def _truth(answer: object) -> bool:
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("it returned a coroutine; use a plain function")
    return bool(answer)


def _sane_wait(answer: object) -> float:
    if inspect.iscoroutine(answer):
        answer.close()
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise TypeError(f"expected seconds, got {answer!r}")
    if not (math.isfinite(answer) and 0 <= answer <= LONGEST_WAIT):
        raise ValueError(f"expected 0 to {LONGEST_WAIT:.0f} seconds, got {answer}")
    return float(answer)
