"""The file queue among processes: nothing twice, nothing lost, everybody woken."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

import pytest
from pool import eventually
from queue_children import children, first_to_tell

from pulpo_pool.clock import ManualClock, SystemClock
from pulpo_pool.contracts.bench import DEADLINE, LONG, drain, reserve, said
from pulpo_pool.errors import QueueUnavailable
from pulpo_pool.message import Message
from pulpo_pool.queues.adapter import Commit, Owner, QueueStats, Rollback
from pulpo_pool.queues.doorbell import Doorbell, Heard
from pulpo_pool.queues.file import FileQueueAdapter
from pulpo_pool.queues.file_door import CALLERS, DOOR, STEP, WAITED, WORKERS, WriterQueue


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.db")


def say(text):
    return Message(request_type="say", body={"text": text})


def listening(path, **options):
    """Return an adapter that is at its doorbell already, and the number of its looks."""
    queue = FileQueueAdapter(path, **options)
    looks = []
    take_woken = queue._turns.take_woken

    def counted(cursor):
        looks.append(1)
        return take_woken(cursor)

    queue._turns.take_woken = counted
    return queue, looks


def test_processes_drain_a_queue_and_each_job_is_done_once(path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue_many([say(n) for n in range(2_000)])

    def work(tell, index):
        done, settlement = [], None
        with FileQueueAdapter(path, owner=Owner("pool", "start", index, index)) as queue:
            while (held := queue.settle_and_dequeue(settlement)[1]) is not None:
                done.append(said(held))
                settlement = Commit(held)
        return done

    with children(4, work) as workers:
        shares = [worker.result() for worker in workers]

    assert sorted(itertools.chain(*shares)) == list(range(2_000))
    assert all(share == sorted(share) for share in shares)
    with FileQueueAdapter(path) as queue:
        assert queue.stats() == {}


def test_processes_publish_and_consume_at_once_without_loss(path):
    FileQueueAdapter(path).close()

    def publish(tell, index):
        with FileQueueAdapter(path, durability="normal") as queue:
            for number in range(200):
                queue.enqueue(say(f"{index}-{number}"))

    def consume(tell, index, total):
        done = []
        with FileQueueAdapter(path) as queue:
            while (held := queue.dequeue(LONG)) is not None:
                text = said(held)
                queue.commit(held)
                if text == "stop":
                    return done
                done.append(text)
        return done

    with children(3, consume, 600) as consumers:
        with children(3, publish) as publishers:
            for publisher in publishers:
                publisher.result()
        with FileQueueAdapter(path) as queue:
            queue.enqueue_many([say("stop")] * 3)
        done = [text for consumer in consumers for text in consumer.result()]

    assert sorted(done) == sorted(f"{i}-{n}" for i in range(3) for n in range(200))


def test_killing_processes_in_the_middle_loses_nothing(path):
    """What was accepted is there, whatever was being written when SIGKILL came."""

    def churn(tell, index, life):
        with FileQueueAdapter(path, durability="normal", lease=1_000) as queue:
            settlement = None
            for number in itertools.count():
                text = f"{life}-{index}-{number}"
                queue.enqueue(say(text))
                tell({"accepted": text})
                held = queue.settle_and_dequeue(settlement)[1]
                if number % 5 == 4:
                    settlement = Rollback(held, error="again")
                else:
                    tell({"committing": said(held)})
                    settlement = Commit(held)

    accepted, committing = set(), set()
    for life in range(8):
        with children(3, churn, life) as victims:
            for victim in victims:
                for _ in range(25 + 10 * life):
                    note(victim.heard(), accepted, committing)
            for victim in victims:
                victim.kill()
            for victim in victims:
                while (told := victim.heard()) is not None:
                    note(told, accepted, committing)

    clock = ManualClock(SystemClock().now() + 10_000)
    with FileQueueAdapter(path, clock=clock) as queue:
        left = set(drain(queue))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert accepted - committing <= left
    assert len(accepted) > 200


def note(told, accepted, committing):
    assert "error" not in told, told
    accepted.update(filter(None, [told.get("accepted")]))
    committing.update(filter(None, [told.get("committing")]))


def test_a_killed_holders_job_comes_back_when_its_lease_ends(path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue(say("held"))

    def hold(tell, index):
        tell(said(reserve(FileQueueAdapter(path, lease=0.2))))
        FileQueueAdapter(path, queues=["nothing"]).dequeue(LONG)

    with children(1, hold) as (holder,):
        assert holder.heard() == "held"
        holder.kill()
        with FileQueueAdapter(path) as queue:
            again = queue.dequeue(DEADLINE)

    assert again is not None
    assert again.attempt == 2


# -- the door -------------------------------------------------------------------------------------


@contextmanager
def kept(path, *numbers):
    """Keep bytes of a lock file, and yield a way to let go of one and one to see it kept."""
    with open(path, "r+b") as file:  # noqa: PTH123

        def let_go(byte):
            fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)

        def is_kept(byte):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except (BlockingIOError, PermissionError):
                return True
            let_go(byte)
            return False

        for byte in numbers:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
        yield let_go, is_kept


class Rush(dict):
    """The numbers of a lock file beside which each turn is waited for."""

    def __missing__(self, number):
        return time.monotonic_ns() if number == WAITED else 0


def take_a_turn(tell, index, path, line, *, in_rush):
    writers = WriterQueue(path)
    if in_rush:
        writers._numbers = Rush()
    writers.enter(line)
    writers.leave()
    return "done"


@contextmanager
def first_in_line(path, patience, *, in_rush):
    """Yield who waits there, with the step free; how to let go of a byte; how to see it kept."""
    WriterQueue(path).close()
    line = replace(WORKERS, patience=patience)
    work = partial(take_a_turn, in_rush=in_rush)
    with (
        kept(path, DOOR, STEP) as (let_go, is_kept),
        children(1, work, path, line) as (writer,),
    ):
        eventually(lambda: is_kept(line.byte))
        let_go(STEP)
        yield writer, let_go, is_kept


@pytest.mark.parametrize(
    ("patience", "in_rush"), [(600.0, False), (0.01, True)], ids=["when there is room", "at last"]
)
def test_who_is_first_in_line_takes_the_step(path, patience, in_rush):
    """From there nobody overtakes him, so that no two can keep all others out."""
    with first_in_line(path, patience, in_rush=in_rush) as (writer, let_go, is_kept):
        eventually(lambda: is_kept(STEP))
        let_go(DOOR)

        assert writer.result() == "done"


def test_who_is_first_in_line_stays_there_while_there_is_no_room(path):
    """Those that keep going are left alone, although the door is open now and then."""
    with first_in_line(path, 600.0, in_rush=True) as (writer, let_go, is_kept):
        let_go(DOOR)
        with children(1, take_turns, path) as (other,):
            assert other.result() == "done"

        assert is_kept(WORKERS.byte)
        writer.kill()


def take_turns(tell, index, path):
    writers = WriterQueue(path)
    for _ in range(300):
        with writers.turn():
            pass
    return "done"


def test_publishers_do_not_wait_behind_workers(path):
    """Workers in line wait for a tenth of a second and more, one after the other."""
    FileQueueAdapter(path).close()
    readable, writable = os.pipe()

    def publish(tell, index):
        with FileQueueAdapter(path) as queue:
            tell("open")
            os.read(readable, 1)
            return queue.enqueue(say("hello"))

    with children(1, publish) as (publisher,):
        assert publisher.heard() == "open"
        with kept(path + ".lock", DOOR, STEP, WORKERS.byte) as (let_go, is_kept):
            os.write(writable, b"!")
            eventually(lambda: is_kept(CALLERS.byte))
            let_go(DOOR)
            let_go(STEP)

            assert publisher.result() == "1"
    os.close(readable)
    os.close(writable)


def test_writers_take_turns_one_at_a_time(path):
    """Awake or asleep, whoever is let in is alone, and everybody is let in."""
    inside = path + ".inside"

    def take_turns(tell, index):
        writers = WriterQueue(path)
        for _ in range(300):
            with writers.turn():
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                os.unlink(inside)  # noqa: PTH108
        return "done"

    with children(6, take_turns) as writers:
        assert [writer.result() for writer in writers] == ["done"] * 6


def test_a_writer_killed_inside_keeps_nobody_out(path):
    """Whatever the file says of somebody inside, only the kernel's lock keeps others waiting."""

    def die_inside(tell, index):
        WriterQueue(path).enter(WORKERS)
        tell("inside")
        signal.pause()

    def take_turns(tell, index):
        writers = WriterQueue(path)
        tell("coming")
        for _ in range(10):
            with writers.turn():
                pass
        return "done"

    with children(1, die_inside) as (victim,):
        assert victim.heard() == "inside"
        with children(3, take_turns) as writers:
            assert [writer.heard() for writer in writers] == ["coming"] * 3
            victim.kill()
            assert [writer.result() for writer in writers] == ["done"] * 3


