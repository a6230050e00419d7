"""Jobs that are done: gone with their settlement, or kept for a while where the URL says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from pulpo_pool.clock import ManualClock
from pulpo_pool.contracts.bench import reserve
from pulpo_pool.errors import NoSuchJob, ReservationLost
from pulpo_pool.message import Message
from pulpo_pool.queues import file_people
from pulpo_pool.queues.adapter import Commit, JobState, KeptState, Owner, QueueStats, Settled
from pulpo_pool.queues.file import FileQueueAdapter
from pulpo_pool.queues.memory import MemoryQueueAdapter

KEPT = 100.0  # seconds


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.db")


@pytest.fixture
def clock():
    return ManualClock(now=1_000_000.0)


@pytest.fixture
def opened(path, clock):
    """Open the queue, as often as wanted; all are closed in the end."""
    adapters = []

    def opened(**options):
        queue = FileQueueAdapter(path, clock=clock, **{"keep_done": KEPT} | options)
        adapters.append(queue)
        return queue

    yield opened
    for queue in adapters:
        queue.close()


def say(**fields):
    return Message(request_type="say", body={"text": "hello"}, **fields)


def work_off(queue, number):
    """Publish so many jobs and commit each; return their ids."""
    job_ids = queue.enqueue_many([say() for _ in range(number)])
    settlement = None
    for _ in job_ids:
        _, held = queue.settle_and_dequeue(settlement)
        settlement = Commit(held)
    queue.settle(settlement)
    return job_ids


def ids(records):
    return [record.job_id for record in records]


def test_a_done_job_is_gone_unless_the_queue_was_told_to_keep_it(opened):
    queue = opened(keep_done=0.0)
    [job_id] = work_off(queue, 1)

    assert list(queue.list_done()) == []
    assert "has no keep_done" in queue.unseen
    with pytest.raises(NoSuchJob):
        queue.peek(job_id)


def test_where_none_is_kept_a_turn_has_not_one_more_statement(opened):
    def statements(queue):
        queue.enqueue_many([say(), say()])
        held = reserve(queue)
        seen = []
        queue._store._session._connection.set_trace_callback(seen.append)
        queue.settle_and_dequeue(Commit(held))
        queue._store._session._connection.set_trace_callback(None)
        return [statement.split()[0] for statement in seen]

    without, kept = statements(opened(keep_done=0.0)), statements(opened())

    assert without == ["BEGIN", "DELETE", "SELECT", "UPDATE", "COMMIT"]
    assert kept == ["BEGIN", "INSERT", "DELETE", "SELECT", "UPDATE", "COMMIT"]


def test_what_is_kept_is_the_job_and_how_it_went(opened, clock):
    queue = opened(owner=Owner("pool", "now", 3, 17))
    job_id = queue.enqueue(say(id="order-7", priority=5))
    queue.rollback(reserve(queue), error="ValueError: not yet", reason="exception")
    clock.advance(10)
    queue.settle_and_dequeue(Commit(reserve(queue), 1.5))
    clock.advance(1)

    [kept] = queue.list_done()
    assert queue.peek(job_id) == kept
    assert (kept.job_id, kept.state, kept.queue) == (job_id, KeptState.DONE, "default")
    assert (kept.priority, kept.attempts, kept.crashes) == (5, 2, 0)
    assert (kept.message().id, kept.message().body) == ("order-7", {"text": "hello"})
    assert Owner.read(kept.owner) == queue.owner
    assert [setback.error for setback in kept.history] == ["ValueError: not yet"]
    assert (kept.end.at, kept.end.seconds, kept.end.kept_until) == (
        1_000_010.0, 1.5, 1_000_010.0 + KEPT,
    )  # fmt: skip
    assert queue.find_message("order-7") == job_id
    assert queue.stats() == {}


def test_a_job_that_was_discarded_says_so(opened):
    queue = opened()
    job_id = queue.enqueue(say())
    queue.settle(Commit(reserve(queue), expired=True))

    assert queue.peek(job_id).state is KeptState.EXPIRED


def test_who_lost_the_lease_keeps_nothing(opened, clock):
    """The job is somebody else's affair, and not done."""
    queue = opened(lease=5)
    job_id = queue.enqueue(say())
    lost = reserve(queue)
    clock.advance(6)
    held = reserve(queue)

    with pytest.raises(ReservationLost):
        queue.commit(lost)
    assert list(queue.list_done()) == []
    assert queue.peek(job_id).state is JobState.RESERVED
    queue.commit(held)
    assert ids(queue.list_done()) == [job_id]


