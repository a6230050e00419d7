"""Drain: a backlog is there when the workers start; from 10 % done to the last job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.harness import cpu

if TYPE_CHECKING:
    from benchmarks.harness import Contender

LOOK = 0.002  # seconds between two looks at how far it is
PATIENCE = 120.0  # seconds a drain may take


def drain(contender: Contender, jobs: int, backlog: int) -> tuple[float, float, float]:
    """Return jobs/s, and the microseconds of CPU a job costs workers and server."""
    jobs = min(jobs, contender.enough)
    contender.prepare(min(backlog, contender.enough))
    contender.start()
    _until(contender, jobs // 10)
    workers, servers = contender.workers(), contender.servers()
    first, used, served, began = (
        contender.jobs_done(), cpu(workers), cpu(servers), time.monotonic()
    )  # fmt: skip
    _until(contender, jobs)
    used, served = cpu(workers) - used, cpu(servers) - served
    count, seconds = contender.jobs_done() - first, time.monotonic() - began
    return count / seconds, used / count * 1e6, served / count * 1e6


def _until(contender: Contender, jobs: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while contender.jobs_done() < jobs:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{contender.name}: {contender.jobs_done()} of {jobs} jobs are done")
        time.sleep(LOOK)
