"""RetryPolicy: tenacity's strategies decide about a job as they would about a call."""

from __future__ import annotations

import functools
import logging
import math
import threading
from datetime import timedelta
from typing import Any

import pytest
import tenacity as t
from tenacity.asyncio import retry_if_exception as async_retry_if_exception

from pulpo_pool.app.results import Fatal, RequestResult, ResultKind, Transient
from pulpo_pool.app.retry import GiveUp, RetryIn, RetryPolicy, default_policy
from pulpo_pool.errors import BodyMismatch, InvalidHandler
from pulpo_pool.queues.adapter import BuryReason


def decide(policy: RetryPolicy, **facts: Any) -> RetryIn | GiveUp:
    asked = {"attempt": 1, "error": OSError("down"), "age": 0.0, "retry_in": None} | facts
    return policy.with_defaults(20).decide(**asked)


def test_the_default_backs_off_with_full_jitter_up_to_ten_minutes():
    policy = default_policy()

    for attempt, ceiling in ((1, 1), (2, 2), (5, 16), (11, 600), (19, 600)):
        waits = [decide(policy, attempt=attempt).seconds for _ in range(200)]
        assert all(0 <= wait <= ceiling for wait in waits)
        assert max(waits) - min(waits) > ceiling / 4, "it spreads over the whole window"


def test_the_default_gives_up_at_the_pools_limit():
    policy = default_policy(max_attempts=3)

    error = ValueError("bad")
    assert isinstance(policy.decide(attempt=2, error=error, age=0, retry_in=None), RetryIn)
    end = policy.decide(attempt=3, error=error, age=0, retry_in=None)
    assert end.reason is BuryReason.EXHAUSTED
    assert end.text == "gave up at attempt 3 (stop_after_attempt(max_attempt_number=3))"


def test_missing_pieces_come_from_the_pool_and_given_ones_stay():
    policy = RetryPolicy(wait=t.wait_fixed(7)).with_defaults(2)

    assert policy.decide(attempt=1, error=OSError(), age=0, retry_in=None) == RetryIn(7.0)
    assert isinstance(policy.decide(attempt=2, error=OSError(), age=0, retry_in=None), GiveUp)


def test_attempts_and_time_are_those_of_the_job_not_of_this_process():
    seen = []

    def note(state: t.RetryCallState) -> bool:
        seen.append(
            (state.attempt_number, round(state.seconds_since_start or 0, 6), state.upcoming_sleep)
        )
        return False

    decide(RetryPolicy(wait=t.wait_fixed(5), stop=note), attempt=4, age=3600.5)

    assert seen == [(4, 3600.5, 5.0)]


@pytest.mark.parametrize(
    ("stop", "age", "over"),
    [
        (t.stop_after_delay(60), 59, False),
        (t.stop_after_delay(60), 60, True),
        (t.stop_after_delay(timedelta(minutes=1)), 61, True),
        (t.stop_before_delay(60), 54, False),
        (t.stop_before_delay(60), 55, True),
        (t.stop_after_attempt(9) | t.stop_after_delay(60), 60, True),
        (t.stop_after_attempt(9) & t.stop_after_delay(60), 60, False),
        (t.stop_never, 10**9, False),
        (t.stop_after_delay(60), -1000, False),
    ],
)
def test_a_stop_by_time_counts_from_publishing(stop, age, over):
    end = decide(RetryPolicy(wait=t.wait_fixed(5), stop=stop), age=age)

    assert isinstance(end, GiveUp) is over


def test_waits_may_look_at_the_exception_and_the_attempt():
    by_error = RetryPolicy(wait=t.wait_exception(lambda error: float(str(error))))
    by_attempt = RetryPolicy(wait=t.wait_chain(t.wait_fixed(1), t.wait_fixed(9)))

    assert decide(by_error, error=OSError("2.5")) == RetryIn(2.5)
    assert decide(by_attempt, attempt=1) == RetryIn(1.0)
    assert decide(by_attempt, attempt=5) == RetryIn(9.0)
    assert decide(RetryPolicy(wait=t.wait_fixed(1) + t.wait_fixed(2))) == RetryIn(3.0)
    assert decide(RetryPolicy(wait=lambda state: state.attempt_number), attempt=6) == RetryIn(6.0)