# -- the chain of wake-ups ------------------------------------------------------------------------


def wait_for_one(tell, index, path):
    """Wait for a job, hold it, and tell how often the doorbell made us look."""
    queue, looks = listening(path)
    queue.before_wait = lambda: tell("waiting")
    with queue:
        held = queue.dequeue(LONG)
        return said(held), len(looks)


def all_wait(waiters):
    for waiter in waiters:
        assert waiter.heard() == "waiting"


def test_five_jobs_published_at_once_wake_five_waiters(path):
    """Each wakes the next, and nobody looks in vain."""
    FileQueueAdapter(path).close()
    with children(5, wait_for_one, path) as waiters:
        all_wait(waiters)
        with FileQueueAdapter(path) as queue:
            queue.enqueue_many([say(n) for n in range(5)])
        results = [waiter.result(DEADLINE) for waiter in waiters]

    assert sorted(text for text, _ in results) == [0, 1, 2, 3, 4]
    if hasattr(os, "eventfd"):  # Linux, where a ring goes to one process
        assert sum(looks for _, looks in results) <= 6


def test_five_jobs_published_one_by_one_wake_five_waiters(path):
    FileQueueAdapter(path).close()
    with children(5, wait_for_one, path) as waiters:
        all_wait(waiters)
        with FileQueueAdapter(path) as queue:
            for number in range(5):
                queue.enqueue(say(number))
        results = [waiter.result(DEADLINE) for waiter in waiters]

    assert sorted(text for text, _ in results) == [0, 1, 2, 3, 4]


