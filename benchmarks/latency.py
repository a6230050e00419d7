"""Latency under load: from when a job was due to its handler's first line, at half of the most.

Open loop: a producer in a process of its own sends each job at a time that was planned before, and
a job's wait is counted from that time, not from when it was sent at last. Counted from the send
call, a queue that stalls would also stall the producer, which then asks less just when answers are
worst, and the stall would count for one job in place of all that were due meanwhile: what Gil Tene
named coordinated omission ("How NOT to Measure Latency", and wrk2, which plans its times as here).

Each run first finds the most: the producer floods the queue while the workers work, and what they
finish a second is the maximum of the two together, on these CPUs. Then come half of that, and a
rate that is the same for all. Producer, workers and server share the CPUs: how late the producer
itself was, and what it used, is part of the result.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.harness import LINE, Run, until
from benchmarks.paced import WARM_UP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.harness import Contender

MILLISECOND = 1e6  # nanoseconds
PROGRAM = Path(__file__).with_name("paced.py")
CONTENDERS = [
    "raw-greenstalk, 2",
    "pulpo-pool on beanstalkd, 2",
    "celery (redis, prefetch 4), 2",
    "dramatiq (redis, prefetch 64), 2",
    "raw-sqlite, 2",
    "pulpo-pool on file, 2",
    "huey (sqlite), 2",
]


@dataclass(frozen=True)
class Waits:
    """Milliseconds from when a job was due. `rate` is the plan's, `sent` what became of it.

    `late` is the producer's part: the 99th percentile of how long after its time a job's sending
    began. `producer_cpu` is microseconds a job.
    """

    rate: float
    sent: float
    jobs: int
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float
    late: float
    producer_cpu: float


@dataclass(frozen=True)
class Waited(Run):
    """`maximum` is jobs a second; `half` of it, and the `same` rate for all."""

    maximum: float
    half: Waits
    same: Waits

    ratios: ClassVar[bool] = False  # seven columns are enough
    columns: ClassVar[Mapping[str, str]] = {
        "most jobs/s": "maximum",
        "half: p50 ms": "half.p50",
        "p99 ms": "half.p99",
        "p99.9 ms": "half.p999",
        "same: p50 ms": "same.p50",
        "same: p99 ms": "same.p99",
    }


def latency(
    contender: Contender, number: int, *, flood: float, seconds: float, rate: float
) -> Waited:
    """Measure round `number`: `flood` seconds to find the most, `seconds` at each of two rates."""
    contender.prepare(1)
    contender.start()
    contender.workers()
    until(contender, 1)
    maximum = _most(contender, flood)
    half, same = (_waits(contender, each, seconds) for each in (maximum / 2, rate))
    return Waited(contender.name, contender.baseline, number, maximum, half, same)


def _most(contender: Contender, seconds: float) -> float:
    """Return the jobs a second that are done while the producer sends as fast as it can."""
    before = contender.jobs_done()
    producer = _start(contender, "flood", seconds)
    until(contender, before + 1)
    time.sleep(seconds / 4)
    first, began = contender.jobs_done(), time.monotonic()
    time.sleep(seconds / 2)
    count, passed = contender.jobs_done() - first, time.monotonic() - began
    until(contender, before + _end(producer)["sent"])
    return count / passed


def _waits(contender: Contender, rate: float, seconds: float) -> Waits:
    before = contender.jobs_done()
    told = _end(_start(contender, "plan", rate, seconds))
    jobs = told["sent"]
    until(contender, before + WARM_UP + jobs)
    with contender.done.open("rb") as done:
        done.seek((before + WARM_UP) * len(LINE % 0))
        waits = [int(line) / MILLISECOND for line in done]
    assert len(waits) == jobs, f"{contender.name}: {jobs} jobs began {len(waits)} times"
    cuts = quantiles(waits, n=1_000, method="inclusive")
    late = quantiles(told["late"], n=100, method="inclusive")[98] / MILLISECOND
    percentiles = cuts[499], cuts[899], cuts[989], cuts[998], max(waits)
    return Waits(
        rate, jobs / told["seconds"], jobs, *percentiles, late, told["cpu"] / jobs * 1e6
    )  # fmt: skip


def _start(contender: Contender, *arguments: str | float) -> subprocess.Popen[bytes]:
    python, environment = contender.producer()
    command: Sequence[str] = [python, str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=contender.folder, env=environment, stdout=subprocess.PIPE
    )  # fmt: skip


def _end(producer: subprocess.Popen[bytes]) -> dict[str, Any]:
    answer, _ = producer.communicate()
    if producer.returncode:
        raise RuntimeError(f"the producer ended with {producer.returncode}")
    told: dict[str, Any] = json.loads(answer)
    return told
