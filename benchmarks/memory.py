"""Memory: what a pool takes, all its processes together, and what each further worker adds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.lives import AHEAD, HEAVY, KINDS
from benchmarks.harness import Run, pss, until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.contenders.lives import Life

WORKERS = (8, 16)


@dataclass(frozen=True)
class Weighed(Run):
    """MiB of PSS, while every worker is inside a job: the first, and one after many."""

    fresh: float
    used: float
    workers: int

    columns: ClassVar[Mapping[str, str]] = {"fresh MiB": "fresh", "after the jobs MiB": "used"}


def contenders() -> list[Life]:
    return [kind(count, HEAVY) for kind in KINDS for count in WORKERS]


def memory(contender: Life, number: int, jobs: int) -> Weighed:
    """`jobs` is less for a slow contender."""
    held = AHEAD * contender.count
    contender.hold()
    contender.prepare(held)
    contender.start()
    until(contender, contender.count)
    fresh = pss(contender.family())
    contender.let_go()
    until(contender, held)
    jobs = min(jobs, contender.enough)
    contender.prepare(jobs)
    until(contender, held + jobs)
    contender.hold()
    contender.prepare(held)
    until(contender, held + jobs + contender.count)
    used = pss(contender.family())
    contender.let_go()
    return Weighed(
        contender.name, f"huey (redis), {contender.count}", number, fresh, used, contender.count
    )


def further(runs: Sequence[Weighed]) -> str:
    """A Markdown table: what each worker beyond the first eight adds."""
    few, many = WORKERS
    medians: dict[tuple[str, int], float] = {}
    for run in runs:
        same = [other.used for other in runs if other.contender == run.contender]
        medians[run.contender.rpartition(",")[0], run.workers] = median(same)
    lines = ["| contender | each further worker MiB |", "| --- | ---: |"]
    for (name, count), used in medians.items():
        if count == few and (name, many) in medians:
            lines.append(f"| {name} | {(medians[name, many] - used) / (many - few):.1f} |")
    return "\n".join(lines)