def test_delayed_jobs_wake_as_many_waiters_as_there_are_jobs(path):
    FileQueueAdapter(path).close()
    with children(3, wait_for_one, path) as waiters:
        all_wait(waiters)
        with FileQueueAdapter(path) as queue:
            queue.enqueue_many(
                [Message(request_type="say", body={"text": n}, delay=0.3) for n in range(3)]
            )
        results = [waiter.result(DEADLINE) for waiter in waiters]

    assert sorted(text for text, _ in results) == [0, 1, 2]


def test_who_takes_a_job_leaves_the_next_date_to_another(path):
    """Only one waiter was told of the delayed job; when it turns busy, the other must know."""
    FileQueueAdapter(path).close()

    def wait_and_tell(tell, index):
        queue = FileQueueAdapter(path)
        take_woken = queue._turns.take_woken

        def told(cursor):
            turn = take_woken(cursor)
            tell("looked")
            return turn

        queue._turns.take_woken = told
        queue.before_wait = lambda: tell("waiting")
        return said(queue.dequeue(LONG))

    with children(2, wait_and_tell) as waiters:
        all_wait(waiters)
        with FileQueueAdapter(path) as queue:
            queue.enqueue(Message(request_type="say", body={"text": "later"}, delay=1))
            knowing = first_to_tell(waiters)
            assert knowing.heard() == "looked"
            queue.enqueue(say("now"))
        results = {waiter.result(DEADLINE) for waiter in waiters}

    assert results == {"now", "later"}


