"""A real beanstalkd without memory, or without disk for its log: clear errors, nothing lost."""

from __future__ import annotations

import logging
import sys

import pytest
from relay import Relay
from sayings import said, say
from servers import Beanstalkd

from pulpo_pool.errors import NoSuchJob, PartlyPublished, QueueUnavailable, ReservationLost
from pulpo_pool.queues.adapter import (
    Bury,
    BuryReason,
    Commit,
    JobState,
    QueueStats,
    Rollback,
    Settled,
)
from pulpo_pool.queues.beanstalkd import BeanstalkdQueueAdapter

HEAP = 16_382  # jobs after which a tube's heap must grow by a quarter of a megabyte
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a living process is limited by prlimit")


def adapter_at(place, **options):
    return BeanstalkdQueueAdapter(place.host, place.port, **options)


def counts(queue):
    return queue.stats().get("default", QueueStats())


@pytest.fixture
def server():
    with Beanstalkd() as server:
        yield server


@pytest.fixture
def queue(server):
    with adapter_at(server) as queue:
        yield queue


def fill(queue):
    """Put jobs until the heap of the tube must grow, and leave room for the bodies of a few."""
    spare = [say("x" * 300, queue="spare") for _ in range(50)]
    queue.enqueue_many([say("", priority=9) for _ in range(HEAP)])
    for job_id in queue.enqueue_many(spare):
        queue.delete(job_id)


# -- no memory --------------------------------------------------------------------------------


@LINUX
def test_a_job_for_which_there_is_no_memory_is_an_error_for_its_publisher(server, queue):
    """None of many is stored; the connection stays in step, and works on when there is memory."""
    big = say("x" * 400_000)
    queue.enqueue(say("small"))
    with server.no_more_memory():
        with pytest.raises(QueueUnavailable, match=r"beanstalkd at .* is out of memory"):
            queue.enqueue(big)
        with pytest.raises(QueueUnavailable, match="out of memory"):
            queue.enqueue_many([say("first"), big, say("last")])
        alone = queue.stats()
    queue.enqueue(big)

    assert alone == {"default": QueueStats(ready=1)}
    assert counts(queue) == QueueStats(ready=2)


@LINUX
def test_what_a_server_without_memory_can_only_bury_is_not_published_and_not_released(
    server, queue, caplog
):
    """It answers BURIED: the publisher is told, the job of a worker is kept, and the log says."""
    fill(queue)
    with server.no_more_memory():
        with pytest.raises(QueueUnavailable, match="out of memory"):
            queue.enqueue(say("refused"))
        refused = counts(queue)
        held = queue.dequeue(5)
        queue.enqueue(say("in its place"))
        with caplog.at_level(logging.ERROR):
            settled, following = queue.settle_and_dequeue(Rollback(held), 5)
    queue.commit(following)
    kept = counts(queue)
    queue.kick([held.job_id])

    assert refused == QueueStats(ready=HEAP)
    assert settled is Settled.DONE
    assert kept == QueueStats(ready=HEAP - 1, buried=1)
    assert f"has buried job {held.job_id}" in caplog.text
    assert counts(queue) == QueueStats(ready=HEAP)


# -- no disk ----------------------------------------------------------------------------------


@pytest.fixture
def durable(tmp_path):
    with Beanstalkd(folder=tmp_path / "log", log_file=4_096) as server:
        yield server


def publish_until_refused(queue):
    def publish():
        while True:
            queue.enqueue(say("more"))

    with pytest.raises(QueueUnavailable, match="or the disk of its log is full"):
        publish()


def test_a_server_whose_log_cannot_grow_takes_nothing_and_still_commits(durable):
    """It says OUT_OF_MEMORY to whoever publishes."""
    with adapter_at(durable) as queue:
        queue.enqueue_many([say(1, priority=1), say(2, priority=2)])
        held = queue.dequeue(5)
        with durable.no_more_disk():
            publish_until_refused(queue)
            settled, following = queue.settle_and_dequeue(Commit(held), 5)
            queue.commit(following)
        queue.enqueue(say(3, priority=1))

        assert settled is Settled.DONE
        assert said(following) == 2
        assert said(queue.dequeue(5)) == 3


def settled_until_refused(queue, settlement):
    """Return the reservation whose settlement the server could not make."""
    while True:
        held = queue.dequeue(5)
        try:
            queue.settle(settlement(held))
        except ReservationLost:
            return held


@pytest.mark.parametrize(
    "settlement",
    [lambda held: Rollback(held, 1_000), lambda held: Bury(held, BuryReason.FATAL)],
    ids=["release", "bury"],
)
def test_a_job_that_a_server_cannot_write_down_is_back_after_its_restart(
    durable, settlement, caplog
):
    """OUT_OF_MEMORY to a release with a delay, INTERNAL_ERROR to a bury: the worker goes on."""
    with adapter_at(durable) as queue:
        with durable.no_more_disk():
            publish_until_refused(queue)
            # What is not refused takes some of the room that the last file still has.
            with caplog.at_level(logging.ERROR):
                held = settled_until_refused(queue, settlement)
            following = queue.dequeue(5)
            queue.commit(following)
        durable.kill()
        durable.start()
        with adapter_at(durable) as later:
            state = later.peek(held.job_id).state
            with pytest.raises(NoSuchJob):
                later.peek(following.job_id)

    assert state is JobState.READY
    assert f"what became of job {held.job_id}" in caplog.text


# -- cut in the middle of many ----------------------------------------------------------------


def test_a_publisher_is_told_which_of_many_are_stored_when_the_line_is_cut(server, monkeypatch):
    """The first that were answered are; publishing the rest again loses nothing."""
    monkeypatch.setattr("pulpo_pool.queues.beanstalkd_puts.COMMANDS_AT_ONCE", 50)
    with Relay(server.host, server.port) as relay, adapter_at(relay) as queue:
        messages = [say(n) for n in range(120)]  # three writes
        relay.cut_after(b"INSERTED 70\r\n", reply=True)
        with pytest.raises(
            PartlyPublished, match=r"the first \d+ of 120 messages stored"
        ) as raised:
            queue.enqueue_many(messages)
        stored = raised.value.job_ids
        queue.enqueue_many(messages[len(stored) :])
        numbers = [queue.peek(job_id).message().body["text"] for job_id in stored[-3:]]
        there = {job.message().body["text"] for job in queue.list_jobs(JobState.READY)}

    assert 50 <= len(stored) < 120
    assert numbers == list(range(len(stored) - 3, len(stored)))
    assert there == set(range(120))
