"""Backlog: what a job costs while a million others wait, against a thousand.

A thousand jobs are gone in a tenth of a second, so both backlogs are kept topped up: what was done
is published anew, in the same way, by this process, whose CPU is not counted. It competes with the
workers, alike in both.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.pulpo import PulpoOnBeanstalkd, PulpoOnFile, family
from benchmarks.harness import LOOK, PATIENCE, Run, cpu, pss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders.pulpo import PulpoContender

SHORT = 1_000  # jobs of the backlog that the long one is compared with
REFILL = 250  # jobs that are done before as many are published
WARM_UP = 2_000  # jobs that are done first


@dataclass(frozen=True)
class Backlogged(Run):
    """CPU is microseconds a job, memory the PSS of all processes of the pool in MiB."""

    jobs_per_second: float
    worker_cpu: float
    pool_cpu: float  # of its master and services as well, which count what waits
    server_cpu: float
    memory: float

    columns: ClassVar[Mapping[str, str]] = {
        "jobs/s": "jobs_per_second",
        "CPU us/job": "worker_cpu",
        "whole pool": "pool_cpu",
        "server CPU": "server_cpu",
        "PSS MiB": "memory",
    }


def backlogs(broker: str, long: int, workers: int) -> dict[str, tuple[PulpoContender, int]]:
    """Return each contender by its name, with the jobs that wait while it works."""
    kinds = {"beanstalkd": PulpoOnBeanstalkd, "file": PulpoOnFile}
    found: dict[str, tuple[PulpoContender, int]] = {}
    for engine, kind in kinds.items():
        if broker not in (engine, "all"):
            continue
        for size in (SHORT, long):
            one = kind(workers)
            one.baseline = f"{one.name}, {SHORT:,} wait"
            one.name = f"{one.name}, {size:,} wait"
            found[one.name] = one, size
    return found


def work_off(contender: PulpoContender, number: int, jobs: int, backlog: int) -> Backlogged:
    """Measure round `number`: `jobs` are done while `backlog` wait."""
    contender.prepare(backlog)
    os.sync()  # the kernel's writing of a long file is no part of a worker's job
    contender.start()
    feeder = Feeder(contender, backlog)
    groups = contender.workers(), family(contender), contender.servers()
    feeder.until(WARM_UP)
    first, began, before = contender.jobs_done(), time.monotonic(), [*map(cpu, groups)]
    feeder.until(WARM_UP + jobs)
    after, seconds = [*map(cpu, groups)], time.monotonic() - began
    count = contender.jobs_done() - first
    workers, pool, server = (
        (end - start) / count * 1e6 for start, end in zip(before, after, strict=True)
    )
    return Backlogged(
        contender.name,
        contender.baseline,
        number,
        jobs_per_second=count / seconds,
        worker_cpu=workers,
        pool_cpu=pool,
        server_cpu=server,
        memory=pss(groups[1]),
    )


class Feeder:
    """Keeps so many jobs waiting."""

    def __init__(self, contender: PulpoContender, backlog: int) -> None:
        self._contender = contender
        self._backlog = backlog
        self._published = backlog

    def until(self, jobs: int) -> None:
        """Publish as much as is done, until so many jobs are done."""
        contender, deadline = self._contender, time.monotonic() + PATIENCE
        while (done := contender.jobs_done()) < jobs:
            missing = self._backlog + done - self._published
            if missing >= REFILL:
                contender.send_many(range(self._published, self._published + missing))
                self._published += missing
            elif time.monotonic() > deadline:
                raise TimeoutError(f"{contender.name}: {done} of {jobs} jobs are done")
            else:
                time.sleep(LOOK)
