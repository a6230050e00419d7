"""Metrics on a disk that is full, tiny, or tampered with: they suffer, the jobs do not."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from pool import PoolProcess, eventually

APP = """
import os
from prometheus_client import Counter, Info
from pulpo_pool import Pulpo

pulpo = Pulpo()
SALES = Counter("shop_sales", "Sales.", ["shop"])
BUILD = Info("shop_build", "What the shop is.")


@pulpo.job()
def sell(n, shop="corner"):
    SALES.labels(shop).inc()
    fd = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, b"%d\\n" % n)
    os.close(fd)
"""


@contextmanager
def mounted(place, size):
    """A tmpfs of this size; skipped where this process may not mount one."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("this process may not mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def sell(pool, count, **body):
    pool.publish("sell", [{"n": n, **body} for n in range(count)])
    eventually(pool.empty, what="all jobs are done")


@pytest.mark.parametrize("room", ["4k", "100k"])
def test_a_tiny_tmpfs_costs_metrics_and_no_job(tmp_path, room):
    """Nothing fits, or the files of the first slots do; what does not is named and counted."""
    place = tmp_path / ".pulpo" / "run" / "default" / "metrics"
    with mounted(place, room), PoolProcess(tmp_path, "-w", "2", app=APP) as pool:
        pool.ready()
        sell(pool, 200)
        sell(pool, 50, shop="market")
        code, text = pool.http("/metrics")
        ready, _ = pool.http("/readyz")
        exits = pool.counted("pulpo_worker_exits_total")

    assert len(pool.lines("done")) == 250
    assert (code, ready, exits) == (200, 200, 0)
    assert "pulpo_workers" in text
    assert "some metrics of this process are not exported" in pool.log


def test_files_that_others_damaged_are_put_aside_by_the_next_life(tmp_path):
    """The life that has them open may die of it; its job is done by another."""
    with PoolProcess(tmp_path, "-w", "1", "--no-preload", app=APP) as pool:
        pool.ready()
        sell(pool, 20)
        before = pool.metric('shop_sales_total{shop="corner"}')
        metrics = pool.run_directory / "metrics"
        os.truncate(metrics / "counter_0.db", 3)
        while_damaged, _ = pool.http("/metrics")
        sell(pool, 20)
        eventually(
            lambda: pool.counted("pulpo_metrics_files_quarantined_total") == 1,
            what="the damaged file was put aside",
        )
        sell(pool, 20)
        after = pool.metric('shop_sales_total{shop="corner"}')
        skipped = pool.metric("pulpo_metrics_files_skipped_total")

    assert before == 20
    assert while_damaged == 200
    assert len(set(map(tuple, pool.lines("done")))) == 20
    assert len(pool.lines("done")) >= 60
    assert 20 <= after <= 41
    assert skipped >= 1
    assert (metrics / "quarantine").is_dir()
    assert "is damaged" in pool.log
    assert pool.log.count("shop_build is not exported") == 1  # not by each life
