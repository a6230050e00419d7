"""Whatever a handler does to its process, the job is settled and the next one runs undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from pool import PATIENCE, PoolProcess, eventually, is_gone

from pulpo_pool import Message
from pulpo_pool.clock import SystemClock
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import JobState

SHOP = Path(__file__).parent.parent.joinpath("hostile_shop.py").read_text("utf-8")
NEVER = "600"  # seconds; who waits for it has missed a signal

# What becomes of the job: buried where the handler failed it, else done.
LIVED_THROUGH = {
    "exits": "SystemExit: 3",
    "raises_base_exception": "BaseException: base",
    "raises_keyboard_interrupt": "KeyboardInterrupt",
    "raises_unprintable": "Unprintable",
    "returns_nonsense": None,
    "prints_a_megabyte": None,
    "closes_stdout": None,
    "closes_descriptor_1": None,
    "closes_descriptor_2": None,
    "removes_stdout": None,
    "replaces_stdout_with_nonsense": None,
    "blocks_every_signal": None,
    "ignores_sigterm": None,
    "resets_sigterm": None,
    "takes_the_wakeup_descriptor": None,
    "runs_asyncio": None,
    "changes_directory": None,
    "changes_umask": None,
    "changes_environment": None,
    "leaves_an_alarm": None,
    "leaks_a_thread": None,
    "leaks_descriptors": None,
    "breaks_the_collector": None,
    "forks_back": None,
    "forks_and_the_child_raises": None,
    "forks_a_daemon": None,
}
FATAL_TO_THE_WORKER = {
    "leaves_by_os_exit": "left with exit status 0",
    "kills_itself": "SIGKILL",
    "aborts": "SIGABRT",
    "alarms_itself": "SIGALRM",
    "closes_every_descriptor": "left with exit status",
}
OPTIONS = ("-w", "1", "--drain-timeout", NEVER, "--sleep-duration", NEVER, "--max-crashes", "1")


class Stage:
    """A pool of one worker, to which bad and good jobs are given in turn."""

    def __init__(self, pool):
        self.pool = pool
        self.numbers = count()

    def play(self, *request_types):
        """Run these jobs and a good one, without a pause; return what that one found."""
        number = next(self.numbers)
        jobs = [Message(request_type=request_type, body={}) for request_type in request_types]
        jobs.append(Message(request_type="good", body={"n": number}))
        with self.pool.queue() as queue:
            Publisher(queue, SystemClock()).publish_many(jobs)
        return eventually(lambda: self.found(number), what=f"good job after {request_types}")

    def found(self, number):
        lines = self.pool.folder / "good"
        for line in lines.read_text().splitlines() if lines.exists() else ():
            note = json.loads(line)
            if note["n"] == number:
                return note
        return None

    def buried(self):
        """Return the error of the one job that is buried, None if there is none; forget it."""
        eventually(self.pool.empty, what="every job is settled")
        records = self.pool.jobs(JobState.BURIED)
        with self.pool.queue() as queue:
            queue.purge(JobState.BURIED)
        assert len(records) <= 1
        return records[0].error if records else None

    def recycle(self):
        """Let the worker leave as in a drain, and its successor come; return that one's pid."""
        (old,) = self.pool.worker_pids()
        self.pool.ask("recycle", "0")
        return self.pool.replaced(0, old)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with PoolProcess(folder, *OPTIONS, app=SHOP, http=None) as pool:
        yield Stage(pool.ready())


@pytest.fixture(scope="module")
def usual(stage):
    """What a good job finds if nothing happened before it."""
    return stage.play()


@pytest.mark.parametrize("request_type", LIVED_THROUGH)
def test_a_worker_lives_through_it_and_leaves_when_told(stage, usual, request_type):
    """The next job finds everything as it was; the worker still hears that it is to leave."""
    (pid,) = stage.pool.worker_pids()
    found = stage.play(request_type)
    error = stage.buried()
    successor = stage.recycle()
    expected = LIVED_THROUGH[request_type]

    assert found == usual | {"n": found["n"], "pid": pid}
    assert (expected in error) if expected else (error is None)
    assert successor != pid
    assert "did not leave in time" not in stage.pool.log


