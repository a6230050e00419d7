"""Putting a job in another's place on a beanstalkd: nothing is lost, whenever the line is cut."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest
from pool import eventually
from relay import Relay
from servers import Beanstalkd

from pulpo_pool.errors import JobReserved, NoSuchJob, QueueUnavailable
from pulpo_pool.message import Message
from pulpo_pool.queues.adapter import BuryReason, JobState, QueueStats
from pulpo_pool.queues.beanstalkd import BeanstalkdQueueAdapter

STATES = (JobState.READY, JobState.DELAYED, JobState.BURIED)
CUTS = [  # before which command the line is cut, or after it
    (command, passed)
    for command in (b"stats-job", b"reserve-job", b"put ", b"bury ", b"delete ")
    for passed in (False, True)
]


@pytest.fixture
def server():
    with Beanstalkd() as server:
        yield server


@pytest.fixture
def queue(server):
    """An adapter with a line of its own."""
    with adapter_at(server) as queue:
        yield queue


def adapter_at(place):
    return BeanstalkdQueueAdapter(place.host, place.port, socket_timeout=5.0)


def say(text, **fields):
    message = Message(request_type="say", body={"text": text}, **fields)
    return message.stamped(id="id", queue=message.queue, published_at=time.time())


def job_in(queue, state):
    if state is JobState.DELAYED:
        return queue.enqueue(say("old", delay=600))
    job_id = queue.enqueue(say("old"))
    if state is JobState.BURIED:
        queue.bury(queue.dequeue(20), reason=BuryReason.FATAL)
    return job_id


def counts(queue):
    return queue.stats().get("default", QueueStats())


def texts(queue, state):
    return {record.message().body["text"] for record in queue.list_jobs(state)}


@pytest.mark.parametrize("state", STATES)
def test_a_cut_line_loses_no_job_and_lets_none_run(server, queue, state):
    """Both may be left: the old in its state, the new one in it too or not to be run."""
    met = 0
    for command, passed in CUTS:
        job_id = job_in(queue, state)
        with Relay(server.host, server.port) as relay, adapter_at(relay) as cut_off:
            cut_off.stats()
            relay.cut_after(command, passed=passed)
            try:
                cut_off.replace(job_id, say("new"))
            except QueueUnavailable:
                met += 1
        eventually(lambda: counts(queue).reserved == 0)
        left = {each: texts(queue, each) for each in JobState}

        assert "old" in left[state] or "new" in left[state], (command, passed)
        others = [left[each] for each in JobState if each not in (state, JobState.DELAYED)]
        assert not set().union(*others), (command, passed)
        for each in STATES:
            queue.purge(each)

    assert met >= 6  # of the commands that this state takes


def test_a_worker_gets_the_old_job_or_the_new_and_never_both(server, queue):
    """However the two meet: a worker takes whatever is ready, while jobs are replaced."""
    done, stop = [], threading.Event()

    def work():
        with adapter_at(server) as worker:
            while not stop.is_set() or counts(queue).ready:
                held = worker.dequeue(0.01)
                if held is not None:
                    done.append(held.message.body["text"])
                    worker.commit(held)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        replaced = 0
        for number in range(300):
            job_id = queue.enqueue(say(f"{number} old"))
            with suppress(JobReserved, NoSuchJob):  # the worker was faster, or is done already
                queue.replace(job_id, say(f"{number} new"))
                replaced += 1
    finally:
        stop.set()
        worker.join(60)

    told = [text.split()[0] for text in done]
    assert sorted(told, key=int) == [str(number) for number in range(300)]
    assert replaced == sum(text.endswith("new") for text in done)
    assert counts(queue) == QueueStats()