def test_an_exception_that_is_not_retried_buries_at_once():
    policy = RetryPolicy(retry=t.retry_if_exception_type(OSError))

    end = decide(policy, error=KeyError("x"))

    assert isinstance(decide(policy, error=ConnectionResetError()), RetryIn)
    assert end == GiveUp(
        BuryReason.FATAL,
        "KeyError is not retried (retry_if_exception_type(exception_types=OSError))",
    )


@pytest.mark.parametrize("error", [None, Transient("busy"), BodyMismatch("no `to`")])
def test_who_asks_for_another_attempt_gets_it_whatever_is_retried(error):
    policy = RetryPolicy(retry=t.retry_if_exception_type(OSError), wait=t.wait_fixed(3))

    assert decide(policy, error=error) == RetryIn(3.0)
    assert isinstance(decide(policy, error=error, attempt=20), GiveUp)


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt()])
def test_leaving_is_a_failure_like_any_other(error):
    assert isinstance(decide(default_policy(), error=error), RetryIn)


def test_a_wait_the_handler_asked_for_wins_but_the_limit_stays():
    policy = RetryPolicy(wait=t.wait_fixed(3), stop=t.stop_after_attempt(5))

    assert decide(policy, retry_in=0.0) == RetryIn(0.0)
    assert decide(policy, retry_in=90.0) == RetryIn(90.0)
    assert decide(policy, retry_in=90.0, attempt=5).reason is BuryReason.EXHAUSTED


# -- nonsense at decide time ----------------------------------------------------------------------


def _raise(_state: t.RetryCallState) -> Any:
    raise ZeroDivisionError("mine")


def _leave(_state: t.RetryCallState) -> Any:
    raise SystemExit


async def _later() -> float:
    return 1.0


@pytest.mark.parametrize(
    "answer",
    [-1, math.nan, math.inf, 10**12, None, "5", True, [], Transient],
)
def test_a_wait_that_makes_no_sense_falls_back_to_the_default(answer, caplog):
    end = decide(RetryPolicy(wait=lambda _: answer), attempt=1)

    assert 0 <= end.seconds <= 1
    assert "the default applies" in caplog.text


@pytest.mark.parametrize("strategy", [_raise, _leave, lambda _: _later()])
@pytest.mark.parametrize("piece", ["wait", "stop", "retry"])
def test_a_strategy_that_fails_falls_back_to_the_default(piece, strategy, caplog):
    policy = RetryPolicy(**{piece: strategy})

    assert isinstance(decide(policy, attempt=1), RetryIn)
    assert isinstance(decide(policy, attempt=20), GiveUp), "the default limit still ends it"
    assert caplog.records[0].levelno == logging.ERROR
    assert piece in caplog.text


def test_a_retry_in_that_makes_no_sense_leaves_it_to_the_policy(caplog):
    assert decide(RetryPolicy(wait=t.wait_fixed(3)), retry_in=-5) == RetryIn(3.0)
    assert "retry_in" in caplog.text


# -- refused at registration ----------------------------------------------------------------------


async def _async_strategy(_state: t.RetryCallState) -> bool:
    return True


