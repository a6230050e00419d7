"""The contract of evidence: what a job's record tells of the attempts that did not end well."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from pulpo_pool.contracts.bench import HELD_BY, Bench, reserve
from pulpo_pool.outcomes import RetryReason
from pulpo_pool.queues.adapter import Bury, BuryReason, CrashLimit, Fate, JobState, Verdict
from pulpo_pool.queues.history import LONGEST_ERROR, MOST_NEWEST, MOST_TEXT
from pulpo_pool.setback import Setback

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import QueueAdapter

DEATH = Setback(
    at=0.0,
    attempt=0,
    outcome="",
    error="killed by signal 11",
    signal=11,
    out_of_memory=True,
    max_rss=84_000_000,
    cpu=0.5,
    stack="File shop.py, line 7",
)


class HistoryContract(Bench):
    """JobRecord.history, and reason and error beside it."""

    @pytest.fixture
    def worker(self) -> QueueAdapter:
        """Return an adapter of HELD_BY."""
        if not self.keeps_evidence:
            pytest.skip("this engine keeps no reasons")
        return self.queue(owner=HELD_BY)

    def fail(self, worker: QueueAdapter, error: str, times: int = 1) -> str:
        """Let the next job fail so often; return its id."""
        for number in range(1, times + 1):
            held = reserve(worker)
            worker.rollback(held, error=error % number, reason=RetryReason.EXCEPTION)
        return held.job_id

    def test_a_new_job_has_no_history(self, worker: QueueAdapter) -> None:
        """Neither while it waits nor in the first worker's hands."""
        job_id = worker.enqueue(self.say())
        new = worker.peek(job_id).history
        reserve(worker)

        assert (new, worker.peek(job_id).history) == ((), ())

    def test_each_failed_attempt_is_told(self, worker: QueueAdapter) -> None:
        """When, which, why, with what, by whom and where, the oldest first."""
        before = self.clock.now()
        job_id = worker.enqueue(self.say())
        self.fail(worker, "boom %d", 2)
        worker.bury(reserve(worker), reason=BuryReason.FATAL, error="never")
        record = self.queue().peek(job_id)
        told = [(each.attempt, each.outcome, each.reason, each.error) for each in record.history]

        assert told == [
            (1, "retried", "exception", "boom 1"),
            (2, "retried", "exception", "boom 2"),
            (3, "buried", "fatal", "never"),
        ]
        assert (record.reason, record.error) == ("fatal", "never")
        assert {(each.worker, each.host) for each in record.history} == {
            (str(HELD_BY), os.uname().nodename)
        }
        assert all(before <= each.at <= self.clock.now() for each in record.history)

    def test_a_failed_job_that_waits_tells_its_error(self, worker: QueueAdapter) -> None:
        """It has one, but no reason to be buried."""
        job_id = worker.enqueue(self.say())
        worker.rollback(reserve(worker), delay=5 * self.moment, error="boom", reason="exception")
        record = self.queue().peek(job_id)

        assert (record.state, record.reason, record.error) == (JobState.DELAYED, None, "boom")

    def test_lists_tell_it_too(self, worker: QueueAdapter) -> None:
        """As `peek` does."""
        worker.enqueue(self.say())
        job_id = self.fail(worker, "boom %d")
        worker.bury(reserve(worker), reason=BuryReason.EXHAUSTED, error="enough")
        (listed,) = self.queue().list_jobs(JobState.BURIED)

        assert (listed.job_id, listed.reason, listed.error) == (job_id, "exhausted", "enough")
        assert [each.error for each in listed.history] == ["boom 1", "enough"]

    def test_a_job_that_was_only_given_back_has_no_setback(self, worker: QueueAdapter) -> None:
        """Nothing went wrong with it."""
        job_id = worker.enqueue(self.say())
        worker.rollback(reserve(worker))

        assert worker.peek(job_id).history == ()

    def test_a_kick_leaves_the_history(self, worker: QueueAdapter) -> None:
        """It is evidence; the reason and the error of the burial are forgiven."""
        worker.enqueue(self.say())
        job_id = self.fail(worker, "boom %d")
        worker.bury(reserve(worker), reason=BuryReason.EXHAUSTED, error="enough")
        worker.kick([job_id])
        kicked = self.queue().peek(job_id)
        self.fail(worker, "again %d", 2)
        failed = self.queue().peek(job_id)

        assert (kicked.state, kicked.reason, kicked.error) == (JobState.READY, None, None)
        assert [each.error for each in kicked.history] == ["boom 1", "enough"]
        assert [each.error for each in failed.history] == [
            "boom 1", "enough", "again 1", "again 2",
        ]  # fmt: skip
        assert (failed.reason, failed.error) == (None, "again 2")

    def test_the_first_setback_and_the_newest_are_kept(self, worker: QueueAdapter) -> None:
        """The others are not: a job must not grow with its attempts."""
        worker.enqueue(self.say())
        job_id = self.fail(worker, "boom %d", MOST_NEWEST + 4)
        kept = [each.attempt for each in worker.peek(job_id).history]

        assert kept == [1, *range(5, MOST_NEWEST + 5)]

    def test_all_that_is_kept_is_bounded(self, worker: QueueAdapter) -> None:
        """Whatever handlers say; of each text the end is kept, of the newest the most."""
        worker.enqueue(self.say())
        job_id = self.fail(worker, "x" * 50_000 + " the cause %d", MOST_NEWEST + 2)
        history = worker.peek(job_id).history

        assert sum(len(each.error) for each in history) <= MOST_TEXT
        assert len(history[-1].error) >= LONGEST_ERROR
        assert [each.error.rpartition("x")[2] for each in history] == [
            f" the cause {each.attempt}" for each in history
        ]

    def test_an_error_may_be_any_text(self, worker: QueueAdapter) -> None:
        """A traceback may quote what is no Unicode, and zero bytes."""
        worker.enqueue(self.say())
        job_id = self.fail(worker, "odd \udc80 \0 \x1b[2J\u2028 größe %d")
        (told,) = worker.peek(job_id).history

        assert told.error == "odd \\udc80 \0 \x1b[2J\u2028 größe 1"

    def test_a_burial_may_tell_of_the_attempt_that_is_to_blame(self, worker: QueueAdapter) -> None:
        """As for a job that killed its worker, which the next worker buries."""
        job_id = worker.enqueue(self.say())
        death = msgspec.structs.replace(DEATH, at=self.clock.now())
        worker.settle(Bury(reserve(worker), BuryReason.CRASHED, "killed by signal 11", death))
        (told,) = self.queue().peek(job_id).history

        assert (told.outcome, told.reason, told.signal) == ("buried", "crashed", 11)
        assert (told.at, told.max_rss, told.stack) == (death.at, DEATH.max_rss, DEATH.stack)

    @pytest.mark.parametrize(
        ("fate", "max_crashes", "outcome", "reason"),
        [
            (Fate.CRASHED, 2, "retried", "crash"),
            (Fate.CRASHED, 1, "buried", "crashed"),
            (Fate.GONE, 1, "retried", "gone"),
            (Fate.CUT_OFF, 1, "retried", "cut_off"),
        ],
    )
    def test_the_end_of_its_worker_is_told(
        self, worker: QueueAdapter, fate: Fate, max_crashes: int, outcome: str, reason: str
    ) -> None:
        """With all that was seen of it."""
        if not self.rescues:
            pytest.skip("this engine frees the jobs of the dead by itself")
        job_id = worker.enqueue(self.say())
        reserve(worker)
        verdict = Verdict(fate, "how it ended", DEATH)
        self.queue().rescue(lambda _owner: verdict, CrashLimit(max_crashes))
        (told,) = self.queue().peek(job_id).history

        assert (told.attempt, told.outcome, told.reason) == (1, outcome, reason)
        assert (told.worker, told.host) == (str(HELD_BY), os.uname().nodename)
        assert (told.signal, told.out_of_memory, told.max_rss, told.cpu) == (
            DEATH.signal, DEATH.out_of_memory, DEATH.max_rss, DEATH.cpu,
        )  # fmt: skip
        assert (told.error, told.stack) == (DEATH.error, DEATH.stack)
