"""Settling: whatever comes out of a handler becomes one of three verbs, and a bounded text."""

from __future__ import annotations

import sys

import pytest
from loops import Bench, raising

from pulpo_pool import Fatal, RequestResult, Transient
from pulpo_pool.app.retry import RetryPolicy
from pulpo_pool.codec import Codec
from pulpo_pool.errors import InvalidHandler
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


class Secret(Exception):
    """Carries one in its text, its cause and its arguments."""


SECRET = Secret("the password is hunter2")
SECRET.__cause__ = ValueError("hunter2 again")


@pytest.mark.parametrize(
    "answer",
    [
        SECRET,
        Transient("hunter2"),
        Fatal("hunter2"),
        RequestResult.transient("hunter2"),
        RequestResult.fatal("hunter2"),
    ],
    ids=repr,
)
def test_what_is_kept_was_redacted(bench, answer):
    """Whatever way a handler says it; functions work one after the other."""
    bench.app.redact(lambda text: text.replace("hunter2", "hunter"))
    bench.app.redact(lambda text: text.replace("hunter", "[redacted]"))
    bench.run(raising(answer) if isinstance(answer, Exception) else lambda: answer)
    record = bench.queue.peek("1")

    assert "hunter" not in f"{record.error} {record.history}"
    assert "[redacted]" in record.error
    assert "[redacted]" in record.history[0].error


def test_a_text_is_redacted_before_it_is_cut(bench):
    """The end that is kept begins in the middle of the secret."""
    tail = "y" * (LONGEST_ERROR - 20)
    bench.app.redact(lambda text: text.replace("hunter2" * 100, "[redacted]"))
    bench.run(raising(Transient("hunter2" * 100 + tail)))

    assert "unter2" not in bench.only("delayed").error


@pytest.mark.parametrize(
    "hook",
    [lambda text: 1 / 0, lambda text: None, lambda text: sys.exit(3)],
    ids=["raises", "returns no text", "exits"],
)
def test_a_redaction_that_fails_keeps_only_the_type(bench, hook):
    """And loses no job."""
    bench.app.redact(hook)
    done = bench.run(raising(SECRET))
    error = bench.only("delayed").error

    assert done.outcome is JobOutcome.RETRIED
    assert error.startswith("Secret: its text is withheld, since redacting it raised ")
    assert "hunter2" not in error


def test_bytes_that_are_no_message_are_redacted_too(bench):
    bench.app.redact(lambda text: text.replace("hunter2", "[redacted]"))
    raw = b'{"header": {"request_type": {"a": "hunter2"}}}'
    with bench.queue.store.lock:
        bench.queue.store.add("default", raw, 0, None)
    bench.turn()

    assert "[redacted]" in bench.only("buried").error


def test_only_what_can_be_called_redacts(bench):
    with pytest.raises(InvalidHandler, match="redact takes a function"):
        bench.app.redact("hunter2")
