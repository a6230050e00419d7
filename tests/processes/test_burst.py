"""A burst works the queues empty, then ends by itself."""

from __future__ import annotations

import os
import signal

from pool import PoolProcess, eventually, publish
from shops import SHOP

CHAIN = (
    SHOP
    + """

@pulpo.job()
def chain(n):
    if n:
        chain.publish(n=n - 1)
    append("done", n, os.getpid())


@pulpo.job()
def crash():
    os.kill(os.getpid(), 9)
"""
)


def test_it_ends_when_nothing_is_ready_and_nothing_held(tmp_path):
    """Jobs published by jobs belong to it; delayed ones are left for another time."""
    publish(tmp_path, "note", [{"n": n} for n in range(100, 400)])
    publish(tmp_path, "chain", [{"n": 50}])
    publish(tmp_path, "note", [{"n": 1000}], delay=600)
    with PoolProcess(tmp_path, "-w", "4", "--burst", app=CHAIN) as pool:
        code = pool.wait()
        stats = pool.stats()

    assert code == 0
    assert pool.numbers("done") == [*range(51), *range(100, 400)]
    assert (stats.ready, stats.delayed, stats.reserved, stats.buried) == (0, 1, 0, 0)


def test_it_ends_at_once_when_there_is_nothing_to_do(tmp_path):
    with PoolProcess(tmp_path, "-w", "2", "--burst", app=SHOP) as pool:
        assert pool.wait() == 0
        assert pool.stats().ready == 0


def test_it_waits_for_what_is_held(tmp_path):
    publish(tmp_path, "hold", [{"n": 1}])
    with PoolProcess(tmp_path, "-w", "2", "--burst", app=CHAIN) as pool:
        eventually(lambda: pool.lines("started"), what="the job is held")
        keeper = pool.pid_of("keeper")
        os.kill(keeper, signal.SIGKILL)  # its successor looks at the queue once more, at once
        pool.replaced("keeper", keeper)
        looked = pool.counted("pulpo_queue_last_seen_timestamp_seconds")
        eventually(
            lambda: pool.counted("pulpo_queue_last_seen_timestamp_seconds") > looked + 0.1,
            what="the keeper has counted again",
        )
        state = pool.status()["master"]["state"]
        pool.let_go()

        assert pool.wait() == 0
    assert state == "running"
    assert pool.numbers("done") == [1]


def test_it_looks_only_at_its_own_queues(tmp_path):
    publish(tmp_path, "note", [{"n": 1}], queue="mail")
    publish(tmp_path, "note", [{"n": 2}])
    with PoolProcess(tmp_path, "-w", "1", "--burst", "-q", "mail", app=SHOP) as pool:
        assert pool.wait() == 0
        assert pool.numbers("done") == [1]
        assert pool.stats().ready == 1


def test_a_job_that_kills_workers_does_not_keep_it(tmp_path):
    """After its second crash the job waits, and what waits is left."""
    publish(tmp_path, "crash", [{}])
    publish(tmp_path, "note", [{"n": n} for n in range(10)])
    with PoolProcess(tmp_path, "-w", "2", "--burst", app=CHAIN) as pool:
        code = pool.wait()
        stats = pool.stats()

    assert code == 0
    assert pool.numbers("done") == list(range(10))
    assert stats.reserved == 0
    assert stats.ready + stats.delayed + stats.buried == 1  # its wait may have ended by now
