"""WorkerLoop: what becomes of a job, by what its handler says, does and is."""

from __future__ import annotations

import os

import pytest
from loops import Bench, raising
from tenacity import retry_if_exception_type, stop_after_attempt, wait_fixed

from pulpo_pool import Fatal, JobContext, Message, RequestResult, Transient
from pulpo_pool.errors import QueueUnavailable
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import CrashLimit, Fate, JobState, Owner, QueueStats, Verdict
from pulpo_pool.queues.memory import MemoryQueueAdapter

GONE = QueueStats()


@pytest.fixture
def bench():
    return Bench()


# -- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        None,
        RequestResult.success(),
        42,
        "done",
        False,
        {"a": 1},
        RequestResult,
        Transient,
        object(),
    ],
    ids=repr,
)
def test_a_handler_that_ends_well_commits_whatever_it_returns(bench, answer):
    done = bench.run(lambda: answer)

    assert done.outcome is JobOutcome.SUCCESS
    assert bench.counts() == GONE


def test_a_job_is_settled_by_the_turn_after_it_was_handled(bench):
    bench.publish(lambda: None)
    bench.loop.turn()
    held = bench.counts()
    found = bench.loop.turn()

    assert held == QueueStats(reserved=1)
    assert not found
    assert bench.counts() == GONE
    assert bench.diary.events == ["reserved", "started", "finished", "settled"]


@pytest.mark.parametrize(
    "handler",
    [lambda: RequestResult.transient("later", retry_in=7), raising(Transient("later", retry_in=7))],
    ids=["returned", "raised"],
)
def test_a_transient_job_comes_again_when_it_asked_to(bench, handler):
    done = bench.run(handler)
    record = bench.only("delayed")

    assert (done.outcome, done.retry_reason) == (JobOutcome.RETRIED, RetryReason.REQUESTED)
    assert record.due == bench.clock.now() + 7
    assert record.error == "later"


def test_a_transient_job_without_a_time_waits_as_the_policy_says(bench):
    bench.app.job("work", wait=wait_fixed(90))(raising(Transient("later")))
    bench.app.publish(Message(request_type="work", body={}))
    bench.turn()

    assert bench.only("delayed").due == bench.clock.now() + 90


@pytest.mark.parametrize(
    "handler",
    [lambda: RequestResult.fatal("no such city"), raising(Fatal("no such city"))],
    ids=["returned", "raised"],
)
def test_a_fatal_job_is_buried_with_the_handlers_words(bench, handler):
    done = bench.run(handler)
    record = bench.only("buried")

    assert done.outcome is JobOutcome.BURIED
    assert (record.reason, record.error) == ("fatal", "no such city")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("odd"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("base"),
        MemoryError(),
        StopIteration(),
    ],
    ids=repr,
)
def test_whatever_is_raised_fails_the_job_and_not_the_worker(bench, error):
    done = bench.run(raising(error))
    record = bench.only("delayed")

    assert (done.outcome, done.retry_reason) == (JobOutcome.RETRIED, RetryReason.EXCEPTION)
    assert done.error is error
    assert type(error).__name__ in record.error
    assert "in handler" in record.error, "expected the traceback of the handler"


def test_an_exception_that_is_returned_is_the_failure_it_describes(bench):
    done = bench.run(lambda: ValueError("returned"))

    assert done.outcome is JobOutcome.RETRIED
    assert "ValueError: returned" in bench.only("delayed").error


# -- jobs that are not handled ----------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"garbage", b"{}", b'{"header": 3}', b"\xff" * 100])
def test_bytes_that_are_no_message_are_buried(bench, raw):
    with bench.queue.store.lock:
        bench.queue.store.add("default", raw, 65_536, None)
    done = bench.turn()
    record = bench.only("buried")

    assert (record.reason, record.raw) == ("undecodable", raw)
    assert done.request_type == ""
    assert "started" not in bench.diary.events


def test_an_expired_job_is_discarded_unhandled(bench):
    ran = []
    bench.publish(lambda: ran.append(1), expiration=60)
    bench.clock.advance(60)
    done = bench.turn()

    assert (done.outcome, ran) == (JobOutcome.EXPIRED, [])
    assert bench.counts() == GONE


def test_an_expired_job_is_buried_where_the_settings_say_so():
    bench, ran = Bench(on_expired="bury"), []
    bench.publish(lambda: ran.append(1), expiration=60)
    bench.clock.advance(61)
    bench.turn()

    assert (bench.only("buried").reason, ran) == ("expired", [])


def test_an_unknown_type_is_released_and_buried_only_at_the_limit():
    bench = Bench(max_attempts=3)
    bench.app.publish(Message(request_type="of_tomorrow", body={}))
    reasons = []
    for _ in range(2):
        reasons.append(bench.turn().retry_reason)
        bench.clock.advance(bench.only("delayed").due - bench.clock.now())
    bench.turn()
    record = bench.only("buried")

    assert reasons == [RetryReason.UNKNOWN_TYPE] * 2
    assert record.reason == "unknown_type"
    assert "of_tomorrow" in record.error


