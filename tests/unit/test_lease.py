"""LeaseKeeper: what is in hand stays ours, however long its handler takes."""

from __future__ import annotations

import logging
import os
from contextlib import closing, suppress

import pytest
from loops import Diary
from pool import PATIENCE, eventually

from pulpo_pool import Message, Pulpo
from pulpo_pool.clock import SystemClock
from pulpo_pool.errors import QueueUnavailable, ReservationLost
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.queues.opening import file_url, open_queue
from pulpo_pool.worker.lease import LeaseKeeper
from pulpo_pool.worker.loop import LoopLimits, WorkerLoop

SHORT = 1.0  # seconds: a lease that ends several times during a test


class TouchedQueue(MemoryQueueAdapter):
    """Writes down its touches, and fails them as it is told."""

    def __init__(self, **options):
        super().__init__(lease=0.03, **options)
        self.touched = []
        self.failures = []

    def touch(self, reservation):
        self.touched.append(reservation.job_id)
        if self.failures:
            raise self.failures.pop(0)

    def hold(self, count):
        """Return so many reservations."""
        messages = [Message(request_type="work", body={}) for _ in range(count)]
        Publisher(self, self.clock).publish_many(messages)
        return [self.dequeue() for _ in range(count)]

    def times(self, reservation):
        return self.touched.count(reservation.job_id)


@pytest.fixture
def lifeline():
    """Return both ends of a pipe: the keeper reads, the master would hold the other."""
    reader, end = os.pipe()
    yield reader, end
    for fd in (reader, end):
        with suppress(OSError):
            os.close(fd)


@pytest.fixture
def queue():
    with closing(TouchedQueue()) as queue:
        yield queue


@pytest.fixture
def orphaned():
    return []


@pytest.fixture
def keeper(queue, lifeline, orphaned):
    keeper = LeaseKeeper(queue, lifeline[0], lambda: orphaned.append(True))
    keeper.start()
    yield keeper
    keeper.stop()
    keeper._thread.join(PATIENCE)


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pulpo_pool"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


def test_only_what_is_in_hand_is_touched(keeper, queue):
    first, second, other = queue.hold(3)
    keeper.in_hand = first
    eventually(lambda: queue.times(first) >= 2)
    keeper.in_hand = None
    keeper.in_hand = second
    eventually(lambda: queue.times(second) >= 2)
    after_the_first = queue.touched[queue.touched.index(second.job_id) :]

    assert set(after_the_first) == {second.job_id}
    assert queue.times(other) == 0


def test_a_lost_lease_is_only_logged(keeper, queue, warnings):
    (job,) = queue.hold(1)
    queue.failures = [ReservationLost("gone")]
    keeper.in_hand = job
    eventually(lambda: queue.times(job) >= 3)

    (warning,) = warnings()
    assert f"the lease of job {job.job_id} ended" in warning


def test_a_queue_that_is_away_is_logged_and_tried_again(keeper, queue, warnings):
    (job,) = queue.hold(1)
    queue.failures = [QueueUnavailable("the cable is out"), QueueUnavailable("the cable is out")]
    keeper.in_hand = job
    eventually(lambda: queue.times(job) >= 4)

    assert len(warnings()) == 2
    assert all("the cable is out" in warning for warning in warnings())


def test_stop_ends_the_thread(keeper):
    keeper.stop()
    keeper._thread.join(PATIENCE)

    assert not keeper._thread.is_alive()


def test_the_masters_end_is_told_once_and_leases_are_kept_on(keeper, queue, lifeline, orphaned):
    (job,) = queue.hold(1)
    keeper.in_hand = job
    os.close(lifeline[1])
    eventually(lambda: orphaned)
    touched = queue.times(job)
    eventually(lambda: queue.times(job) >= touched + 3)

    assert orphaned == [True]


class Holder(Diary):
    """Hands each job to the lease keeper, as a worker's report does."""

    def __init__(self, keeper):
        super().__init__()
        self.keeper = keeper

    def reserved(self, reservation):
        self.keeper.in_hand = reservation

    def settled(self):
        self.keeper.in_hand = None


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_a_handler_longer_than_its_lease_runs_once_if_the_lease_is_kept(tmp_path, lifeline, kept):
    url = file_url(str(tmp_path / "queue.db"))
    taken = []
    with open_queue(url, lease=SHORT) as queue, open_queue(url, lease=60.0) as thief:
        app = Pulpo(queue_adapter=queue)

        @app.job()
        def work():
            taken.append(thief.dequeue(2 * SHORT))

        keeper = LeaseKeeper(queue, lifeline[0], lambda: None)
        if kept:
            keeper.start()
        diary = Holder(keeper)
        loop = WorkerLoop(queue, app, diary, LoopLimits(sleep_duration=0.0), SystemClock())
        work.publish()
        loop.turn()
        loop.finish()
        keeper.stop()

    assert [bool(job) for job in taken] == [not kept]
    assert [len(diary.done), len(diary.lost_jobs)] == [1, 0 if kept else 1]
