"""A job's failure that pauses its type: who says so, what it costs, and whom it spares."""

from __future__ import annotations

from datetime import timedelta

import pytest
from loops import Bench, raising
from tenacity import retry_if_exception_type, wait_fixed

from pulpo_pool import Fatal, InvalidHandler, Message, Pulpo, RequestResult, Transient
from pulpo_pool.app.pauses import DEFAULT_PAUSE, PausePolicy
from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.queues.adapter import JobState
from pulpo_pool.testing import QueueHarness
from pulpo_pool.worker.observer import PutBack


class PausingBench(Bench):
    """A bench whose diary also keeps what was put back."""

    def __init__(self):
        super().__init__()
        self.put_back = []
        self.diary.put_back = self.put_back.append

    def publish_again(self):
        self.app.publish(Message(request_type="work", body={}))

    def pause(self, **options):
        """Run a job whose failure pauses its type, and publish another."""
        self.app.job("work", pause_on=ConnectionError, wait=wait_fixed(1), **options)(
            raising(ConnectionRefusedError("down"))
        )
        self.publish_again()
        done = self.turn()
        self.publish_again()
        return done

    def turn_back(self):
        """Take a turn that puts a job back; return what the diary was told."""
        assert self.loop.turn()
        put_back = self.loop.has_put_back
        self.loop.finish()
        assert put_back
        return self.put_back[-1]

    def records(self):
        return sorted(self.queue.list_jobs(JobState.DELAYED), key=lambda job: int(job.job_id))


@pytest.fixture
def bench():
    return PausingBench()


def test_a_job_of_a_paused_type_goes_back_unhandled_at_no_cost(bench):
    bench.pause(pause=60)
    handled = len(bench.diary.done)
    back = bench.turn_back()
    _, record = bench.records()
    wait = record.due - bench.clock.now()

    assert isinstance(back, PutBack)
    assert back.request_type == "work"
    assert len(bench.diary.done) == handled
    assert (record.attempts, record.error) == (0, None)
    assert 60 <= wait <= 75, "when the pause is over, or a little later"


def test_the_job_that_pauses_its_type_spends_its_attempt_and_waits_as_long(bench):
    """Its handler ran; if it did not count, a job that is itself to blame would never end."""
    done = bench.pause(pause=60)
    record = bench.records()[0]

    assert done.outcome is JobOutcome.RETRIED
    assert record.attempts == 1
    assert record.due - bench.clock.now() >= 60
    assert "ConnectionRefusedError: down" in record.error


def test_once_a_probe_succeeds_all_run(bench):
    down = [True]

    def handler():
        if down:
            raise ConnectionError

    bench.app.job("work", pause_on=ConnectionError, pause=60)(handler)
    for _ in range(3):
        bench.publish_again()
    bench.turn()
    bench.turn_back()
    bench.turn_back()
    down.clear()
    bench.clock.advance(75)
    outcomes = [bench.turn().outcome for _ in range(3)]

    assert outcomes == [JobOutcome.SUCCESS] * 3
    assert bench.records() == []


def test_another_failure_pauses_nothing(bench):
    bench.app.job("work", pause_on=ConnectionError)(raising(ValueError("odd")))
    for _ in range(2):
        bench.publish_again()
        bench.turn()

    assert bench.put_back == []


@pytest.mark.parametrize(
    "handler",
    [
        raising(Transient("busy", pause=30)),
        raising(Transient("busy", pause=timedelta(seconds=30))),
        lambda: RequestResult.transient("busy", pause=30),
        lambda: RequestResult.transient("busy", retry_in=5, pause=30),
    ],
    ids=["raised", "as a timedelta", "returned", "with a shorter retry_in"],
)
def test_a_handler_may_ask_for_a_pause_itself(bench, handler):
    bench.publish(handler)
    bench.turn()
    bench.publish_again()
    bench.turn_back()

    assert [record.attempts for record in bench.records()] == [1, 0]
    assert all(record.due >= bench.clock.now() + 30 for record in bench.records())


def test_a_longer_retry_in_is_kept(bench):
    bench.run(raising(Transient(retry_in=3_600, pause=30)))

    assert bench.only("delayed").due == bench.clock.now() + 3_600


def test_a_job_that_is_buried_pauses_its_type_too(bench):
    bench.app.job("work", pause_on=(OSError,), retry=retry_if_exception_type(KeyError))(
        raising(OSError("down"))
    )
    bench.publish_again()
    done = bench.turn()
    bench.publish_again()

    assert done.outcome is JobOutcome.BURIED
    assert bench.turn_back()


def test_a_pause_that_makes_no_sense_is_logged_and_ignored(bench, caplog):
    class Odd(Transient):
        def __init__(self):
            self.pause = "for ever"

    bench.run(raising(Odd()))
    bench.publish_again()
    bench.turn()

    assert bench.put_back == []
    assert "pause: expected seconds or a timedelta, got 'for ever'" in caplog.text


def test_a_pool_of_paused_jobs_only_does_not_spin(bench):
    """Each is looked at once and then waits in the queue, where nobody looks at it."""
    bench.pause(pause=60)
    for _ in range(9):
        bench.publish_again()
    for _ in range(10):
        bench.turn_back()

    assert not bench.loop.turn()
    assert bench.counts().delayed == 11


@pytest.mark.parametrize("pause", [0, -1, float("nan"), float("inf"), "5", True, 10**9])
def test_a_pause_that_is_none_fails_where_it_is_written(pause):
    with pytest.raises(ValueError, match="pause"):
        Transient(pause=pause)
    with pytest.raises(ValueError, match="pause"):
        RequestResult.transient(pause=pause)
    with pytest.raises(InvalidHandler, match="pause"):
        PausePolicy.read(OSError, pause)


@pytest.mark.parametrize(
    ("pause_on", "reason"),
    [
        ((), "expected exception types"),
        ("ConnectionError", "expected exception types"),
        ((OSError, OSError("an instance")), "expected exception types"),
        (int, "expected exception types"),
        (None, "says nothing without pause_on"),
    ],
)
def test_what_cannot_pause_is_refused_at_registration(pause_on, reason):
    with pytest.raises(InvalidHandler, match=reason):
        Pulpo().job("work", pause_on=pause_on, pause=5)(lambda: None)


def test_a_policy_reads_as_people_say_it():
    assert PausePolicy.read((OSError, KeyError), 60).describe() == (
        "on OSError, KeyError for 60 s, doubling"
    )
    assert PausePolicy.read(Fatal, None).first == DEFAULT_PAUSE
    assert PausePolicy().describe() is None


def test_the_test_kit_pauses_as_a_pool_does():
    app = Pulpo()

    @app.job(pause_on=ConnectionError, pause=60)
    def charge(n: int) -> None:
        if n == 1:
            raise ConnectionError("down")

    with QueueHarness(app) as queue:
        for n in (1, 2):
            charge.publish(n=n)
        ran = queue.work_through()
        waiting = len(queue.delayed())
        queue.clock.advance(75)
        with pytest.raises(ConnectionError):
            queue.work_off()

    assert (ran, waiting) == (1, 2)