def test_attempts_spent_by_dying_pools_bury_a_job():
    bench, ran = Bench(max_attempts=2), []
    bench.app.registry.configure({}, 2)
    bench.publish(lambda: ran.append(1))
    bench.queue.owner = Owner("pool", "start", 0, 1)
    for _ in range(2):
        bench.queue.dequeue()
        bench.queue.rescue(lambda _: Verdict(Fate.GONE, "its pool died"), CrashLimit())
    bench.app.registry.configure({}, 2)
    bench.turn()

    assert (bench.only("buried").reason, ran) == ("exhausted", [])


def test_attempts_before_a_deploy_that_lowers_the_limit_bury_a_job_and_say_so():
    bench, ran = Bench(max_attempts=2), []
    bench.publish(lambda: ran.append(1))
    bench.queue.owner = Owner("pool", "start", 0, 1)
    for _ in range(4):
        bench.queue.rollback(bench.queue.dequeue())
    bench.app.registry.configure({}, 2)
    bench.turn()
    record = bench.only("buried")

    assert (record.reason, ran) == ("exhausted", [])
    assert "gave up at attempt 4 (stop_after_attempt(max_attempt_number=2))" in record.error
    assert "the limit was higher then" in record.error


# -- retries ----------------------------------------------------------------------------------


def test_a_job_is_buried_at_its_limit_with_the_last_traceback(bench):
    job = bench.app.job("work", wait=wait_fixed(5), stop=stop_after_attempt(3))
    job(raising(OSError("disk on fire"))).publish()
    for _ in range(2):
        bench.turn()
        bench.clock.advance(5)
    bench.turn()
    record = bench.only("buried")

    assert (record.reason, record.attempts) == ("exhausted", 3)
    assert "Traceback" in record.error
    assert "OSError: disk on fire" in record.error


def test_what_a_policy_does_not_retry_is_buried_at_once(bench):
    job = bench.app.job("work", retry=retry_if_exception_type(OSError))
    job(raising(ValueError("wrong"))).publish()
    bench.turn()

    assert bench.only("buried").reason == "fatal"
    assert "ValueError: wrong" in bench.only("buried").error


def test_a_handler_sees_its_attempt_and_whether_the_pool_stops(bench):
    seen = []

    @bench.app.job()
    def work(context: JobContext):
        seen.append((context.attempt, context.stopping))
        if len(seen) == 1:
            raise Transient(retry_in=0)

    work.publish()
    bench.turn()
    bench.stopping = True
    bench.turn()

    assert seen == [(1, False), (2, True)]


# -- the queue --------------------------------------------------------------------------------


def test_a_settlement_that_comes_too_late_is_told(bench):
    def work():
        bench.clock.advance(bench.queue.lease + 1)
        thief = MemoryQueueAdapter(store=bench.queue.store, clock=bench.clock)
        assert thief.dequeue() is not None

    bench.publish(work)
    bench.loop.turn()
    bench.loop.turn()

    assert bench.diary.lost_jobs == ["1"]
    assert bench.counts().reserved == 1, "expected the new owner's reservation untouched"
    assert not bench.loop.has_unsettled


def test_a_job_deleted_under_its_worker_is_lost_at_the_end_too(bench):
    bench.publish(lambda: bench.queue.delete("1"))
    bench.loop.turn()
    bench.loop.finish()

    assert bench.diary.lost_jobs == ["1"]


class FlakyQueue(MemoryQueueAdapter):
    """A queue that can be away."""

    away = False

    def settle_and_dequeue(self, settlement, timeout=0.0):
        self._fail_if_away()
        return super().settle_and_dequeue(settlement, timeout)

    def settle(self, settlement):
        self._fail_if_away()
        super().settle(settlement)

    def _fail_if_away(self):
        if self.away:
            raise QueueUnavailable("away")


@pytest.mark.parametrize("step", ["turn", "finish"])
def test_a_settlement_outlives_a_queue_that_is_away(step):
    bench, ran = Bench(queue_type=FlakyQueue), []
    bench.publish(lambda: ran.append(1))
    bench.loop.turn()
    bench.queue.away = True
    for _ in range(3):
        with pytest.raises(QueueUnavailable):
            getattr(bench.loop, step)()
    kept = bench.loop.has_unsettled
    bench.queue.away = False
    getattr(bench.loop, step)()

    assert kept
    assert ran == [1], "expected the handler to have run once"
    assert bench.counts() == GONE
    assert bench.diary.lost_jobs == []


def test_a_handler_that_forks_back_into_the_loop_is_settled_once(bench):
    pids = []

    def work():
        pids.append(os.fork())
        if pids[-1] == 0:
            raise SystemExit(7)

    done = bench.run(work)
    _, status = os.waitpid(pids[0], 0)

    assert done.outcome is JobOutcome.SUCCESS
    assert os.waitstatus_to_exitcode(status) == 0, "expected the child to end in the loop"
    assert list(bench.queue.list_jobs(JobState.RESERVED)) == []