def test_a_settlement_that_is_made_again_is_lost_and_harmless(opened):
    queue = opened()
    queue.enqueue(say())
    held = reserve(queue)
    queue.commit(held)

    assert queue.settle_and_dequeue(Commit(held))[0] is Settled.LOST
    assert len(list(queue.list_done())) == 1


def test_the_last_done_comes_first_page_by_page_and_of_the_queues_that_are_named(
    opened, clock, monkeypatch
):
    monkeypatch.setattr(file_people, "_PAGE", 2)
    queue = opened(queues=["default", "mail"])
    done = []
    for number in range(7):
        job_id = queue.enqueue(say(queue="mail" if number % 3 == 0 else "default"))
        clock.advance(number % 2)  # some in the same moment
        queue.commit(reserve(queue))
        done.insert(0, job_id)

    assert ids(queue.list_done()) == done
    assert ids(queue.list_done(queues=["mail"])) == [done[0], done[3], done[6]]


def test_each_job_goes_when_its_own_time_is_over(opened, clock):
    """As it was when the job was done: another adapter's setting takes nothing away."""
    long, short, off = opened(), opened(keep_done=KEPT / 2), opened(keep_done=0.0)
    [early] = work_off(long, 1)
    clock.advance(KEPT * 0.4)
    [soon] = work_off(short, 1)
    [late] = work_off(long, 1)
    for queue in (long, short, off):
        assert queue.tidy() is False
    at_first = set(ids(off.list_done()))
    clock.advance(KEPT * 0.55)
    off.tidy()
    then = set(ids(off.list_done()))
    clock.advance(KEPT)
    off.tidy()

    assert at_first == {early, soon, late}
    assert then == {early, late}
    assert list(off.list_done()) == []


def test_many_go_in_portions_and_nobody_waits_for_all_of_them(opened, clock, monkeypatch):
    monkeypatch.setattr(file_people, "_BATCH", 2)
    monkeypatch.setattr(file_people, "_BATCHES", 2)
    queue = opened()
    work_off(queue, 9)
    clock.advance(KEPT)
    rounds = []
    for _ in range(4):
        more = queue.tidy()
        rounds.append((more, len(list(queue.list_done()))))

    assert rounds == [(True, 5), (True, 1), (False, 0), (False, 0)]


def test_people_can_forget_them_sooner(opened):
    queue = opened()
    first, *others = work_off(queue, 5)
    waiting = queue.enqueue(say())
    queue.delete(first)
    with pytest.raises(NoSuchJob):
        queue.delete(first)
    left = ids(queue.list_done())
    forgotten = queue.purge_done()

    assert left == others[::-1]
    assert (forgotten, queue.purge_done()) == (4, 0)
    assert queue.stats() == {"default": QueueStats(ready=1)}
    assert queue.peek(waiting).state is JobState.READY


def test_what_is_done_can_be_read_only(opened):
    queue = opened()
    [job_id] = work_off(queue, 1)

    with pytest.raises(NoSuchJob, match="is gone, and kept for reading only: publish a new one"):
        queue.kick([job_id])
    with pytest.raises(NoSuchJob, match="is gone"):
        queue.replace(job_id, say())
    with pytest.raises(NoSuchJob, match="there is no job '99'"):
        queue.kick(["99"])


def test_a_queue_of_an_older_program_gets_the_table(path, opened):
    opened(keep_done=0.0).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE done")
    queue = opened()
    done = work_off(queue, 1)

    assert ids(queue.list_done()) == done


def test_an_id_that_people_gave_out_again_harms_no_settlement(path, opened):
    queue = opened()
    [job_id] = work_off(queue, 1)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE sqlite_sequence SET seq = 0")
    again = work_off(queue, 1)

    assert again == [job_id] == ids(queue.list_done())


def test_other_engines_say_that_they_keep_none():
    with MemoryQueueAdapter() as queue:
        assert list(queue.list_done()) == []
        assert "the file queue does" in queue.unseen
        assert queue.purge_done() == 0
