"""Drain: a backlog is there when the workers start; from 10 % done to the last job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.harness import Run, cpu, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.harness import Contender


@dataclass(frozen=True)
class Drained(Run):
    """CPU is microseconds a job, of all worker processes and of the server."""

    jobs_per_second: float
    worker_cpu: float
    server_cpu: float

    columns: ClassVar[Mapping[str, str]] = {
        "jobs/s": "jobs_per_second",
        "CPU us/job": "worker_cpu",
        "server CPU": "server_cpu",
    }


def drain(contender: Contender, number: int, jobs: int) -> Drained:
    """Measure round `number`; `jobs` are less for a slow contender."""
    jobs = min(jobs, contender.enough)
    contender.prepare(jobs)
    contender.start()
    until(contender, jobs // 10)
    workers, servers = contender.workers(), contender.servers()
    first, used, served, began = (
        contender.jobs_done(), cpu(workers), cpu(servers), time.monotonic()
    )  # fmt: skip
    until(contender, jobs)
    used, served = cpu(workers) - used, cpu(servers) - served
    count, seconds = contender.jobs_done() - first, time.monotonic() - began
    prices = used / count * 1e6, served / count * 1e6
    return Drained(contender.name, contender.baseline, number, count / seconds, *prices)
