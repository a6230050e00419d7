"""The keeper, in a process of its own, over the real file queue."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from seats import KEEPER_SLOT, Nest, until

from pulpo_pool.clock import ManualClock
from pulpo_pool.errors import QueueUnavailable
from pulpo_pool.keeper import process
from pulpo_pool.keeper.process import run_keeper
from pulpo_pool.message import Message
from pulpo_pool.metrics.slot_files import prepare_metrics_directory
from pulpo_pool.queues import file_people
from pulpo_pool.queues.adapter import JobState, Owner
from pulpo_pool.queues.opening import open_queue
from pulpo_pool.scoreboard import Death
from pulpo_pool.settings import Settings
from pulpo_pool.states import Activity, ExitReason, Role

if TYPE_CHECKING:
    from pathlib import Path

KILLED = int(signal.SIGKILL)
SERIAL = 7


@dataclass
class Keeper:
    """A keeper in its slot, and the queue it looks after."""

    nest: Nest
    url: str
    metrics: Path
    settings: Settings
    pid: int = 0

    def start(self, *, opening=None):
        def body(seat):
            return run_keeper(
                seat,
                bell=self.nest.bell,
                settings=self.settings,
                metrics_directory=self.metrics,
                open_queue=opening or (lambda: open_queue(self.url)),
                registry=CollectorRegistry(),
            )

        self.pid = self.nest.spawn(Role.KEEPER, KEEPER_SLOT, body)
        self.nest.wait_until_ready(KEEPER_SLOT)

    def reserve(self, *, pool="pool", instance="now", serial=SERIAL):
        """Publish a job and leave it in a worker's hands; return its id."""
        owner = Owner(pool, instance, 0, serial)
        with closing(open_queue(self.url, owner=owner)) as queue:
            message = Message(request_type="send_email", body={})
            job_id = queue.enqueue(message.stamped(id="x", queue="default", published_at=1.0))
            assert queue.dequeue(0).job_id == job_id
        return job_id

    def die(self, reason=ExitReason.SIGNAL, serial=SERIAL):
        self.nest.scoreboard.record_death(Death(serial, reason, KILLED, 1.0, 1, 0.1))
        self.ring()

    def ring(self):
        os.write(self.nest.bell_rope, b"!")

    def job(self, job_id):
        with closing(open_queue(self.url)) as queue:
            return queue.peek(job_id)

    def is_in(self, job_id, state):
        return self.job(job_id).state is state

    def sample(self, name, **labels):
        families = MultiProcessCollector.merge([str(p) for p in self.metrics.glob("*.db")])
        return next(
            (s.value for f in families for s in f.samples if (s.name, s.labels) == (name, labels)),
            None,
        )

    def looked(self):
        return self.nest.scoreboard.header.queue_seen_at

    def look(self):
        """Make it look, and wait until it has."""
        before = self.looked()
        self.ring()
        until(lambda: self.looked() > before)


@pytest.fixture
def nest():
    with closing(Nest()) as nest:
        nest.scoreboard.header.queue_seen_at = 0
        yield nest


@pytest.fixture
def keeper(nest, tmp_path):
    metrics = tmp_path / "metrics"
    prepare_metrics_directory(metrics)
    settings = Settings(log_level="error", max_crashes=2)
    return Keeper(nest, f"file:{tmp_path / 'queue.db'}", metrics, settings)


def test_a_dead_workers_job_is_back_at_once(keeper):
    job_id = keeper.reserve()
    keeper.start()
    until(keeper.looked)
    kept = keeper.is_in(job_id, JobState.RESERVED)
    keeper.die()

    until(lambda: keeper.is_in(job_id, JobState.READY))
    assert kept, "a living worker's job was taken away"
    assert keeper.job(job_id).crashes == 1
    assert keeper.job(job_id).error.startswith("worker 0 (serial 7) was killed by signal 9")


def test_crashes_are_counted(keeper):
    keeper.reserve()
    keeper.start()
    keeper.die()

    labels = {"queue": "default", "request_type": "send_email"}
    until(lambda: keeper.sample("pulpo_job_retries_total", **labels, reason="crash") == 1)
    assert keeper.sample("pulpo_jobs_finished_total", **labels, outcome="retried") == 1


def test_a_job_that_keeps_killing_its_worker_is_buried(keeper):
    job_id = keeper.reserve()
    keeper.start()
    keeper.die()
    until(lambda: keeper.is_in(job_id, JobState.READY))
    with closing(open_queue(keeper.url, owner=Owner("pool", "now", 0, SERIAL + 1))) as queue:
        assert queue.dequeue(0).job_id == job_id
    keeper.die(serial=SERIAL + 1)

    until(lambda: keeper.is_in(job_id, JobState.BURIED))
    labels = {"queue": "default", "request_type": "send_email"}
    until(lambda: keeper.sample("pulpo_job_buries_total", **labels, reason="crashed") == 1)
    assert keeper.job(job_id).reason == "crashed"


