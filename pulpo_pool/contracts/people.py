"""The contract of what people do: look, count, revive, remove."""

from __future__ import annotations

import pytest

from pulpo_pool.codec import Codec
from pulpo_pool.contracts.bench import DEADLINE, HELD_BY, Bench, counts, drain, reserve, said
from pulpo_pool.errors import JobReserved, MessageTooLarge, NoSuchJob, ReservationLost
from pulpo_pool.queues.adapter import BuryReason, JobState, QueueAdapter, QueueStats, Rollback
from pulpo_pool.queues.records import describe

STRANGE_IDS = ("", "0", "-1", "999999", "9" * 40, "1.5", " 1", "abc", "٣", "1\0", "\udc80")


class PeopleContract(Bench):
    """peek, list_jobs, kick, kick_all, replace, delete, purge, stats."""

    def one_in_each_state(self, queue: QueueAdapter, name: str = "default") -> dict[JobState, str]:
        """Put a job into each state; return their ids."""
        buried = queue.enqueue(self.say("buried", queue=name, priority=0))
        queue.bury(reserve(queue), reason=BuryReason.FATAL, error="fatal")
        reserved = queue.enqueue(self.say("reserved", queue=name, priority=1))
        reserve(queue)
        delayed = queue.enqueue(self.say("delayed", queue=name, delay=5 * self.moment))
        ready = queue.enqueue(self.say("ready", queue=name))
        return {
            JobState.READY: ready,
            JobState.DELAYED: delayed,
            JobState.RESERVED: reserved,
            JobState.BURIED: buried,
        }

    def one_in(self, state: JobState, queue: QueueAdapter, name: str = "default") -> str:
        """Put a job into a state that nobody holds it in, to stay there; return its id."""
        delay = 600 * self.moment if state is JobState.DELAYED else None
        job_id = queue.enqueue(self.say("old", queue=name, delay=delay))
        if state is JobState.BURIED:
            queue.bury(reserve(queue), reason=BuryReason.FATAL, error="fatal")
        return job_id

    def listed(self, queue: QueueAdapter, state: JobState, *queues: str) -> list[object]:
        """Return the texts of the jobs in a state."""
        return [job.message().body["text"] for job in queue.list_jobs(state, queues=queues)]

    def test_peek_shows_a_job_in_any_state(self) -> None:
        """And leaves it there."""
        queue = self.queue(owner=HELD_BY, lease=20 * self.moment)
        for state, job_id in self.one_in_each_state(queue).items():
            record = queue.peek(job_id)

            assert (record.job_id, record.state, record.queue) == (job_id, state, "default")
            assert record.message().body["text"] == state.value
            assert (record.due is not None) == (state in (JobState.DELAYED, JobState.RESERVED))
        assert counts(queue) == QueueStats(1, 1, 1, 1)

    def test_a_record_can_be_described(self) -> None:
        """As plain data, for `peek --json`."""
        queue = self.queue()
        job_id = queue.enqueue(self.say("hello", priority=3))
        told = describe(queue.peek(job_id))

        assert (told["job_id"], told["state"], told["priority"]) == (job_id, "ready", 3)
        assert (told["request_type"], told["body"]) == ("say", {"text": "hello"})

    def test_a_job_that_is_due_is_shown_as_ready(self) -> None:
        """People see what the next dequeue would see."""
        queue = self.queue(lease=self.moment)
        due = self.clock.now() + self.moment
        delayed = queue.enqueue(self.say("delayed", delay=self.moment))
        reserved = queue.enqueue(self.say("reserved"))
        reserve(queue)
        self.pass_time(1.5 * self.moment)
        waiting = queue.waiting_since()

        assert queue.peek(delayed).state is JobState.READY
        assert queue.peek(reserved).state is JobState.READY
        assert self.listed(queue, JobState.READY) == ["delayed", "reserved"]
        assert self.listed(queue, JobState.DELAYED) == []
        assert counts(queue) == QueueStats(ready=2)
        assert not waiting or waiting == pytest.approx({"default": due}, abs=1)

    @pytest.mark.parametrize("job_id", STRANGE_IDS)
    def test_an_id_of_nothing_is_no_such_job(self, job_id: str) -> None:
        """Whatever was typed."""
        queue = self.queue()
        queue.enqueue(self.say())

        with pytest.raises(NoSuchJob):
            queue.peek(job_id)
        with pytest.raises(NoSuchJob):
            queue.delete(job_id)
        with pytest.raises(NoSuchJob):
            queue.kick([job_id])
        with pytest.raises(NoSuchJob):
            queue.replace(job_id, self.say("other"))

    def test_each_state_can_be_listed(self) -> None:
        """A job is in one list only."""
        queue = self.queue()
        self.one_in_each_state(queue)

        assert {state: self.listed(queue, state) for state in JobState} == {
            state: [state.value] for state in JobState
        }

    def test_lists_are_in_the_order_in_which_jobs_would_run(self) -> None:
        """By priority, then first in, first out, across queues."""
        queue = self.queue()
        for text, name, priority in (("c", "x", 9), ("a", "y", 1), ("d", "y", 9), ("b", "x", 2)):
            queue.enqueue(self.say(text, queue=name, priority=priority))

        assert self.listed(queue, JobState.READY) == ["a", "b", "c", "d"]

    def test_delayed_jobs_are_listed_by_their_date(self) -> None:
        """The next one first."""
        queue = self.queue()
        for text, delay in (("b", 2), ("c", 3), ("a", 1)):
            queue.enqueue(self.say(text, delay=delay * self.moment))

        assert self.listed(queue, JobState.DELAYED) == ["a", "b", "c"]

    @pytest.mark.parametrize("state", list(JobState))
    def test_lists_can_be_limited_to_queues(self, state: JobState) -> None:
        """In every state."""
        for name in ("x", "y", "z"):
            self.one_in_each_state(self.queue(queues=[name]), name)
        found = self.queue().list_jobs(state, queues=["x", "z"])

        assert sorted(job.queue for job in found) == ["x", "z"]

    def test_a_long_list_is_complete(self) -> None:
        """Longer than a page of whatever size."""
        if not self.sees_every_job:
            pytest.skip("this engine shows the first jobs only")
        queue = self.queue()
        queue.enqueue_many([self.say(n, priority=n % 3) for n in range(700)])

        assert self.listed(queue, JobState.READY) == sorted(range(700), key=lambda n: n % 3)

    def test_jobs_may_be_deleted_while_they_are_listed(self) -> None:
        """A list is no lock."""
        queue = self.queue()
        queue.enqueue_many([self.say(n) for n in range(5)])
        for job in queue.list_jobs(JobState.READY):
            queue.delete(job.job_id)

        assert queue.stats() == {}

    def test_a_kicked_job_starts_afresh(self) -> None:
        """Attempts, reason and error are as if it were new."""
        queue = self.queue()
        job_id = queue.enqueue(self.say())
        queue.bury(reserve(queue), reason=BuryReason.EXHAUSTED, error="too often")

        assert queue.kick([job_id]) == 1
        record = queue.peek(job_id)
        assert (record.state, record.reason, record.error) == (JobState.READY, None, None)
        assert reserve(queue).attempt == 1

    def test_a_delayed_job_can_be_kicked(self) -> None:
        """Somebody is impatient."""
        queue = self.queue()
        job_id = queue.enqueue(self.say("now", delay=5 * self.moment))

        assert queue.kick([job_id]) == 1
        assert said(queue.dequeue()) == "now"

    def test_kicking_what_is_ready_or_reserved_changes_nothing(self) -> None:
        """The holder of a reserved job keeps it."""
        queue = self.queue()
        first, second = queue.enqueue_many([self.say(1), self.say(2)])
        held = reserve(queue)

        assert queue.kick([first, second]) == 0
        queue.commit(held)

    def test_a_kick_of_several_with_one_unknown_kicks_none(self) -> None:
        """The mistake is told before anything is changed."""
        queue = self.queue()
        known = queue.enqueue(self.say(delay=5 * self.moment))

        with pytest.raises(NoSuchJob):
            queue.kick([known, "999999"])

        assert counts(queue) == QueueStats(delayed=1)

    def test_all_buried_jobs_can_be_kicked(self) -> None:
        """Of the queues named, or of all; delayed ones are left alone."""
        for name in ("x", "y", "z"):
            self.one_in_each_state(self.queue(queues=[name]), name)
        queue = self.queue()

        assert queue.kick_all(queues=["x"]) == 1
        assert queue.kick_all() == 2  # noqa: PLR2004
        assert queue.kick_all() == 0
        assert queue.stats()["y"] == QueueStats(ready=2, delayed=1, reserved=1)

    @pytest.mark.parametrize("state", [JobState.READY, JobState.DELAYED, JobState.BURIED])
    def test_a_replaced_job_stays_where_it_is(self, state: JobState) -> None:
        """In its state and queue, with its date; only the message is another."""
        queue = self.queue(queues=["x"])
        before = queue.peek(self.one_in(state, queue, "x"))
        message = self.say("new", header={"colour": "blue"}, queue="x")

        after = queue.peek(queue.replace(before.job_id, message))
        assert (after.state, after.queue, after.priority) == (state, "x", before.priority)
        assert after.message() == message
        assert counts(queue, "x") == QueueStats(**{state.value: 1})
        if after.due is not None and before.due is not None:
            assert abs(after.due - before.due) < DEADLINE
        if self.replaces_in_place:
            assert after.job_id == before.job_id
            assert after.attempts == before.attempts
            assert after.due == before.due
        if self.keeps_evidence:
            assert (after.reason, after.error) == (before.reason, before.error)
            assert after.history == before.history

    def test_a_replaced_job_runs_once_and_as_it_says_now(self) -> None:
        """Whatever state it was in."""
        queue = self.queue()
        replaced = {
            state: queue.replace(self.one_in(state, queue), self.say(f"new {state}"))
            for state in (JobState.BURIED, JobState.DELAYED, JobState.READY)
        }
        kicked = queue.kick(replaced.values())

        assert kicked == 2  # noqa: PLR2004
        assert sorted(map(str, drain(queue))) == ["new buried", "new delayed", "new ready"]

    def test_a_replaced_jobs_history_goes_on(self) -> None:
        """What failed with the old message is told beside what fails with the new one."""
        if not self.keeps_evidence:
            pytest.skip("this engine keeps no reasons")
        queue = self.queue()
        job_id = queue.enqueue(self.say("old"))
        queue.bury(reserve(queue), reason=BuryReason.FATAL, error="first")
        queue.kick([job_id])
        job_id = queue.replace(job_id, self.say("new"))
        kicked = queue.peek(job_id)
        queue.bury(reserve(queue), reason=BuryReason.FATAL, error="second")
        buried = queue.peek(job_id)

        assert (kicked.reason, kicked.error) == (None, None)
        assert [each.error for each in buried.history] == ["first", "second"]
        assert (buried.reason, buried.error) == ("fatal", "second")

    def test_a_reserved_job_is_not_replaced(self) -> None:
        """Its holder works on what it was given."""
        queue = self.queue()
        job_id = queue.enqueue(self.say("old"))
        held = reserve(queue)

        with pytest.raises(JobReserved):
            queue.replace(job_id, self.say("new"))

        assert queue.peek(job_id).message().body == {"text": "old"}
        assert counts(queue) == QueueStats(reserved=1)
        queue.commit(held)

    def test_another_priority_holds(self) -> None:
        """A ready job runs in its new turn, also after it was rolled back."""
        queue = self.queue()
        first, _, third = queue.enqueue_many(
            [self.say(text, priority=5) for text in ("a", "b", "c")]
        )
        queue.replace(first, self.say("a", priority=9))
        queue.replace(third, self.say("c", priority=1))
        queue.rollback(reserve(queue))

        assert self.listed(queue, JobState.READY) == ["c", "b", "a"]
        assert drain(queue) == ["c", "b", "a"]

    def test_a_message_that_is_too_large_replaces_nothing(self) -> None:
        """The job is as it was."""
        queue = self.queue(codec=Codec(largest_message=1_000))
        job_id = queue.enqueue(self.say("old"))

        with pytest.raises(MessageTooLarge):
            queue.replace(job_id, self.say("x" * 1_000))

        assert queue.peek(job_id).message().body == {"text": "old"}
        assert drain(queue) == ["old"]

    def test_what_is_no_message_can_be_replaced_by_one(self) -> None:
        """Its priority is the engine's affair then."""
        queue = self.queue()
        self.put_raw("default", b"\xffno message")
        [record] = queue.list_jobs(JobState.READY)
        queue.replace(record.job_id, self.say("new"))

        assert drain(queue) == ["new"]

    def test_a_job_in_any_state_can_be_deleted(self) -> None:
        """It is gone."""
        queue = self.queue()
        for job_id in self.one_in_each_state(queue).values():
            queue.delete(job_id)

        assert queue.stats() == {}

    def test_a_queue_waits_since_its_first_job_could_run(self) -> None:
        """A queue without ready jobs waits for nobody; an engine may be unable to tell."""
        queue = self.queue(queues=["y"])
        published = self.clock.now()
        for name in ("x", "y"):
            queue.enqueue(self.say("ready", queue=name))
        queue.enqueue(self.say("later", queue="z", delay=5 * self.moment))
        before = queue.waiting_since()
        queue.commit(reserve(queue))

        if before:
            assert before == pytest.approx({"x": published, "y": published}, abs=1)
            assert list(queue.waiting_since()) == ["x"]

    def test_the_holder_of_a_deleted_job_has_lost_it(self) -> None:
        """Rolling back does not bring it back."""
        queue = self.queue()
        job_id = queue.enqueue(self.say())
        held = reserve(queue)
        queue.delete(job_id)

        with pytest.raises(ReservationLost):
            queue.settle(Rollback(held))

        assert queue.stats() == {}

    @pytest.mark.parametrize("state", list(JobState))
    def test_a_purge_removes_all_jobs_in_a_state(self, state: JobState) -> None:
        """Of all queues, and no others."""
        if state is JobState.RESERVED and not self.removes_reserved:
            pytest.skip("this engine lets only its holder remove a reserved job")
        for name in ("x", "y"):
            self.one_in_each_state(self.queue(queues=[name]), name)
        queue = self.queue()

        assert queue.purge(state) == 2  # noqa: PLR2004
        assert {getattr(stats, state) for stats in queue.stats().values()} == {0}
        assert sum((stats for stats in queue.stats().values()), QueueStats()).ready in (0, 2)

    def test_a_purge_can_be_limited_to_queues(self) -> None:
        """The others keep their jobs."""
        queue = self.queue(queues=["x", "y"])
        queue.enqueue_many([self.say(name, queue=name) for name in ("x", "y", "x")])

        assert queue.purge(JobState.READY, queues=["x"]) == 2  # noqa: PLR2004
        assert drain(queue) == ["y"]

    def test_a_large_purge_is_complete(self) -> None:
        """Whatever the engine does at once."""
        if not self.sees_every_job:
            pytest.skip("this engine shows the first jobs only")
        queue = self.queue()
        queue.enqueue_many([self.say(n) for n in range(2_500)])

        assert queue.purge(JobState.READY) == 2_500  # noqa: PLR2004
        assert queue.stats() == {}

    def test_who_counts_the_jobs_in_front_counts_right(self) -> None:
        """Ready ones of its queue, by priority, then first in, first out; or nobody counts."""
        queue = self.queue(queues=["x", "y"])
        ids = queue.enqueue_many(
            self.say(n, queue=name, priority=priority)
            for n, (name, priority) in enumerate((("x", 5), ("x", 1), ("y", 0), ("x", 5), ("x", 9)))
        )
        queue.enqueue(self.say(queue="x", priority=0, delay=5 * self.moment))
        counted = [queue.jobs_in_front(queue.peek(job_id)) for job_id in ids]

        assert counted in ([1, 0, 0, 2, 3], [None] * 5)

    def test_a_job_can_be_found_by_its_messages_id(self) -> None:
        """Among strangers' bytes that speak of it, too; or the engine says that it cannot."""
        queue = self.queue()
        self.put_raw("default", b'no message, but "id":"id-\xc3\xa4 1"')
        other, job_id = queue.enqueue_many([self.say("mentions id-\u00e4 1"), self.say("\u00e4 1")])
        found = queue.find_message("id-\u00e4 1")

        assert found == (job_id if queue.finds_messages else None)
        assert found != other
        assert queue.find_message("id-2") is None

    def test_stats_count_each_queue_by_state(self) -> None:
        """Queues without jobs are not there."""
        queue = self.queue(queues=["x", "y"])
        self.one_in_each_state(queue, "x")
        queue.enqueue(self.say(queue="y"))

        assert queue.stats() == {"x": QueueStats(1, 1, 1, 1), "y": QueueStats(ready=1)}
