"""A pool on a real beanstalkd: nothing is lost, whoever dies, and nobody polls."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import greenstalk
import psutil
import pytest
from pool import PoolProcess, eventually, is_gone
from servers import Beanstalkd
from shops import CRASH_SHOP, SHOP

from pulpo_pool.queues.adapter import JobState

APP = (
    CRASH_SHOP
    + """

@pulpo.job()
def crash_thrice_and_hang(n):
    append("crashed", n, os.getpid())
    if Path("crashed").read_text().count("\\n") == 4:
        while not Path("again").exists():
            time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


@pulpo.job()
def crash_once(n, job: JobContext):
    if job.crashes == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    append("crashes", n, job.crashes, job.attempt)


@pulpo.job()
def fail(n):
    raise LookupError(f"no customer {n}")
"""
)


class BeanstalkdPool(PoolProcess):
    """A pool whose queue is a tube."""

    def __init__(self, folder, server, *arguments, query="", **options):
        super().__init__(folder, *arguments, broker=server.url + query, **options)

    def evened_out(self):
        """Tell whether the server has nothing left of what the pool is to do."""
        try:
            return self.empty()
        except Exception:  # noqa: BLE001 - the server is away
            return False


@pytest.fixture
def server():
    with Beanstalkd() as server:
        yield server


@pytest.fixture
def durable(tmp_path):
    with Beanstalkd(folder=tmp_path / "log") as server:
        yield server


def waiting(server):
    """Return how many connections wait in a reserve."""
    with greenstalk.Client((server.host, server.port)) as client:
        return client.stats()["current-waiting"]


def test_every_job_is_done_once_and_in_one_turn(tmp_path, server):
    with BeanstalkdPool(tmp_path, server, "-w", "2", app=SHOP) as pool:
        pool.ready()
        pool.publish("note", [{"n": n} for n in range(500)])
        eventually(pool.empty, what="the jobs are done")
        waits = pool.counted("pulpo_job_wait_seconds_count")
        pool.signal(signal.SIGTERM)
        code = pool.wait()

    assert 1 <= waits <= 500  # of a few only is it asked whether this is the first attempt
    assert pool.numbers("done") == list(range(500))
    assert code == 0


def test_idle_workers_wait_in_the_server_and_leave_at_once(tmp_path, server):
    """A blocking reserve each; a job is picked up and TERM is noticed without a timeout passing."""
    with BeanstalkdPool(tmp_path, server, "-w", "2", "--sleep-duration", "600", app=SHOP) as pool:
        pool.ready()
        eventually(lambda: waiting(server) == 2, what="both wait")
        pool.publish("note", [{"n": 1}])
        eventually(pool.empty, what="the job is done")
        eventually(lambda: waiting(server) == 2, what="both wait again")
        pool.signal(signal.SIGTERM)
        code = pool.wait()

    assert pool.numbers("done") == [1]
    assert code == 0


def test_short_looks_for_work_leave_the_server_in_peace(tmp_path, server):
    """With a sleep duration of 0.2 s the reserve of the last look is read on, not repeated."""
    with BeanstalkdPool(
        tmp_path, server, "-w", "1", "--sleep-duration", "0.2", "--max-empty-iterations", "0",
        app=SHOP,
    ) as pool:  # fmt: skip
        pool.ready()
        eventually(lambda: waiting(server) == 1, what="it waits")
        with greenstalk.Client((server.host, server.port)) as client:
            before = client.stats()["cmd-reserve"]
            worker = psutil.Process(pool.pid_of(0))
            woken = worker.num_ctx_switches().voluntary
            eventually(
                lambda: worker.num_ctx_switches().voluntary >= woken + 5, what="it looks again"
            )
            looks = client.stats()["cmd-reserve"] - before
        pool.publish("note", [{"n": 1}])
        eventually(pool.empty, what="the job is done")

    assert looks == 0
    assert pool.numbers("done") == [1]


def test_a_resting_pool_takes_nothing_from_the_server(tmp_path, server):
    with BeanstalkdPool(tmp_path, server, "-w", "2", app=SHOP) as pool:
        pool.ready()
        eventually(lambda: waiting(server) == 2, what="both wait")
        assert pool.ask("pause")["ok"]
        eventually(lambda: waiting(server) == 0, what="nobody waits")
        pool.publish("note", [{"n": 1}])
        paused = pool.stats()
        assert pool.ask("resume")["ok"]
        eventually(pool.empty, what="the job is done")

    assert (paused.ready, paused.reserved) == (1, 0)
    assert pool.numbers("done") == [1]


def test_a_killed_workers_job_is_back_at_once(tmp_path, server):
    """Long before its lease ends, and with the crash counted."""
    with BeanstalkdPool(tmp_path, server, "-w", "1", query="?lease=3600", app=APP) as pool:
        pool.ready()
        pool.publish("crash_once", [{"n": 7}])
        eventually(lambda: pool.lines("crashes"), what="it ran again")
        retries = eventually(
            lambda: pool.counted("pulpo_job_retries_total", reason="crash"), what="it is counted"
        )

    assert pool.lines("crashes") == [["7", "1", "2"]]
    assert retries == 1


def test_jobs_that_kill_their_workers_are_buried_after_three(tmp_path, server):
    """Though other workers get them before the master has seen who died; the good ones flow."""
    with BeanstalkdPool(tmp_path, server, "-w", "4", app=APP) as pool:
        pool.ready()
        pool.publish("crash", [{"n": n} for n in range(5)], priority=1)
        pool.publish("note", [{"n": n} for n in range(100)])
        eventually(lambda: pool.stats().buried == 5, 60, what="the bad ones are buried")
        eventually(pool.empty, what="the good ones are done")
        eventually(
            lambda: pool.counted("pulpo_job_retries_total", reason="crash") == 10,
            what="the first two crashes of each are counted",
        )
        buries = pool.counted("pulpo_job_buries_total", reason="crashed")
        listed = pool.command("list", "--state", "buried", "--json", "--broker", pool.broker)
        log = pool.log
    jobs = [json.loads(line) for line in listed.stdout.splitlines()]
    histories = [job["history"] for job in jobs]

    assert {(job["reason"], job["crashes"]) for job in jobs} == {("crashed", 3)}
    assert all("signal 9 (SIGKILL)" in job["error"] for job in jobs)
    assert [[each["outcome"] for each in told] for told in histories] == [
        ["retried", "retried", "buried"]
    ] * 5
    assert [{each["signal"] for each in told} for told in histories] == [{9}] * 5
    assert all(len({each["worker"] for each in told}) == 3 for told in histories)
    assert all(each["max_rss"] > 0 for told in histories for each in told)
    assert Counter(pool.numbers("crashed")) == dict.fromkeys(range(5), 3)
    assert pool.numbers("done") == list(range(100))
    assert buries == 5
    assert "buried (crashed): worker" in log
    assert "signal 9 (SIGKILL)" in log


def test_crashes_are_remembered_by_the_next_start_of_the_pool_and_forgiven_by_a_kick(
    tmp_path, server
):
    with BeanstalkdPool(tmp_path, server, "-w", "1", "--max-crashes", "2", app=APP) as pool:
        pool.ready()
        pool.publish("crash_thrice_and_hang", [{"n": 1}])
        eventually(lambda: pool.stats().buried == 1, what="it is buried")
        kicked = pool.command("kick", "--all", "--broker", pool.broker)
        eventually(lambda: len(pool.numbers("crashed")) == 4, what="it ran again, and hangs")
        eventually(lambda: "crashes so far 3" in pool.log, what="the third is written down")
        pool.kill_all()
    (tmp_path / "again").touch()
    with BeanstalkdPool(tmp_path, server, "-w", "1", "--max-crashes", "2", app=APP) as pool:
        eventually(lambda: pool.stats().buried == 1, what="it is buried again")

    assert kicked.returncode == 0, kicked.stderr
    assert len(pool.numbers("crashed")) == 5, "forgotten, the third would have let it run once more"


def test_a_cut_connection_is_no_crash(tmp_path, durable):
    """A server that is killed in the middle of a job frees it; the worker lives."""
    with BeanstalkdPool(tmp_path, durable, "-w", "1", "--max-crashes", "1", app=SHOP) as pool:
        pool.ready()
        pids = pool.worker_pids()
        pool.publish("hold", [{"n": 1}])
        eventually(lambda: pool.lines("started"), what="it runs")
        durable.kill()
        durable.start()
        pool.let_go()
        eventually(pool.evened_out, what="the job is settled after all")
        same_workers = pool.worker_pids() == pids
        buried = pool.jobs(JobState.BURIED)

    assert same_workers
    assert buried == []
    assert pool.numbers("done") == [1]


def test_a_server_that_crashes_again_and_again_loses_no_job(tmp_path, durable):
    """5,000 jobs, 8 workers, kill -9 of the server: every job at least once, workers stay."""
    with BeanstalkdPool(tmp_path, durable, "-w", "8", app=SHOP) as pool:
        pool.ready()
        pids = sorted(pool.worker_pids())
        pool.publish("note", [{"n": n} for n in range(5_000)])
        for _ in range(3):
            seen = len(pool.lines("done"))
            eventually(lambda seen=seen: len(pool.lines("done")) >= min(seen + 500, 5_000), 60)
            durable.kill()
            durable.start()
        eventually(pool.evened_out, 90, what="every job is done")
        eventually(
            lambda: pool.counted("pulpo_queue_reconnects_total") >= 8, what="all have reconnected"
        )
        same_workers = sorted(pool.worker_pids()) == pids
    runs = Counter(pool.numbers("done"))
    repeated = sum(times - 1 for times in runs.values())

    assert set(runs) == set(range(5_000))
    assert repeated <= 3 * 2 * 8, "each crash may repeat what each worker had not settled"
    assert same_workers


def test_a_server_that_hangs_is_told_by_readyz_and_waited_for(tmp_path, server):
    with BeanstalkdPool(
        tmp_path, server, "-w", "2", "--sleep-duration", "0.2", query="?socket_timeout=0.5",
        app=SHOP,
    ) as pool:  # fmt: skip
        pool.ready()
        pids = sorted(pool.worker_pids())
        pool.publish("hold", [{"n": n} for n in range(2)])
        eventually(lambda: len(pool.lines("started")) == 2, what="both run")
        server.hang()
        pool.let_go()
        _, reasons = eventually(
            lambda: (answer := pool.http("/readyz"))[0] == 503 and answer,
            what="/readyz says that the queue is away",
        )
        server.go_on()
        eventually(pool.evened_out, what="the jobs are settled")
        eventually(lambda: pool.http("/readyz")[0] == 200, what="/readyz is content")
        same_workers = sorted(pool.worker_pids()) == pids

    assert "queue" in reasons
    assert set(pool.numbers("done")) == {0, 1}
    assert same_workers


def test_a_pool_starts_without_its_server_and_waits_for_it(tmp_path, server):
    server.kill()
    with BeanstalkdPool(tmp_path, server, "-w", "1", app=SHOP) as pool:
        eventually(lambda: "nothing listens there" in pool.log, what="the log says so")
        server.start()
        pool.ready()
        pool.publish("note", [{"n": 1}])
        eventually(pool.empty, what="the job is done")

    assert pool.numbers("done") == [1]


def test_a_job_longer_than_its_lease_runs_once(tmp_path, server):
    with BeanstalkdPool(tmp_path, server, "-w", "2", query="?lease=1", app=SHOP) as pool:
        pool.ready()
        pool.publish("work", [{"n": 1, "seconds": 4.0}])
        eventually(pool.empty, what="the job is done")

    assert pool.numbers("started") == [1]
    assert pool.numbers("done") == [1]


def test_a_failing_job_waits_and_a_drained_pool_hands_back_what_it_cut_off(tmp_path, server):
    with BeanstalkdPool(tmp_path, server, "-w", "2", "--drain-timeout", "0.5", app=APP) as pool:
        pool.ready()
        pool.publish("fail", [{"n": 1}])
        eventually(lambda: "attempt 1 failed" in pool.log, what="the first attempt failed")
        eventually(lambda: pool.stats().reserved == 0, what="it was put back")
        pool.publish("hold", [{"n": 2}])
        eventually(lambda: pool.lines("started"), what="the other runs")
        pool.signal(signal.SIGTERM)
        code = pool.wait()
        with pool.queue() as queue:
            left = queue.stats()["default"]

    assert code == 1
    assert left.ready + left.delayed == 2
    assert left.reserved == 0


def test_an_idle_pool_costs_no_cpu(tmp_path, server):
    """Workers wait in the kernel: their CPU time does not move while nothing happens."""
    with BeanstalkdPool(tmp_path, server, "-w", "2", "--sleep-duration", "600", app=SHOP) as pool:
        pool.ready()
        eventually(lambda: waiting(server) == 2, what="both wait")
        workers = [psutil.Process(pid) for pid in pool.worker_pids()]
        switches = [worker.num_ctx_switches().voluntary for worker in workers]
        time.sleep(1.0)  # nothing is awaited: nothing shall happen
        after = [worker.num_ctx_switches().voluntary for worker in workers]

    assert [b - a for a, b in zip(switches, after, strict=True)] == [0, 0]


def test_a_worker_killed_from_outside_frees_its_job_for_another(tmp_path, server):
    with BeanstalkdPool(tmp_path, server, "-w", "2", query="?lease=3600", app=SHOP) as pool:
        pool.ready()
        pool.publish("hold", [{"n": 1}])
        ((_, pid, _),) = eventually(lambda: pool.lines("started"), what="it runs")
        os.kill(int(pid), signal.SIGKILL)
        eventually(lambda: len(pool.lines("started")) == 2, what="another has it")
        pool.let_go()
        eventually(pool.empty, what="it is done")

    assert is_gone(int(pid))
    assert pool.numbers("done") == [1]


def test_two_pools_share_a_tube(tmp_path, server):
    """On two machines they would; each job is done once."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with (
        BeanstalkdPool(folders[0], server, "-w", "2", app=SHOP) as one,
        BeanstalkdPool(folders[1], server, "-w", "2", app=SHOP) as two,
    ):
        one.ready()
        two.ready()
        one.publish("work", [{"n": n} for n in range(200)])
        eventually(one.empty, 60, what="the jobs are done")
        done = [pool.numbers("done") for pool in (one, two)]

    assert sorted(done[0] + done[1]) == list(range(200))
    assert all(done), "both had a part"
