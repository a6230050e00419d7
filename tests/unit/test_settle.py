"""Settling: whatever comes out of a handler becomes one of three verbs, and a bounded text."""

from __future__ import annotations

import pytest
from loops import Bench, raising

from pulpo_pool import Fatal, RequestResult, Transient
from pulpo_pool.app.retry import RetryPolicy
from pulpo_pool.codec import Codec
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import Bury, BuryReason, Commit, Reservation, Rollback
from pulpo_pool.worker.settle import LONGEST_ERROR, answer_of, answer_of_failure, conclude


@pytest.fixture
def bench():
    return Bench()


def settlement_of(answer, attempt=1):
    reservation = Reservation(job_id="1", queue="q", raw=b"", codec=Codec(), attempt=attempt)
    policy = RetryPolicy(wait=lambda _: 11.0).with_defaults(3)
    return conclude(reservation, "work", answer, policy, age=0.0, seconds=0.5)


@pytest.mark.parametrize(
    ("answer", "verb"),
    [
        (answer_of(None), Commit),
        (answer_of(RequestResult.success()), Commit),
        (answer_of(RequestResult.transient("no")), Rollback),
        (answer_of(RequestResult.fatal("no")), Bury),
        (answer_of_failure(ValueError("no")), Rollback),
        (answer_of_failure(Transient("no")), Rollback),
        (answer_of_failure(Fatal("no")), Bury),
    ],
)
def test_each_answer_has_its_verb(answer, verb):
    done = settlement_of(answer)

    assert type(done.settlement) is verb
    assert done.seconds == 0.5


def test_a_wait_that_is_asked_for_goes_before_the_policys():
    asked = settlement_of(answer_of_failure(Transient("no", retry_in=4)))
    unasked = settlement_of(answer_of_failure(ValueError("no")))

    assert (asked.settlement.delay, unasked.settlement.delay) == (4.0, 11.0)


@pytest.mark.parametrize(
    "answer",
    [answer_of_failure(ValueError("the cause")), answer_of_failure(Transient("the cause"))],
)
def test_the_last_attempt_keeps_both_the_limit_and_the_cause(answer):
    settlement = settlement_of(answer, attempt=3).settlement

    assert (type(settlement), settlement.reason) == (Bury, BuryReason.EXHAUSTED)
    assert settlement.error.startswith("gave up at attempt 3")
    assert "the cause" in settlement.error


@pytest.mark.parametrize(
    "answer",
    [
        answer_of_failure(ValueError("x" * 1_000_000 + "end")),
        answer_of_failure(Fatal("x" * 1_000_000 + "end")),
        answer_of(RequestResult.transient("x" * 1_000_000 + "end")),
        answer_of(RequestResult.fatal("x" * 1_000_000 + "end")),
    ],
)
@pytest.mark.parametrize("attempt", [1, 3])
def test_what_is_kept_of_an_error_is_bounded_and_has_its_end(answer, attempt):
    error = settlement_of(answer, attempt).settlement.error

    assert len(error) <= LONGEST_ERROR
    assert error.rstrip().endswith("end")


@pytest.mark.parametrize("kind", [Exception, Transient, Fatal, SyntaxError])
def test_an_exception_that_cannot_be_printed_fails_its_job_only(bench, kind):
    class Unprintable(kind):
        def __str__(self):
            raise RuntimeError("no text")

    done = bench.run(raising(Unprintable()))

    assert done.outcome in (JobOutcome.RETRIED, JobOutcome.BURIED)
    assert bench.counts().reserved == 0


def test_an_error_that_breaks_the_printing_of_tracebacks_fails_its_job_only(bench):
    broken = SyntaxError("odd")
    broken.lineno, broken.text = 1, 42
    done = bench.run(raising(broken))

    assert done.outcome is JobOutcome.RETRIED
    assert "SyntaxError" in bench.only("delayed").error


def test_a_transient_of_ones_own_need_not_call_its_parent(bench):
    class NotYet(Transient):
        def __init__(self, city):
            self.city = city

    done = bench.run(raising(NotYet("Rome")))

    assert (done.outcome, done.retry_reason) == (JobOutcome.RETRIED, RetryReason.REQUESTED)


@pytest.mark.parametrize("retry_in", [-1, float("nan"), "soon"])
def test_a_nonsensical_retry_in_falls_back_to_the_policy(bench, retry_in):
    error = Transient("later")
    error.retry_in = retry_in
    done = bench.run(raising(error))

    assert done.outcome is JobOutcome.RETRIED
    assert bench.counts().reserved == 0


@pytest.mark.parametrize(
    "result",
    [RequestResult("fatal", error=ValueError("x")), RequestResult("nonsense", error=3)],
    ids=repr,
)
def test_a_result_of_the_wrong_types_is_read_as_far_as_it_goes(bench, result):
    done = bench.run(lambda: result)

    assert done.outcome in (JobOutcome.BURIED, JobOutcome.RETRIED)
    assert (done.outcome is JobOutcome.BURIED) == (result.kind == "fatal")


def test_a_giant_error_is_kept_with_its_end_only(bench):
    bench.run(raising(ValueError("x" * 5_000_000 + " the end")))
    error = bench.only("delayed").error

    assert len(error) <= 20_000
    assert error.endswith("the end\n")
