"""A pool that is told to stop finishes what it holds, takes nothing more, and loses nothing."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress

import pytest
from pool import PATIENCE, PoolProcess, eventually, is_gone
from shops import SHOP, SLOW_SHOP

from pulpo_pool.queues.adapter import JobState

NEVER = ("--drain-timeout", "600")  # seconds; a test that reaches it has failed


def numbered(count, *, first=0):
    return [{"n": n} for n in range(first, first + count)]


def hold(pool, workers):
    """Let every worker have a job that does not end."""
    pool.ready()
    pool.publish("hold", numbered(workers))
    eventually(lambda: len(pool.lines("started")) == workers, what="every worker has a job")


def is_draining(pool):
    return pool.status()["master"]["state"] == "draining"


def terminate(pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def test_term_to_every_process_twice_loses_nothing_and_fails_nothing(tmp_path):
    """As platforms do it. The services outlive the workers, and web tells why it is not ready.

    The jobs outlast the two seconds that they would get if a second TERM meant to stop now.
    """
    with PoolProcess(tmp_path, "-w", "4", *NEVER, app=SHOP) as pool:
        pool.ready()
        pool.publish("work", [{"n": n, "seconds": 3} for n in range(4)])
        eventually(lambda: len(pool.lines("started")) == 4, what="every worker has a job")
        pool.publish("note", numbered(10, first=4))
        everybody = pool.members()
        terminate(everybody)
        eventually(lambda: is_draining(pool), what="the pool drains")
        terminate(everybody)
        status, reasons = pool.http("/readyz")
        still_there = [pid for pid in everybody if not is_gone(pid)]
        code = pool.wait()
        ready = pool.jobs(JobState.READY)
        stats = pool.stats()
        outcomes = {
            outcome: pool.counted_in_files("pulpo_jobs_finished_total", outcome=outcome)
            for outcome in ("success", "retried", "buried", "expired", "lost")
        }

    assert (status, "draining" in reasons) == (503, True)
    assert still_there == everybody
    assert code == 0
    assert pool.numbers("done") == [0, 1, 2, 3]
    assert [(job.attempts, job.crashes) for job in ready] == [(0, 0)] * 10
    assert (stats.ready, stats.delayed, stats.reserved, stats.buried) == (10, 0, 0, 0)
    assert outcomes == {"success": 4, "retried": 0, "buried": 0, "expired": 0, "lost": 0}


def test_term_until_nobody_is_there_is_a_clean_end(tmp_path):
    """The last of them meet the master on its way out of Python."""
    with PoolProcess(tmp_path, "-w", "1", *NEVER, app=SHOP) as pool:
        pool.ready()

        def is_told_and_gone():
            for _ in range(1_000):
                pool.signal(signal.SIGTERM)
            return pool.process.poll() is not None

        eventually(is_told_and_gone, what="the pool has ended")
        code = pool.wait()

    assert code == 0


def test_term_to_every_process_under_full_load_neither_loses_nor_repeats(tmp_path):
    """Several times over: each start takes up exactly what the one before has left."""
    total, done, codes = 3_000, 0, []
    for _ in range(3):
        with PoolProcess(tmp_path, "-w", "4", *NEVER, app=SHOP) as pool:
            if not codes:
                pool.publish("work", [{"n": n, "seconds": 0.001} for n in range(total)])
            goal = done + 500
            eventually(lambda goal=goal, pool=pool: len(pool.lines("done")) >= goal)
            terminate(pool.members())
            codes.append(pool.wait())
            done = len(pool.lines("done"))
            stats = pool.stats()
            assert (stats.ready, stats.reserved) == (total - done, 0)

    assert codes == [0, 0, 0]
    assert len({n for n, _ in pool.lines("done")}) == done < total


def test_a_job_that_outlives_the_drain_timeout_is_cut_off_and_handed_back(tmp_path):
    """It costs no attempt and is no crash; the pool says so by its exit code and its log."""
    with PoolProcess(tmp_path, "-w", "2", "--drain-timeout", "1", app=SHOP) as pool:
        hold(pool, 2)
        pool.signal(signal.SIGTERM)
        code = pool.wait()
        ready = pool.jobs(JobState.READY)
        left = pool.members()

    assert code == 1
    assert [(job.attempts, job.crashes) for job in ready] == [(0, 0)] * 2
    assert pool.log.count("its job goes back to the queue") == 2
    assert left == []


@pytest.mark.parametrize("way", ["INT", "QUIT", "stop"])
def test_stopping_now_does_not_wait_for_the_drain_timeout(tmp_path, way):
    """A second Ctrl-C, QUIT or `pulpo-pool stop`: jobs get two seconds, then are handed back."""
    with PoolProcess(tmp_path, "-w", "2", *NEVER, app=SHOP) as pool:
        hold(pool, 2)
        if way == "INT":
            pool.signal(signal.SIGINT)
            eventually(lambda: is_draining(pool), what="the first one drains")
            pool.signal(signal.SIGINT)
        elif way == "QUIT":
            pool.signal(signal.SIGQUIT)
        else:
            assert pool.command("stop").returncode == 0
        code = pool.wait()
        ready = pool.jobs(JobState.READY)

    assert code == 1
    assert [(job.attempts, job.crashes) for job in ready] == [(0, 0)] * 2


def test_the_drain_command_waits_for_the_end(tmp_path):
    with PoolProcess(tmp_path, "-w", "2", *NEVER, app=SHOP) as pool:
        hold(pool, 2)
        waiting = pool.start("drain")
        eventually(lambda: is_draining(pool), what="the pool drains")
        at_once = pool.command("drain", "--no-wait")
        refused = pool.ask("scale", "4")
        waits = waiting.poll() is None
        pool.let_go()
        told = waiting.wait(PATIENCE)

        assert pool.wait() == 0
    assert at_once.returncode == 0
    assert not refused["ok"]
    assert "draining" in refused["error"]
    assert (waits, told) == (True, 0)
    assert pool.numbers("done") == [0, 1]


@pytest.mark.parametrize("rest", ["pause", "quiet"])
def test_a_pool_that_rests_drains_too(tmp_path, rest):
    with PoolProcess(tmp_path, "-w", "2", *NEVER, app=SHOP) as pool:
        hold(pool, 2)
        pool.publish("note", numbered(3, first=2))
        assert pool.ask(rest)["ok"]
        pool.signal(signal.SIGTERM)
        eventually(lambda: is_draining(pool), what="the pool drains")
        pool.let_go()

        assert pool.wait() == 0
        assert pool.numbers("done") == [0, 1]
        assert pool.stats().ready == 3


@pytest.mark.parametrize("unblocked", [True, False], ids=["boot goes on", "boot hangs"])
def test_a_pool_that_boots_drains_without_taking_a_job(tmp_path, unblocked):
    """A boot that goes on is left by itself; one that hangs is ended, and costs no job."""
    (tmp_path / "block").touch()
    patience = NEVER if unblocked else ("--drain-timeout", "0.5")
    with PoolProcess(tmp_path, "-w", "2", "--no-preload", *patience, app=SLOW_SHOP) as pool:
        eventually(lambda: len(pool.lines("booting")) == 2, what="both are in their boot")
        pool.publish("note", numbered(3))
        pool.signal(signal.SIGTERM)
        if unblocked:
            eventually(lambda: is_draining(pool), what="the pool drains")
            (tmp_path / "block").unlink()

        assert pool.wait() == 0
        assert pool.stats().ready == 3
        assert pool.lines("done") == []


def test_a_pool_that_imports_its_app_leaves_at_once(tmp_path):
    """An import hears nothing, and holds nothing that could be lost: it is not waited for."""
    app = """
