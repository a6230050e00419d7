"""What only the file queue has: files, durability, several adapters in one process."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpo_pool.clock import ManualClock
from pulpo_pool.contracts.bench import drain, reserve
from pulpo_pool.message import Message
from pulpo_pool.queues.adapter import (
    BuryReason,
    Commit,
    CrashLimit,
    Fate,
    JobState,
    Owner,
    QueueStats,
    Verdict,
)
from pulpo_pool.queues.file import FileQueueAdapter
from pulpo_pool.queues.history import LONGEST_ERROR

BODIES = st.dictionaries(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.db")


def say(text="", **fields):
    return Message(request_type="say", body={"text": text}, **fields)


@pytest.fixture(scope="module")
def shared_queue(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("bodies") / "queue.db")
    with FileQueueAdapter(path, durability="normal") as queue:
        yield queue


@given(body=BODIES, priority=st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_any_body_comes_back_as_it_was(shared_queue, body, priority):
    message = Message(request_type="say", body=body, priority=priority)
    shared_queue.enqueue(message)
    held = reserve(shared_queue)
    shared_queue.commit(held)

    assert held.message == message


def test_jobs_outlive_the_adapter_that_published_them(path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue_many([say("ready"), say("later", delay=1_000)])

    with FileQueueAdapter(path) as queue:
        assert queue.stats() == {"default": QueueStats(ready=1, delayed=1)}
        assert drain(queue) == ["ready"]


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_both_durabilities_store_the_same(path, durability):
    with FileQueueAdapter(path, durability=durability) as queue:
        queue.enqueue(say("one"))
        queue.enqueue_many([say("two"), say("three")])

        assert drain(queue) == ["one", "two", "three"]


def test_the_last_to_close_leaves_one_file_of_data(path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue(say())

    assert not Path(path + "-wal").exists()


def test_the_log_stays_bounded_while_the_queue_is_busy(path):
    """Twelve megabytes go through a log that is checkpointed at four."""
    with FileQueueAdapter(path, durability="normal") as queue:
        for _ in range(60):
            queue.enqueue_many([say("x" * 1_000) for _ in range(200)])
            drain(queue)

        assert Path(path + "-wal").stat().st_size < 12_000_000


def test_the_end_of_a_long_error_is_kept(path):
    """A traceback says at its end what happened."""
    with FileQueueAdapter(path) as queue:
        job_id = queue.enqueue(say())
        queue.bury(reserve(queue), reason=BuryReason.FATAL, error="x" * 100_000 + " the cause")
        error = queue.peek(job_id).error

    assert error.endswith(" the cause")
    assert len(error) < LONGEST_ERROR + 10


def test_evidence_may_be_any_text(path):
    with FileQueueAdapter(path, owner=Owner("pool", "start", 0, 1)) as queue:
        job_id = queue.enqueue(say())
        reserve(queue)
        queue.rescue(lambda _owner: Verdict(Fate.CRASHED, "\udc80" + "x" * 100_000), CrashLimit())

        assert len(queue.peek(job_id).error) <= LONGEST_ERROR + 10


@pytest.mark.parametrize(
    "columns",
    [
        {"state": 1},
        {"state": 2},
        {"state": 0, "due": 1.0},
        {"state": 7},
        {"state": "ready"},
        {"priority": "high"},
        {"priority": -1},
    ],
)
def test_rows_that_would_confuse_the_queue_cannot_be_written_by_hand(path, columns):
    row = {"queue": "default", "state": 0, "priority": 5, "due": None, "raw": b"{}"} | columns
    FileQueueAdapter(path).close()
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.IntegrityError):
        database.execute(
            "INSERT INTO jobs (queue, state, priority, due, raw)"
            " VALUES (:queue, :state, :priority, :due, :raw)",
            row,
        )


@pytest.mark.parametrize("owner", ["", "somebody", "a/b/c/d", "a/b/²/1", "a/b/1/2/3"])
def test_owners_written_by_hand_are_never_rescued(path, owner):
    with FileQueueAdapter(path, owner=Owner("pool", "start", 0, 1)) as queue:
        queue.enqueue(say())
        reserve(queue)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE jobs SET owner = ?", (owner,))

        assert queue.rescue(lambda _owner: Verdict(Fate.GONE), CrashLimit()) == []


@pytest.mark.parametrize("text", ["", "{", "[3]", '[{"at": "noon"}]', "\0"])
def test_a_history_that_somebody_harmed_is_none(path, text):
    with FileQueueAdapter(path) as queue:
        job_id = queue.enqueue(say())
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE jobs SET history = ?", (text,))
        harmed = queue.peek(job_id).history
        queue.rollback(reserve(queue), error="boom")

        assert harmed == ()
        assert [each.error for each in queue.peek(job_id).history] == ["boom"]


def test_a_database_of_an_older_version_is_given_what_it_lacks(path):
    """With its jobs; adapters that have it open meanwhile do not notice."""
    with FileQueueAdapter(path) as queue:
        job_id = queue.enqueue(say("old"))
        with closing(sqlite3.connect(path)) as database:
            database.execute("ALTER TABLE jobs DROP COLUMN history")
        held = reserve(queue)
        with FileQueueAdapter(path) as newer:
            queue.rollback(held, error="boom")
            record = newer.peek(job_id)

    assert record.message().body == {"text": "old"}
    assert [each.error for each in record.history] == ["boom"]


def test_a_rolled_back_error_replaces_the_last_one(path):
    with FileQueueAdapter(path) as queue:
        job_id = queue.enqueue(say())
        queue.rollback(reserve(queue), error="first")
        queue.rollback(reserve(queue), error="second")

        assert queue.peek(job_id).error == "second"


def test_a_lease_that_ended_may_be_settled_until_somebody_takes_the_job(path):
    """A slow worker's work counts, as long as nobody else has begun it."""
    clock = ManualClock()
    with FileQueueAdapter(path, clock=clock, lease=10) as queue:
        queue.enqueue_many([say("one"), say("two")])
        one, two = reserve(queue), reserve(queue)
        clock.advance(11)
        queue.touch(one)
        queue.commit(two)

        assert queue.stats() == {"default": QueueStats(reserved=1)}
        assert queue.dequeue() is None


