"""A pool's life on the file queue: start, replacement of a killed worker, CPU of an idle pool."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from benchmarks.contenders.pulpo import Pool
from benchmarks.harness import cpu
from pulpo_pool.queues.opening import file_url


def life(workers: int, idle: float) -> None:
    """Measure once and print; `idle` is seconds."""
    with tempfile.TemporaryDirectory(prefix="pulpo-benchmark-") as folder:
        pool = Pool(Path(folder), workers, file_url(f"{folder}/.pulpo/queue.db"))
        try:
            print(f"start to {workers} idle workers: {_seconds_to_start(pool):.3f} s")
            delays = [_seconds_to_replace(pool, slot) for slot in range(workers)]
            print(f"from kill -9 to a replacement that is up: {median(delays):.3f} s")
            assert pool.process is not None
            master = psutil.Process(pool.process.pid)
            family = [master.pid, *(child.pid for child in master.children(recursive=True))]
            used = cpu(family)
            time.sleep(idle)
            spent = cpu(family) - used
            print(f"CPU of all {len(family)} processes in {idle:g} idle s: {spent:.3f} s")
        finally:
            pool.stop()


def _seconds_to_start(pool: Pool) -> float:
    began = time.monotonic()
    pool.start()
    while len(pool.up()) < pool.workers:
        time.sleep(0.002)
    return time.monotonic() - began


def _seconds_to_replace(pool: Pool, slot: int) -> float:
    pid = pool.up()[slot]
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while pool.up().get(slot, pid) == pid:
        time.sleep(0.0005)
    return time.monotonic() - began
