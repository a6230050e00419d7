"""The failure table on a memory queue: the same jobs as on real pools, by the workers' own loop.

Jobs that end their process run in a forked child, whose death is judged as a keeper would.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import types

import pytest
from failures import FATES, OPTIONS, SHOP
from loops import Diary

from pulpo_pool.clock import SystemClock
from pulpo_pool.crashes import Coroner
from pulpo_pool.forks import ours
from pulpo_pool.keeper.housekeeping import judge_by
from pulpo_pool.message import Message
from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import CrashLimit, JobState, Owner
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.scoreboard import Death, Scoreboard
from pulpo_pool.settings import Settings
from pulpo_pool.states import ExitReason
from pulpo_pool.testing import TravellingClock
from pulpo_pool.worker.loop import LoopLimits, WorkerLoop

LIMIT = int(OPTIONS[OPTIONS.index("--max-attempts") + 1])
CRASHES = int(OPTIONS[OPTIONS.index("--max-crashes") + 1])
IN_PROCESS = [name for name, fate in FATES.items() if not fate.crashes]
CRASHING = [name for name, fate in FATES.items() if fate.crashes]


class Stage:
    """The app of the failure table on a memory queue, and the loop of one worker."""

    def __init__(self):
        shop = types.ModuleType("shop")
        exec(compile(SHOP, "shop.py", "exec"), shop.__dict__)
        self.clock = TravellingClock()
        self.owner = Owner("pool", "start", 0, 1)
        self.queue = MemoryQueueAdapter(clock=self.clock, owner=self.owner)
        self.app = shop.pulpo
        self.app.use(Settings(max_attempts=LIMIT))
        self.diary = Diary()
        self.scoreboard = Scoreboard(1)
        limits = LoopLimits(sleep_duration=0.0, max_attempts=LIMIT)
        self.loop = WorkerLoop(self.queue, self.app, self.diary, limits, self.clock)

    def publish(self, name, **header):
        message = Message(request_type=name, body={}, **header)
        Publisher(self.queue, SystemClock()).publish_many([message])

    def work(self):
        while self.loop.turn():
            pass
        self.loop.finish()

    def die(self, condemned):
        """Let a child take the job and end; judge its death and take the job back."""
        reservation = self.queue.dequeue()
        assert reservation is not None
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()  # pytest's would print the stack of what is to happen
            # The child is the worker that holds the job.
            self.queue._is_ours = self.loop._is_ours = ours()
            self.loop._work_on(reservation)
            os._exit(0)
        if condemned:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        reason = ExitReason.SIGNAL if os.WIFSIGNALED(status) else ExitReason.ERROR
        serial = self.owner.serial
        death = Death(serial, condemned or reason, status, self.clock.now(), 0, 0.0)
        self.scoreboard.record_death(death)
        judge = judge_by(self.scoreboard, Coroner("pool", "start"))
        self.queue.rescue(judge, CrashLimit(CRASHES))

    def record(self, fate):
        (record,) = self.queue.list_jobs(JobState(fate.state))
        return record


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Stage()


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_job_comes_to_its_end(stage, name):
    fate = FATES[name]
    stage.publish(name, **({"expiration": 0} if name.startswith("expires") else {}))
    stage.work()
    while len(stage.diary.done) < fate.attempts:
        stage.clock.advance(1)  # at most the default policy's first wait
        stage.work()
    last = stage.diary.done[-1]

    assert last.outcome == fate.outcome
    assert ("default" in stage.queue.stats()) == (fate.state is not None)
    if fate.state:
        record = stage.record(fate)
        assert record.attempts == fate.attempts
        assert fate.said in record.error
        assert (record.reason or last.retry_reason) == fate.why


@pytest.mark.parametrize("name", CRASHING)
def test_a_job_that_ends_its_worker_is_buried_at_the_limit(stage, name):
    fate = FATES[name]
    condemned = ExitReason.JOB_TIMEOUT if name == "passes_its_hard_limit" else None
    stage.publish(name)
    states = []
    for _ in range(CRASHES):
        stage.die(condemned)
        stats = stage.queue.stats()["default"]
        states.append((stats.ready, stats.buried))
    record = stage.record(fate)

    assert states == [(1, 0), (0, 1)], "back at once, then kept for people"
    assert (record.attempts, record.crashes, record.reason) == (2, 2, "crashed")
    assert fate.said in record.error


def test_bytes_that_are_no_message_are_buried(stage):
    stage.queue.store.add("default", b"\xff no message", 0, None)
    stage.work()

    assert stage.diary.done[0].outcome is JobOutcome.BURIED
    assert [job.reason for job in stage.queue.list_jobs(JobState.BURIED)] == ["undecodable"]
