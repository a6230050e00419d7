"""Every job is done, and done once, however many workers and pools share the queue."""

from __future__ import annotations

from pool import PoolProcess, eventually
from shops import SHOP


def numbered(count, *, first=0):
    return [{"n": n} for n in range(first, first + count)]


def test_ten_thousand_jobs_over_eight_workers_are_each_done_once(tmp_path):
    with PoolProcess(tmp_path, "-w", "8", app=SHOP) as pool:
        pool.ready()
        pool.publish("note", numbered(10_000))
        eventually(pool.empty, what="the queue is empty")
        workers = set(pool.worker_pids())
        counted = pool.counted("pulpo_jobs_finished_total", request_type="note")
        succeeded = pool.counted("pulpo_jobs_finished_total", outcome="success")

    assert pool.numbers("done") == list(range(10_000))
    assert {int(pid) for _, pid in pool.lines("done")} == workers
    assert counted == succeeded == 10_000


def test_two_pools_on_one_file_share_the_work(tmp_path):
    """Four jobs that wait for each other need the workers of both; then each job is done once."""
    broker = f"file:{tmp_path}/.pulpo/queue.db"
    with (
        PoolProcess(tmp_path, "-w", "2", app=SHOP) as pool,
        PoolProcess(tmp_path, "-w", "2", "--name", "other", "--broker", broker, app=SHOP) as other,
    ):
        pool.ready()
        other.ready()
        pool.publish("hold", numbered(4))
        eventually(lambda: len(pool.lines("started")) == 4, what="all four are held at once")
        held_by = {int(pid) for _, pid, _ in pool.lines("started")}
        workers = {*pool.worker_pids(), *other.worker_pids()}
        pool.let_go()
        pool.publish("note", numbered(2_000, first=4))
        eventually(pool.empty, what="the queue is empty")
        shares = [
            each.counted("pulpo_jobs_finished_total", outcome="success") for each in (pool, other)
        ]

    assert held_by == workers
    assert pool.numbers("done") == list(range(2_004))
    assert sum(shares) == 2_004
    assert all(share >= 2 for share in shares)
