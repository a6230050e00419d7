"""Jobs that kill their worker are buried with the evidence, while all others flow."""

from __future__ import annotations

import json
import os
import signal

import pytest
from pool import PoolProcess, eventually
from shops import CRASH_SHOP

from pulpo_pool.queues.adapter import JobState

APP = (
    CRASH_SHOP
    + """

@pulpo.job()
def leave_with(status):
    os._exit(status)


@pulpo.job()
def segfault():
    os.kill(os.getpid(), signal.SIGUSR2)  # as if somebody had asked for its stacks before
    ctypes.string_at(0)


@pulpo.job(wait=lambda state: 600.0)
def system_exit():
    sys.exit(3)


@pulpo.job()
def crash_once(n, job: JobContext):
    if job.crashes == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    append("crashes", n, job.crashes, job.attempt)
    hold(n)
"""
)


def listed(pool, state):
    """Return the jobs in a state, by request type, as `list --json` shows them."""
    answer = pool.command("list", "--state", state, "--json")
    assert answer.returncode == 0, answer.stderr
    return {job["request_type"]: job for job in map(json.loads, answer.stdout.splitlines())}


def test_jobs_that_kill_their_worker_are_buried_with_the_evidence(tmp_path):
    """Whatever way they do it: by signal, by exit, even with status 0, by a fault in C."""
    with PoolProcess(tmp_path, "-w", "4", app=APP) as pool:
        pool.ready()
        for request_type, body in (
            ("crash", {}),
            ("leave_with", {"status": 0}),
            ("segfault", {}),
        ):
            pool.publish(request_type, [body])
        pool.publish("note", [{"n": n} for n in range(200)])
        eventually(lambda: len(pool.lines("done")) == 200, what="the good jobs are done")
        eventually(lambda: pool.stats().buried == 3, what="the bad ones are buried")
        buried = listed(pool, "buried")
        buries = pool.counted("pulpo_job_buries_total", reason="crashed")
        retries = pool.counted("pulpo_job_retries_total", reason="crash")
        exits = [
            pool.counted("pulpo_worker_exits_total", reason=reason)
            for reason in ("signal", "error", "boot")
        ]
        pool.ready()

    assert pool.numbers("done") == list(range(200))
    assert {(job["reason"], job["crashes"]) for job in buried.values()} == {("crashed", 3)}
    assert "signal 9 (SIGKILL)" in buried["crash"]["error"]
    assert "exit status 0" in buried["leave_with"]["error"]
    assert "signal 11 (SIGSEGV)" in buried["segfault"]["error"]
    history = buried["crash"]["history"]
    assert [(each["attempt"], each["outcome"], each["signal"]) for each in history] == [
        (1, "retried", 9), (2, "retried", 9), (3, "buried", 9),
    ]  # fmt: skip
    assert {each["exit_code"] for each in buried["leave_with"]["history"]} == {0}
    stacks = [each["stack"] for each in buried["segfault"]["history"]]
    assert all(stack.startswith("Fatal Python error: Segmentation fault") for stack in stacks)
    assert all("in segfault" in stack for stack in stacks)
    assert all(each["max_rss"] > 0 and each["worker"] and each["host"] for each in history)
    assert (buries, retries) == (3, 6)
    assert exits == [6, 3, 0]


def test_fifty_of_them_at_the_front_of_the_queue_stop_nobody(tmp_path):
    with PoolProcess(tmp_path, "-w", "12", app=APP) as pool:
        pool.ready()
        assert pool.ask("pause")["ok"]
        pool.publish("crash", [{"n": n} for n in range(50)], priority=0)
        pool.publish("note", [{"n": n} for n in range(500)])
        assert pool.ask("resume")["ok"]
        eventually(lambda: len(pool.lines("done")) == 500, 60, what="the good jobs are done")
        eventually(lambda: pool.stats().buried == 50, 120, what="the bad ones are buried")
        pool.ready()
        pool.publish("note", [{"n": 500}])
        eventually(pool.empty, what="the pool still works")
        ready, _ = pool.http("/readyz")
        buried = pool.jobs(JobState.BURIED)

    assert pool.numbers("done") == list(range(501))
    assert pool.numbers("crashed") == sorted([*range(50)] * 3)
    assert {(job.reason, job.crashes) for job in buried} == {("crashed", 3)}
    assert ready == 200


@pytest.mark.parametrize("limit", [1, 2])
def test_the_limit_is_a_setting(tmp_path, limit):
    with PoolProcess(tmp_path, "-w", "1", "--max-crashes", str(limit), app=APP) as pool:
        pool.ready()
        pool.publish("crash", [{}])
        eventually(lambda: pool.stats().buried == 1, what="the job is buried")
        job = pool.jobs(JobState.BURIED)[0]

    assert len(pool.lines("crashed")) == limit
    assert (job.reason, job.crashes) == ("crashed", limit)


def test_a_job_knows_of_its_crashes_and_so_does_everybody_else(tmp_path):
    """A worker killed from outside counts too; a kick gives a fresh count."""
    with PoolProcess(tmp_path, "-w", "1", app=APP) as pool:
        pool.ready()
        pool.publish("crash_once", [{"n": 1}])
        eventually(lambda: pool.lines("crashes"), what="it runs again")
        reserved = listed(pool, "reserved")["crash_once"]
        pool.let_go()
        eventually(pool.empty, what="it is done")
        pool.publish("leave_with", [{"status": 7}])
        eventually(lambda: pool.stats().buried == 1, what="the other is buried")
        evidence = listed(pool, "buried")["leave_with"]["error"]
        assert pool.ask("pause")["ok"]
        eventually(lambda: pool.titles() == ["worker 0 resting"], what="the pool rests")
        kicked = pool.command("kick", "--all")
        ready = listed(pool, "ready")["leave_with"]

    assert reserved["crashes"] == 1
    assert pool.lines("crashes") == [["1", "1", "2"]]
    assert "exit status 7" in evidence
    assert kicked.returncode == 0, kicked.stderr
    assert (ready["crashes"], ready["attempts"]) == (0, 0)


def test_leaving_by_sys_exit_is_a_failure_of_the_job_and_not_of_the_worker(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=APP) as pool:
        pool.ready()
        worker = pool.worker_pids()
        pool.publish("system_exit", [{}])
        eventually(lambda: pool.stats().delayed == 1, what="the job waits for its next attempt")
        job = pool.jobs(JobState.DELAYED)[0]

        assert (job.crashes, job.attempts) == (0, 1)
        assert "SystemExit: 3" in job.error
        assert pool.worker_pids() == worker


def test_a_worker_that_was_killed_while_idle_costs_no_job_a_crash(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=APP) as pool:
        pool.ready()
        pool.publish("work", [{"n": 1}])
        eventually(pool.empty, what="the job is done")
        old = pool.pid_of(0)
        eventually(lambda: pool.workers_in("idle"), what="the worker is idle")
        os.kill(old, signal.SIGKILL)
        pool.replaced(0, old)
        crashes = pool.counted("pulpo_job_retries_total", reason="crash")
        killed = pool.counted("pulpo_worker_exits_total", reason="signal")

    assert (crashes, killed) == (0, 1)
