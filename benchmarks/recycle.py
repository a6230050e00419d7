"""Recycling: every worker is replaced each 100 jobs, two workers drain a backlog.

Ours asks to be replaced at 100 and works on until its master lets it go, one of two at a time: at
full rate a life had 120 to 250 jobs, 205 and 210 in the mean of 20,000. The peers stop at 100.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import psutil

from benchmarks.contenders.lives import (
    HEAVY,
    LIGHT,
    LiveCelery,
    LiveHuey,
    LivePulpoOnBeanstalkd,
    LivePulpoOnFile,
    PreforkLoop,
)
from benchmarks.harness import Run, cpu_of, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders.lives import Life

WORKERS = 2
LIFE = 100  # jobs
APPS = {"light": LIGHT, "heavy": HEAVY}


@dataclass(frozen=True)
class Recycled(Run):
    """CPU is microseconds a job, of all processes but the server, the dead included."""

    jobs_per_second: float
    cpu: float

    columns: ClassVar[Mapping[str, str]] = {"jobs/s": "jobs_per_second", "CPU us/job": "cpu"}


class PatientCelery(LiveCelery):
    enough = 3_000


class PatientHuey(LiveHuey):
    """Its health check, by default every 10 s, is what replaces workers: so ten times a second."""

    enough = 6_000


def contenders(app: str) -> list[Life]:
    imports, life = APPS[app], str(LIFE)
    return [
        PreforkLoop(WORKERS, imports, LIFE),
        LivePulpoOnBeanstalkd(WORKERS, imports, "--max-jobs", life),
        LivePulpoOnFile(WORKERS, imports, "--max-jobs", life),
        PatientCelery(WORKERS, imports, "--max-tasks-per-child", life),
        PatientHuey(WORKERS, imports, "--max-tasks", life, "--health-check-interval", "0.1"),
    ]


def recycle(contender: Life, number: int, jobs: int) -> Recycled:
    """From a tenth to the last, as a drain is measured."""
    jobs = min(jobs, contender.enough)
    contender.prepare(jobs)
    contender.start()
    until(contender, jobs // 10)
    first, used, began = contender.jobs_done(), cpu_of_all(contender), time.monotonic()
    until(contender, jobs)
    seconds, used = time.monotonic() - began, cpu_of_all(contender) - used
    count = contender.jobs_done() - first
    return Recycled(
        contender.name, f"celery (redis), {WORKERS}", number, count / seconds, used / count * 1e6
    )


def cpu_of_all(contender: Life) -> float:
    """Seconds of CPU of the living and of those who were replaced, which their parents add up."""
    return sum(map(_cpu, contender.family()))


def _cpu(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return cpu_of(pid)
    return 0.0  # it has just left: its parent has the sum, or will have it
