"""Limits that hold: inside the handler, from outside, and for processes that fall silent."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from pool import PoolProcess, eventually

from pulpo_pool.queues.adapter import JobState

if TYPE_CHECKING:
    from pathlib import Path

APP = """
    import os, time
    from pulpo_pool import JobContext, Pulpo, SoftTimeLimit
    pulpo = Pulpo()

    def note(word):
        fd = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, word.encode() + b"\\n")
        os.close(fd)

    LATER = lambda state: 600.0  # so that a second attempt does not meet the test

    @pulpo.job(soft_time_limit=0.2, wait=LATER)
    def tidies_up(n: int) -> None:
        try:
            time.sleep(600)
        except SoftTimeLimit:
            note(f"tidied {n}")
            raise

    @pulpo.job(soft_time_limit=0.2, wait=lambda state: 0.0)
    def is_in_time(n: int) -> None:
        note(f"in time {n}")

    @pulpo.job(time_limit=1)
    def never_ends(context: JobContext) -> None:
        note(f"attempt {context.attempt} {context.deadline is not None}")
        while True:
            time.sleep(600)

    @pulpo.job(time_limit=1)
    def never_returns_to_python() -> None:
        sum(range(10**15))  # holds the GIL in C: no signal handler and no thread runs either

    @pulpo.job()
    def good(n: int) -> None:
        note(f"good {n}")
"""


def notes(pool: PoolProcess) -> list[str]:
    path = pool.folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_the_soft_limit_is_an_exception_in_the_handler_and_nowhere_else(tmp_path: Path):
    """The job is retried by its policy, the worker goes on, and jobs in time never hear of it."""
    with PoolProcess(tmp_path, "-w", "1", app=APP).ready() as pool:
        before = pool.worker_pids()
        pool.publish("tidies_up", [{"n": 1}])
        pool.publish("is_in_time", ({"n": n} for n in range(200)))
        eventually(lambda: len(notes(pool)) == 201, what="all have run")
        (record,) = eventually(
            lambda: [job for job in pool.jobs(JobState.DELAYED) if job.attempts == 1],
            what="the late one waits for its next attempt",
        )

        assert "tidied 1" in notes(pool)
        assert "SoftTimeLimit: the soft time limit of 0.2 s is over" in (record.error or "")
        assert pool.counted("pulpo_job_retries_total", reason="timeout") == 1
        assert pool.counted("pulpo_jobs_finished_total", outcome="success") == 200
        assert pool.worker_pids() == before


@pytest.mark.parametrize("request_type", ["never_ends", "never_returns_to_python"])
def test_the_hard_limit_ends_what_does_not_end_itself(tmp_path: Path, request_type: str):
    """Also code that never returns to Python; the job is a crash, the worker is replaced."""
    with PoolProcess(tmp_path, "-w", "2", "--max-crashes", "1", app=APP).ready() as pool:
        pool.publish(request_type, [{}])
        pool.publish("good", ({"n": n} for n in range(20)))
        (record,) = eventually(lambda: pool.jobs(JobState.BURIED), what="the job is buried")
        pool.ready()

        assert record.reason == "crashed"
        assert "time limit" in (record.error or "")
        assert f"in {request_type}" in (record.error or ""), "the stack is kept with the job"
        assert pool.counted("pulpo_worker_exits_total", reason="job_timeout") == 1
        assert sum(note.startswith("good") for note in notes(pool)) == 20
        assert f"past the time limit of {request_type}" in pool.log


def test_a_pool_has_limits_of_its_own_and_no_limit_is_none(tmp_path: Path):
    app = APP.replace("(time_limit=1)", "(wait=LATER)").replace("time.sleep(600)", "time.sleep(2)")
    with PoolProcess(tmp_path, "-w", "1", "--soft-time-limit", "0.1", app=app).ready() as pool:
        pool.publish("never_ends", [{}])
        (record,) = eventually(
            lambda: [job for job in pool.jobs(JobState.DELAYED) if job.attempts == 1],
            what="the pool's soft limit ends it",
        )

        assert "the soft time limit of 0.1 s is over" in (record.error or "")


def test_limits_that_contradict_each_other_are_refused_by_name(tmp_path: Path):
    app = APP.replace("0.2, wait=lambda", "7200, wait=lambda")
    with PoolProcess(tmp_path, "-w", "1", app=app) as pool:
        code = pool.wait()

    assert code == 2
    assert "is_in_time" in pool.log
    assert "soft_time_limit: expected less than the time_limit of 3600 s" in pool.log


def test_a_stopped_worker_is_found_by_its_silence_and_replaced(tmp_path: Path):
    """SIGSTOP leaves nothing that could answer; the others are not blamed."""
    with PoolProcess(tmp_path, "-w", "2", "--max-empty-iterations", "0", app=APP).ready() as pool:
        stopped, other = pool.worker_pids()
        os.kill(stopped, signal.SIGSTOP)

        eventually(lambda: stopped not in pool.worker_pids(), within=90, what="it is replaced")

        pool.ready()
        assert other in pool.worker_pids()
        assert pool.counted("pulpo_worker_exits_total", reason="heartbeat") == 1
        pool.publish("good", ({"n": n} for n in range(10)))
        eventually(lambda: len(notes(pool)) == 10, what="the pool works")
