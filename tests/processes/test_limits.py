"""Limits of a worker's life, and of how many are kept, seen in pids, metrics and files."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pool import PoolProcess, eventually
from shops import SHOP

from pulpo_pool.queues.adapter import JobState

LIVES = 500  # 2,000 were tried by hand, with the same end: it takes a minute

GREEDY_SHOP = (
    SHOP
    + """
kept = []


@pulpo.job()
def leak(n):
    kept.append(os.urandom(10_000_000))
    append("done", n, os.getpid())
    time.sleep(0.1)


@pulpo.job()
def hoard(size):
    hoarded = b"x" * size
    append("hoarding", size, os.getpid())
    while True:
        time.sleep(1)
"""
)


def numbered(count, **fields):
    return [{"n": n, **fields} for n in range(count)]


def exits(pool):
    """Return how often workers left, by why; reasons that never were are left out."""
    reasons = ("idle", "max_jobs", "max_age", "max_memory", "oom", "signal", "error", "boot")
    counts = {r: pool.counted("pulpo_worker_exits_total", reason=r) for r in reasons}
    return {reason: count for reason, count in counts.items() if count}


def watched_until_empty(pool):
    """Wait until the jobs are done; return the fewest workers that were up meanwhile."""
    fewest = 1_000

    def done():
        nonlocal fewest
        workers = pool.status()["workers"]
        fewest = min(fewest, sum(w["state"] in ("idle", "busy") for w in workers))
        return pool.empty()

    eventually(done, what="the jobs are done")
    return fewest


class TestPlanned:
    @pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
    def test_workers_are_replaced_after_so_many_jobs(self, tmp_path, preload):
        """Each job runs once, and three quarters of the pool are there at any moment."""
        with PoolProcess(tmp_path, "-w", "4", "--max-jobs", "20", preload, app=SHOP) as pool:
            pool.ready().publish("work", numbered(400, seconds=0.02))
            fewest = watched_until_empty(pool)
            alive = pool.ready().worker_pids()
            why = exits(pool)

        lives = Counter(int(pid) for _, pid in pool.lines("done"))
        ended = [jobs for pid, jobs in lives.items() if pid not in alive]
        assert pool.numbers("done") == list(range(400))
        assert fewest >= 3
        assert set(why) == {"max_jobs"}
        assert len(ended) >= 4
        assert min(ended) >= 18

    def test_workers_are_replaced_at_their_age_though_there_is_no_job(self, tmp_path):
        age = ("--max-age", "1", "--sleep-duration", "0.2")
        with PoolProcess(tmp_path, "-w", "2", *age, app=SHOP) as pool:
            seen = set(pool.ready().worker_pids())

            def three_lives_each():
                seen.update(pool.worker_pids())
                return len(seen) >= 6

            eventually(three_lives_each, what="the pids of three lives in each of two slots")
            why = exits(pool)

        assert set(why) == {"max_age"}

    def test_a_handler_that_leaks_costs_its_worker_and_no_job(self, tmp_path):
        with PoolProcess(tmp_path, "-w", "2", "--max-memory", "100M", app=GREEDY_SHOP) as pool:
            first = pool.ready().worker_pids()
            pool.publish("leak", numbered(130))
            eventually(lambda: not set(first) & set(pool.worker_pids()), what="both were replaced")
            eventually(pool.empty, what="the jobs are done")
            why = exits(pool)

        assert set(why) == {"max_memory"}
        assert pool.numbers("done") == list(range(130))
        assert "max-memory" not in pool.log.replace("max_memory", "")

    def test_a_limit_below_what_a_worker_needs_is_named_and_no_storm(self, tmp_path):
        with PoolProcess(tmp_path, "-w", "4", "--max-memory", "100k", app=SHOP) as pool:
            pids = pool.ready().worker_pids()
            eventually(lambda: "is below what a worker needs" in pool.log, what="the warning")
            pool.publish("note", numbered(200))
            eventually(pool.empty, what="the jobs are done")
            kept = pool.worker_pids()

        assert kept == pids
        assert pool.log.count("max-memory (100 kB) is below what a worker needs") == 1


class TestHardLimit:
    def test_who_takes_too_much_at_once_is_killed_and_its_job_buried(self, tmp_path):
        limits = ("--max-memory-hard", "300M", "--max-crashes", "2")
        with PoolProcess(tmp_path, "-w", "2", *limits, app=GREEDY_SHOP) as pool:
            pool.ready().publish("hoard", [{"size": 1_000_000_000}])
            pool.publish("note", numbered(20))
            [job] = eventually(lambda: pool.jobs(JobState.BURIED), what="the job is buried")
            pool.ready()
            eventually(lambda: len(pool.lines("done")) == 20, what="the others are done")
            why = exits(pool)
            log = pool.log

        assert why == {"oom": 2}
        assert job.crashes == 2
        assert "had too much memory and was killed for it" in job.error
        assert "max RSS 1" in job.error
        assert "over max-memory-hard (300 MB): killing it" in log


class TestParking:
    IDLE = ("--min-workers", "1", "--max-empty-iterations", "2", "--sleep-duration", "0.2")

    def parked(self, folder, workers=4):
        pool = PoolProcess(folder, "-w", str(workers), *self.IDLE, app=SHOP)
        everyone_else = list(range(1, workers))
        eventually(pool.try_status, what="the pool answers")
        eventually(lambda: pool.workers_in("parked") == everyone_else, what="all but one park")
        return pool

    def test_idle_workers_leave_and_return_when_all_others_are_busy(self, tmp_path):
        with self.parked(tmp_path) as pool:
            shown = pool.metric('pulpo_workers{state="parked"}')
            pool.publish("hold", numbered(4))
            eventually(lambda: len(pool.lines("started")) == 4, what="four jobs are held")
            busy = pool.workers_in("busy")
            pool.let_go()
            eventually(lambda: pool.workers_in("parked") == [1, 2, 3], what="they park again")
            why = exits(pool)

        assert shown == 3
        assert busy == [0, 1, 2, 3]
        assert set(why) == {"idle"}
        assert pool.numbers("done") == [0, 1, 2, 3]

    def test_one_busy_worker_calls_one_other(self, tmp_path):
        with self.parked(tmp_path) as pool:
            pool.publish("hold", numbered(1))
            eventually(lambda: pool.workers_in("idle") == [1], what="one waits again")
            states = [worker["state"] for worker in pool.status()["workers"]]

        assert states == ["busy", "idle", "parked", "parked"]

    def test_a_pool_with_parked_places_grows_shrinks_reloads_and_drains(self, tmp_path):
        with self.parked(tmp_path) as pool:
            pool.signal(signal.SIGTTOU)
            eventually(lambda: pool.workers_in("parked") == [1, 2], what="three are wanted")
            pool.ask("scale", "1")
            eventually(lambda: pool.workers_in("parked") == [], what="one is wanted")
            shown = len(pool.status()["workers"])
            pool.ask("scale", "5")
            pool.signal(signal.SIGTTIN)
            eventually(lambda: pool.workers_in("parked") == [1, 2, 3, 4, 5], what="six, parked")
            reload = pool.command("reload")
            pool.ask("pause")
            pool.ask("resume")
            pool.publish("work", numbered(20))
            eventually(pool.empty, what="the jobs are done")
            pool.signal(signal.SIGTERM)
            code = pool.wait()

        assert shown == 1
        assert (reload.returncode, code) == (0, 0)
        assert pool.numbers("done") == list(range(20))

    def test_the_minimum_is_there_whatever_happens_to_it(self, tmp_path):
        """The worker that stays dies with its job: it is replaced, and nobody else need be."""
        with self.parked(tmp_path) as pool:
            # It, too, may be leaving for want of work, and another be on its way.
            old = eventually(lambda: pool.pid_of(0), what="the minimum is there")
            with suppress(psutil.NoSuchProcess):
                psutil.Process(old).kill()
            pool.replaced(0, old)
            pool.publish("note", numbered(5))
            eventually(pool.empty, what="the jobs are done")

        assert pool.numbers("done") == list(range(5))


def household(pool):
    """Return what a pool has of whatever recycling could use up."""
    members = {}
    for pid in pool.members():
        with suppress(psutil.Error, IndexError):
            process = psutil.Process(pid)
            members[process.cmdline()[0]] = process
    services = ("master", "template gen 1", "keeper", "web")
    return {
        "descriptors": {s: members[f"pulpo-pool: {s}"].num_fds() for s in services},
        "processes": len(pool.members()),
        "metrics files": sorted(p.name for p in (pool.run_directory / "metrics").iterdir()),
        "shared memory": sorted(p.name for p in Path("/dev/shm").iterdir()),
    }


def household_at_rest(pool):
    """Return what it has once nobody is on the way out and no connection is being closed."""
    seen = []

    def at_rest():
        seen.append(household(pool))
        return seen[-3:] == [seen[-1]] * 3

    eventually(at_rest, what="three looks in a row see the same")
    return seen[-1]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")
def test_recycling_without_end_uses_up_nothing(tmp_path):
    """Hundreds of lives, each of few jobs: descriptors, processes and files are as before."""
    with PoolProcess(tmp_path, "-w", "8", "--max-jobs", "1", app=SHOP) as pool:
        pool.ready().publish("work", numbered(40))
        eventually(pool.empty, what="every slot has had a life or two")
        pool.http("/metrics")
        pool.ready()
        before = household_at_rest(pool)
        ended = pool.log.count("left: max_jobs")

        def enough_lives():
            if pool.stats().ready < 100:
                pool.publish("work", numbered(500))
            return pool.log.count("left: max_jobs") - ended >= LIVES

        eventually(enough_lives, within=120, what=f"{LIVES} lives")
        eventually(pool.empty, what="the jobs are done")
        pool.ready()
        after, why = household_at_rest(pool), exits(pool)

    assert after == before
    assert set(why) == {"max_jobs"}
    assert why["max_jobs"] >= LIVES