def test_who_waits_on_in_silence_looks_once(path):
    """An idle worker wakes each few seconds, and takes no turn at the writers' lock for it."""
    with FileQueueAdapter(path) as queue, FileQueueAdapter(path) as publisher:
        looks = []
        take = queue._turns.take
        queue._turns.take = lambda *how: looks.append(how) or take(*how)
        waited = [queue.dequeue(0.001) for _ in range(5)]
        looks_in_silence = len(looks)
        publisher.enqueue(say("rung for"))
        held = queue.dequeue(LONG)

        assert waited == [None] * 5
        assert looks_in_silence == 1
        assert said(held) == "rung for"


def test_who_rests_leaves_the_next_date_to_another(path):
    bell = Doorbell(path + ".bells")
    with FileQueueAdapter(path) as queue, closing(bell):
        bell.listen(["default"])
        queue.enqueue(Message(request_type="say", delay=10))
        bell.wait(0, ())
        held = queue.dequeue(0.001)
        rung_by_waiting = bell.wait(0, ())
        queue.rest()

        assert (held, rung_by_waiting) == (None, Heard.SILENCE)
        assert bell.wait(0, ()) is Heard.BELL


def test_who_is_interrupted_leaves_the_next_date_to_another(path):
    readable, writable = os.pipe()
    os.write(writable, b"!")
    bell = Doorbell(path + ".bells")
    with FileQueueAdapter(path) as queue, closing(bell):
        bell.listen(["default"])
        queue.enqueue(Message(request_type="say", delay=10))
        bell.wait(0, ())
        queue.interrupts = (readable,)
        held = queue.dequeue(LONG)

        assert held is None
        assert bell.wait(0, ()) is Heard.BELL
    os.close(readable)
    os.close(writable)


def test_a_waiter_that_is_killed_takes_no_later_wake_up_with_it(path):
    FileQueueAdapter(path).close()
    with children(3, wait_for_one, path) as waiters:
        all_wait(waiters)
        waiters[0].kill()
        waiters[0].reap()
        with FileQueueAdapter(path) as queue:
            queue.enqueue_many([say(0), say(1)])
        results = [waiter.result(DEADLINE) for waiter in waiters[1:]]

    assert sorted(text for text, _ in results) == [0, 1]


def test_promoting_for_another_queue_rings_there(path):
    """The one who notices that a job is due wakes those who can take it."""
    clock = ManualClock()
    bell = Doorbell(path + ".bells")
    with FileQueueAdapter(path, clock=clock) as publisher, closing(bell):
        bell.listen(["elsewhere"])
        message = Message(request_type="say", queue="elsewhere", delay=5, clock=clock)
        publisher.enqueue(message)
        bell.wait(0, ())
        clock.advance(10)
        publisher.dequeue()

        assert publisher.stats() == {"elsewhere": QueueStats(ready=1)}
        assert bell.wait(0, ()) is Heard.BELL


def test_stale_rings_cost_one_look(path):
    """A busy worker's bell has rung a hundred times; when it waits at last, it looks once."""
    queue, looks = listening(path)
    with queue, FileQueueAdapter(path, durability="normal") as publisher:
        queue.dequeue(0.001)
        looks.clear()
        for number in range(100):
            publisher.enqueue(say(number))
        assert drain(queue) == list(range(100))
        assert queue.dequeue(0.05) is None

        assert len(looks) == 1  # for the rings; at the end of the wait its next call looks


def test_a_waiter_is_woken_before_the_publisher_waits_for_the_disk(path):
    """The disk fails here, so nothing that comes after it is done."""
    bell = Doorbell(path + ".bells")
    with FileQueueAdapter(path) as publisher, closing(bell):
        publisher.enqueue(say("opens the log"))
        bell.listen(["default"])
        os.unlink(path + "-wal")  # noqa: PTH108

        with pytest.raises(QueueUnavailable, match="-wal file was deleted"):
            publisher.enqueue(say("lost"))
        assert bell.wait(0, ()) is Heard.BELL