def test_what_a_killed_pool_held_is_back_with_the_next_start(keeper):
    job_id = keeper.reserve(instance="before")
    keeper.start()

    until(lambda: keeper.is_in(job_id, JobState.READY))
    assert keeper.job(job_id).crashes == 0


def test_the_jobs_of_another_pool_are_left_to_it(keeper):
    job_id = keeper.reserve(pool="other")
    keeper.start()
    keeper.die()
    keeper.look()

    assert keeper.is_in(job_id, JobState.RESERVED)


def test_what_waits_is_exported(keeper):
    keeper.reserve()
    keeper.start()

    until(lambda: keeper.sample("pulpo_queue_jobs", queue="default", state="reserved") == 1)
    assert keeper.sample("pulpo_queue_jobs", queue="default", state="ready") == 0
    assert keeper.sample("pulpo_queue_jobs", queue="default", state="buried") == 0


def test_it_outlives_a_queue_that_is_away(keeper, tmp_path):
    job_id = keeper.reserve()
    gate = tmp_path / "gate"

    def opening():
        if not gate.exists():
            raise QueueUnavailable("not yet")
        return open_queue(keeper.url)

    keeper.start(opening=opening)
    keeper.die()
    unseen = keeper.looked()
    gate.touch()

    until(lambda: keeper.is_in(job_id, JobState.READY))
    assert unseen == 0
    assert keeper.nest.scoreboard.read_work(KEEPER_SLOT).queue_up == 1


def test_it_looks_a_last_time_when_told_to_leave(keeper):
    job_id = keeper.reserve()
    keeper.start()
    until(keeper.looked)
    keeper.nest.scoreboard.record_death(Death(SERIAL, ExitReason.CUT_OFF, KILLED, 1.0, 1, 0.1))
    keeper.nest.tell_to_leave(KEEPER_SLOT, keeper.pid)

    assert keeper.nest.end_of(keeper.pid) == 0
    assert keeper.is_in(job_id, JobState.READY)
    assert keeper.job(job_id).crashes == 0
    assert keeper.nest.scoreboard.read_work(KEEPER_SLOT).activity == Activity.LEAVING


def test_it_judges_nobody_once_its_master_is_gone(keeper):
    job_id = keeper.reserve()
    keeper.start()
    until(keeper.looked)
    keeper.nest.die()

    assert keeper.nest.end_of(keeper.pid) == 0
    assert keeper.is_in(job_id, JobState.RESERVED)


def test_it_leaves_when_told_while_the_queue_is_away(keeper):
    def opening():
        raise QueueUnavailable("for ever")

    keeper.start(opening=opening)
    keeper.nest.tell_to_leave(KEEPER_SLOT, keeper.pid)

    assert keeper.nest.end_of(keeper.pid) == 0


def test_it_outlives_the_signals_that_platforms_send_to_all(keeper):
    job_id = keeper.reserve()
    keeper.start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(keeper.pid, number)
    keeper.die()

    until(lambda: keeper.is_in(job_id, JobState.READY))
    assert os.waitpid(keeper.pid, os.WNOHANG) == (0, 0)


def test_a_burst_ends_when_nothing_is_ready_and_nothing_held(keeper):
    keeper.settings = Settings(log_level="error", burst=True)
    job_id = keeper.reserve()
    keeper.start()
    until(keeper.looked)
    early = keeper.nest.scoreboard.header.out_of_work
    with closing(open_queue(keeper.url)) as queue:
        queue.delete(job_id)

    until(lambda: keeper.nest.scoreboard.header.out_of_work)
    assert early == 0


def test_done_jobs_whose_time_is_over_go_portion_by_portion(keeper, monkeypatch):
    """Also where this pool keeps none: it was decided when they were done. Others stay."""
    monkeypatch.setattr(process, "BETWEEN_PARTS", 0.001)
    monkeypatch.setattr(file_people, "_BATCH", 2)
    monkeypatch.setattr(file_people, "_BATCHES", 2)
    long_ago = ManualClock(now=1_000.0)
    for options, number in (({"clock": long_ago}, 11), ({}, 3)):
        with closing(open_queue(f"{keeper.url}?keep_done=3600", **options)) as queue:
            queue.enqueue_many([Message(request_type="send_email")] * number)
            for _ in range(number):
                queue.commit(queue.dequeue(0))

    def kept():
        with closing(open_queue(keeper.url)) as queue:
            return len(list(queue.list_done()))

    at_first = kept()
    keeper.start()
    until(lambda: kept() == 3)
    keeper.look()

    assert at_first == 14
    assert kept() == 3