import pathlib, threading

pathlib.Path("importing").touch()
threading.Event().wait()
"""
    with PoolProcess(tmp_path, "-w", "2", "--preload", *NEVER, app=app) as pool:
        eventually((tmp_path / "importing").exists, what="the template imports")
        pool.signal(signal.SIGTERM)

        assert pool.wait() == 0
        assert "did not leave in time" not in pool.log
        assert re.search(r"template \(pid \d+\) left: shutdown", pool.log)


def test_term_to_a_single_worker_means_that_worker_alone(tmp_path):
    """It finishes its job and is replaced; the replacement was planned, so nothing failed."""
    with PoolProcess(tmp_path, "-w", "2", *NEVER, app=SHOP) as pool:
        hold(pool, 2)
        old, other = pool.worker_pids()
        terminate([old, old])
        pool.let_go()
        pool.replaced(0, old)
        stays = pool.pid_of(1)
        exits = {
            reason: pool.counted("pulpo_worker_exits_total", reason=reason)
            for reason in ("operator", "signal", "error")
        }
        forks = pool.counted("pulpo_worker_forks_total", reason="recycle")
        eventually(pool.empty, what="the jobs are done")

    assert stays == other
    assert pool.numbers("done") == [0, 1]
    assert exits == {"operator": 1, "signal": 0, "error": 0}
    assert forks == 1


def test_services_are_left_alone_by_term_and_leave_last(tmp_path):
    """Workers, keeper, web: so that what workers leave is rescued, and all of it is shown."""
    with PoolProcess(tmp_path, "-w", "2", *NEVER, app=SHOP) as pool:
        hold(pool, 2)
        services = [pool.pid_of(role) for role in ("keeper", "web", "template")]
        terminate(services)
        pool.signal(signal.SIGTERM)
        pool.let_go()
        code = pool.wait()
    ends = [
        next(x for x in ("keeper", "web", "template", "worker") if f'"{x} ' in line)
        for line in pool.log.splitlines()
        if "left: shutdown" in line
    ]

    assert code == 0
    assert ends == ["worker", "worker", "keeper", "web", "template"]