async def _async_predicate(_error: BaseException) -> bool:
    return True


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ({"stop": t.stop_when_event_set(threading.Event())}, "an Event is not seen"),
        ({"stop": t.stop_after_attempt(3) | t.stop_when_event_set(threading.Event())}, "an Event"),
        ({"retry": t.retry_if_result(bool)}, "only failures are asked about"),
        ({"retry": t.retry_if_exception_type() | t.retry_if_not_result(bool)}, "only failures"),
        ({"retry": _async_strategy}, "asynchronous"),
        ({"retry": functools.partial(_async_strategy)}, "asynchronous"),
        ({"retry": async_retry_if_exception(_async_predicate)}, "asynchronous"),
        ({"retry": t.retry_if_exception(_async_predicate)}, "predicate is asynchronous"),
        ({"wait": t.wait_exception(_async_predicate)}, "predicate is asynchronous"),
        ({"wait": t.wait_fixed(1) + t.wait_exception(_async_predicate)}, "asynchronous"),
        ({"wait": 5}, r"wait=5: is no strategy; give one such as tenacity.wait_fixed\(5\)"),
        ({"stop": 3}, r"stop=3: is no strategy; .*stop_after_attempt\(3\)"),
        ({"retry": OSError}, r"is a class; .*retry_if_exception_type\(OSError\)"),
        ({"stop": t.stop_after_attempt}, "is a class"),
        ({"wait": t.stop_after_attempt(3)}, "is a `stop` strategy"),
        ({"stop": t.wait_fixed(3)}, "is a `wait` strategy"),
        ({"wait": lambda: 5}, "must take one argument"),
        ({"retry": lambda a, b: True}, "must take one argument"),
    ],
)
def test_what_cannot_work_across_processes_is_refused_when_it_is_given(pieces, reason):
    with pytest.raises(InvalidHandler, match=reason):
        RetryPolicy(**pieces)


def test_a_policy_reads_as_it_was_written():
    policy = RetryPolicy(
        wait=t.wait_exponential(multiplier=2, max=60),
        stop=t.stop_after_attempt(3) | t.stop_after_delay(60),
        retry=t.retry_if_exception_type((OSError, KeyError)),
    )

    assert policy.describe() == (
        "wait=wait_exponential(multiplier=2, min=0.0, max=60.0, exp_base=2), "
        "stop=stop_any(stops=stop_after_attempt(max_attempt_number=3), "
        "stop_after_delay(max_delay=60.0)), "
        "retry=retry_if_exception_type(exception_types=OSError, KeyError)"
    )
    assert RetryPolicy().describe() == "the pool's default"
    assert RetryPolicy(stop=_raise).describe() == "stop=_raise"


# -- results --------------------------------------------------------------------------------------


def test_results_speak_the_ancestors_names():
    success = RequestResult.success_factory()
    transient = RequestResult.transient_factory("busy")
    fatal = RequestResult.fatal_factory(error="broken", response_message_list=None)

    assert (success.isSuccess, success.isTransient, success.isFatal) == (True, False, False)
    assert (transient.isTransient, transient.result, transient.error) == (True, "transient", "busy")
    assert (fatal.isFatal, fatal.result, fatal.error) == (True, "fatal", "broken")
    assert success.kind is ResultKind.SUCCESS
    assert success.response_messages == ()


@pytest.mark.parametrize(
    ("retry_in", "seconds"), [(None, None), (0, 0.0), (5, 5.0), (timedelta(minutes=2), 120.0)]
)
def test_another_attempt_can_be_asked_for_in_seconds_or_a_timedelta(retry_in, seconds):
    assert RequestResult.transient("x", retry_in).retry_in == seconds
    assert Transient("x", retry_in=retry_in).retry_in == seconds


@pytest.mark.parametrize("retry_in", [-1, math.nan, math.inf, "5", True, timedelta(seconds=-1)])
def test_a_wait_that_is_no_time_fails_where_it_is_written(retry_in):
    with pytest.raises(ValueError, match="retry_in"):
        Transient(retry_in=retry_in)
    with pytest.raises(ValueError, match="retry_in"):
        RequestResult.transient(retry_in=retry_in)


def test_a_reason_may_be_the_exception_itself():
    assert Fatal(KeyError("x")).reason == str(Fatal(KeyError("x"))) == "'x'"
    assert RequestResult.fatal(OSError("down")).error == "down"
    assert RequestResult.fatal(None).error == ""