@pytest.mark.parametrize("request_type", FATAL_TO_THE_WORKER)
def test_where_the_worker_dies_its_replacement_goes_on(stage, usual, request_type):
    (pid,) = stage.pool.worker_pids()
    found = stage.play(request_type)
    error = stage.buried()
    stage.recycle()

    assert is_gone(pid)
    assert found == usual | {"n": found["n"], "pid": found["pid"]}
    assert FATAL_TO_THE_WORKER[request_type] in error


def test_forks_that_come_back_are_settled_once(stage):
    (stage.pool.folder / "forks").unlink(missing_ok=True)
    (pid,) = stage.pool.worker_pids()
    stage.play("forks_back", "forks_and_the_child_raises")
    error = stage.buried()
    eventually(lambda: len(stage.pool.lines("forks")) >= 3, what="both children ran")
    children = [int(words[0]) for words in stage.pool.lines("forks") if int(words[0]) != pid]

    assert error is None
    assert len(children) == 2
    eventually(lambda: all(map(is_gone, children)), what="the forked children end")


def test_a_daemon_that_a_handler_left_dies_with_its_worker_and_keeps_no_lock(stage):
    (stage.pool.folder / "daemons").unlink(missing_ok=True)
    stage.play("forks_a_daemon")
    ((worker, daemon),) = [map(int, words) for words in stage.pool.lines("daemons")]
    lived_on = not is_gone(daemon)
    os.kill(worker, signal.SIGKILL)
    stage.pool.replaced(0, worker)
    found = stage.play()

    assert lived_on
    assert found["pid"] != worker
    eventually(lambda: is_gone(daemon), what="the daemon ends")


def test_one_worker_lives_through_all_of_it_and_the_drain_ends_clean(tmp_path):
    with PoolProcess(tmp_path, *OPTIONS, app=SHOP, http=None) as pool:
        stage = Stage(pool.ready())
        (pid,) = pool.worker_pids()
        found = stage.play(*LIVED_THROUGH)
        pool.signal(signal.SIGTERM)
        code = pool.wait()

    assert found["pid"] == pid
    assert code == 0


def test_a_drain_that_comes_while_a_handler_keeps_signals_away_is_heard(tmp_path):
    with PoolProcess(tmp_path, *OPTIONS, app=SHOP, http=None) as pool:
        pool.ready().publish("keeps_signals_away_until_told", [{}])
        eventually(lambda: pool.lines("keeps"), what="the handler runs")
        pool.signal(signal.SIGTERM)
        eventually(lambda: "draining" in pool.log, what="the pool drains")
        pool.let_go()
        code = pool.wait()

    assert code == 0
    assert pool.empty()


def test_closed_standard_streams_harm_neither_jobs_nor_the_queue(tmp_path):
    """As daemons are started: without them, files opened next would be given their numbers."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / ".pulpo").mkdir()
    pool = PoolProcess.__new__(PoolProcess)
    pool.folder = tmp_path
    pool.publish("good", [{"n": n} for n in range(3)])
    pool.publish("exits", [{}])
    run = [sys.executable, "-m", "pulpo_pool", "run", "-w", "1", "--http", "off", "--burst"]
    script = 'exec "$@" <&- >&- 2>&-'
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *run, "shop:pulpo"],
        cwd=tmp_path,
        timeout=PATIENCE,
        check=False,
    )
    notes = [json.loads(line) for line in (tmp_path / "good").read_text().splitlines()]
    (buried,) = pool.jobs(JobState.BURIED)

    assert ended.returncode == 0
    assert [note["n"] for note in notes] == [0, 1, 2]
    assert len({note["pid"] for note in notes}) == 1
    assert buried.error.endswith("SystemExit: 3")