def test_thousands_that_fall_due_at_once_are_all_found(path):
    """More than one transaction may promote."""
    clock = ManualClock()
    with FileQueueAdapter(path, clock=clock, durability="normal") as queue:
        queue.enqueue_many([say(n, delay=10, clock=clock) for n in range(2_500)])
        clock.advance(11)

        assert len(list(queue.list_jobs(JobState.READY))) == 2_500
        assert len(drain(queue)) == 2_500


def test_workers_promote_thousands_without_help(path):
    clock = ManualClock()
    with FileQueueAdapter(path, clock=clock, durability="normal") as queue:
        queue.enqueue_many([say(n, delay=10, clock=clock) for n in range(2_500)])
        clock.advance(11)

        assert len(drain(queue)) == 2_500


def test_closing_one_adapter_does_not_disturb_another_in_the_process(path):
    """Closing any descriptor of a file drops a process's record locks on it."""
    with FileQueueAdapter(path) as first:
        first.enqueue_many([say(n) for n in range(50)])
        done, settlement = [], None
        while True:
            FileQueueAdapter(path).close()
            _, held = first.settle_and_dequeue(settlement)
            if held is None:
                break
            done.append(held.message.body["text"])
            settlement = Commit(held)

    assert done == list(range(50))


@pytest.mark.parametrize("round_", range(20))  # each makes a new file: that is where it failed
def test_threads_that_open_and_close_adapters_lose_nothing(path, round_):
    """Whatever that does to the locks, SQLite's transactions hold, and nobody is turned away."""
    problems = []

    def publish(first):
        try:
            for number in range(first, first + 20):
                with FileQueueAdapter(path, durability="normal") as queue:
                    queue.enqueue(say(number))
        except Exception as error:  # noqa: BLE001 - reported by the test
            problems.append(error)

    threads = [threading.Thread(target=publish, args=(first,)) for first in range(0, 80, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with FileQueueAdapter(path) as queue:
        found = sorted(drain(queue))

    assert problems == []
    assert found == list(range(80))


def test_a_worker_can_touch_while_another_thread_settles(path):
    """One adapter, two threads, one connection."""
    with FileQueueAdapter(path, durability="normal", queues=["default"]) as queue:
        queue.enqueue_many([say(n) for n in range(101)])
        kept = reserve(queue)
        problems = []

        def touch():
            try:
                for _ in range(100):
                    queue.touch(kept)
            except Exception as error:  # noqa: BLE001 - reported by the test
                problems.append(error)

        thread = threading.Thread(target=touch)
        thread.start()
        rest = drain(queue)
        thread.join(60)

        assert problems == []
        assert len(rest) == 100
        queue.commit(kept)
