"""Kill -9 of anybody, at any time: no job is lost, and each is back long before its lease ends."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest
from pool import PoolProcess, eventually, is_gone
from shops import SHOP

# Nothing that comes back within the patience of a test comes back by this lease.
LONG_LEASE = ("--lease", "600")
BACK_WITHIN = 10.0  # seconds, for the few that meet a busy machine
MOSTLY_BACK_WITHIN = 1.0  # seconds, for three of four; a keeper that is not rung takes up to five


def numbered(count, *, first=0):
    return [{"n": n} for n in range(first, first + count)]


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def left_unfinished(pool, killed):
    """Return job, pid and time of every start whose worker was killed before it said done."""
    finished = {(n, pid) for n, pid in pool.lines("done")}
    return [
        (n, int(pid), float(when))
        for n, pid, when in pool.lines("started")
        if int(pid) in killed and (n, pid) not in finished
    ]


@pytest.fixture
def holding(tmp_path):
    """A pool of four workers, each with a job that does not end, and ten jobs that wait."""
    with PoolProcess(tmp_path, "-w", "4", *LONG_LEASE, app=SHOP) as pool:
        pool.ready()
        pool.publish("hold", numbered(4))
        eventually(lambda: len(pool.lines("started")) == 4, what="four jobs are held")
        pool.publish("note", numbered(10, first=4))
        yield pool


def test_kills_of_workers_lose_no_job_and_each_is_back_at_once(tmp_path):
    killed = {}
    with PoolProcess(tmp_path, "-w", "8", *LONG_LEASE, app=SHOP) as pool:
        pool.ready()
        pool.publish("work", numbered(2_000))
        for goal in range(50, 1_950, 100):
            eventually(lambda goal=goal: len(pool.lines("done")) >= goal, what=f"{goal} are done")
            pid = random.choice(pool.worker_pids())
            kill(pid)
            killed[pid] = time.time()
        eventually(pool.empty, what="the queue is empty")
        buried = pool.stats().buried

    waits: list[float] = []
    for n, pid, when in left_unfinished(pool, killed):
        again = [float(t) for m, _, t in pool.lines("started") if m == n and float(t) > when]
        assert again, f"job {n} of the killed worker {pid} was never started again"
        waits.append(min(again) - killed[pid])

    assert set(pool.numbers("done")) == set(range(2_000))
    assert buried == 0
    assert len(waits) >= 5, "the kills hit too few jobs to show anything"
    waits.sort()
    assert waits[-1] < BACK_WITHIN
    assert waits[len(waits) * 3 // 4] < MOSTLY_BACK_WITHIN
    print(f"{len(waits)} jobs were back within {waits[-1]:.3f} s")


def test_when_the_master_is_killed_everyone_leaves_with_their_work_done(holding):
    """Workers finish what they hold, and take nothing more; keeper and web go at once."""
    services = [holding.pid_of("keeper"), holding.pid_of("web")]
    workers = holding.worker_pids()
    kill(holding.pid)
    eventually(lambda: all(map(is_gone, services)), what="keeper and web are gone")
    still_there = [pid for pid in workers if not is_gone(pid)]
    holding.let_go()
    eventually(lambda: all(map(is_gone, workers)), what="the workers are gone")
    stats = holding.stats()

    assert still_there == workers
    assert holding.numbers("done") == [0, 1, 2, 3]
    assert (stats.ready, stats.reserved, stats.buried) == (10, 0, 0)


def test_orphans_with_a_job_that_does_not_end_leave_at_the_drain_timeout(tmp_path):
    with PoolProcess(tmp_path, "-w", "2", "--drain-timeout", "0.5", app=SHOP) as pool:
        pool.ready()
        pool.publish("hold", numbered(2))
        eventually(lambda: len(pool.lines("started")) == 2, what="both jobs are held")
        kill(pool.pid)
        pool.process.wait()

        eventually(lambda: pool.members() == [], what="everyone is gone")


def test_after_a_kill_of_the_master_the_next_start_takes_all_up_at_once(holding):
    """It does not wait for the lease, nor for the orphans that still hold the jobs."""
    kill(holding.pid)
    holding.process.wait()
    with PoolProcess(holding.folder, "-w", "4", *LONG_LEASE, app=SHOP) as pool:
        eventually(lambda: len(pool.lines("started")) >= 8, what="the held jobs run again")
        pool.let_go()
        eventually(pool.empty, what="the queue is empty")
        eventually(lambda: holding.members() == [], what="the orphans are gone")

    assert set(pool.numbers("done")) == set(range(14))


def test_after_a_kill_of_all_at_once_the_next_start_takes_all_up_at_once(holding):
    """The death of a pool is no crash of its jobs: they are done, and nothing is buried."""
    holding.kill_all()
    holding.process.wait()
    eventually(lambda: holding.members() == [], what="everyone is gone")
    reserved = holding.stats().reserved
    with PoolProcess(holding.folder, "-w", "4", *LONG_LEASE, app=SHOP) as pool:
        eventually(lambda: len(pool.lines("started")) == 8, what="the held jobs run again")
        pool.let_go()
        eventually(pool.empty, what="the queue is empty")
        crashes = pool.counted("pulpo_job_retries_total", reason="crash")

    assert reserved == 4
    assert pool.numbers("done") == list(range(14))
    assert crashes == 0


def test_services_that_are_killed_are_replaced(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=SHOP) as pool:
        pool.ready()
        old = {service: pool.pid_of(service) for service in ("keeper", "web")}
        for pid in old.values():
            kill(pid)
        new = {service: pool.replaced(service, pid) for service, pid in old.items()}
        code, _ = pool.http("/healthz")

    assert not set(old.values()) & set(new.values())
    assert code == 200


def test_a_worker_that_dies_while_there_is_no_keeper_has_its_job_rescued(holding):
    """The master is stopped meanwhile, so that it can replace neither until both are dead."""
    keeper = holding.pid_of("keeper")
    holding.signal(signal.SIGSTOP)
    number, worker, _ = holding.lines("started")[0]
    for pid in (keeper, int(worker)):
        kill(pid)
        eventually(lambda pid=pid: is_gone(pid), what=f"{pid} is dead")
    holding.signal(signal.SIGCONT)
    eventually(
        lambda: [n for n, *_ in holding.lines("started")].count(number) == 2,
        what="the job of the dead worker runs again",
    )
    holding.let_go()
    eventually(holding.empty, what="the queue is empty")

    assert holding.numbers("done") == list(range(14))


def test_a_killed_worker_takes_what_it_started_with_it(tmp_path):
    """No grandchild works on a job that is handed back."""
    app = (
        SHOP
        + """
import subprocess

@pulpo.job()
def delegate(n):
    child = subprocess.Popen(["sleep", "600"])
    append("children", child.pid)
    child.wait()
"""
    )
    with PoolProcess(tmp_path, "-w", "1", *LONG_LEASE, app=app) as pool:
        pool.ready()
        pool.publish("delegate", [{"n": 1}])
        eventually(lambda: pool.lines("children"), what="the handler started a program")
        first = pool.numbers("children")[0]
        kill(pool.worker_pids()[0])

        eventually(lambda: is_gone(first), what="the grandchild is dead")
        eventually(lambda: len(pool.lines("children")) == 2, what="the job runs again")
