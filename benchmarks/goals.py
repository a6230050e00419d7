"""The goals: what each demands, and from which results it is computed. The page's table is this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from benchmarks.endured import change
from benchmarks.readings import Measured, Where, number

if TYPE_CHECKING:
    from benchmarks.readings import Readings


class Source(Protocol):
    """How a goal's number is got."""

    def __call__(self, readings: Readings) -> Measured | None:
        """Return it; None while what it needs is not measured."""

    @property
    def files(self) -> tuple[str, ...]:
        """The result files it needs."""


@dataclass(frozen=True)
class Value:
    """A figure itself."""

    where: Where

    def __call__(self, readings: Readings) -> Measured | None:
        figure = readings.figure(self.where)
        return figure and Measured(figure.middle, figure.least, figure.most)

    @property
    def files(self) -> tuple[str, ...]:
        return (self.where.file,)


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs."""

    ours: Where
    theirs: Where

    def __call__(self, readings: Readings) -> Measured | None:
        ours, theirs = readings.figure(self.ours), readings.figure(self.theirs)
        return ours.over(theirs) if ours and theirs else None

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.ours.file, self.theirs.file)))


@dataclass(frozen=True)
class Change:
    """Of the long run: a quantity in the last tenth over the second (see `endured`)."""

    file: str
    quantity: str

    def __call__(self, readings: Readings) -> Measured | None:
        if self.file not in readings:
            return None
        ratio = change(readings.runs(self.file), self.quantity)
        return Measured(ratio, ratio, ratio)

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)


@dataclass(frozen=True)
class Goal:
    """`demands` names the number; exactly one of the bounds is set, in `unit`."""

    work: str
    demands: str
    source: Source
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def keeps(self, value: float) -> bool:
        """Tell whether this number is good enough."""
        too_little = self.at_least is not None and value < self.at_least
        return not too_little and (self.at_most is None or value <= self.at_most)

    @property
    def text(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        assert bound is not None
        return f"{self.demands} {sign} {number(bound)}{self.unit}"

    def row(self, readings: Readings) -> tuple[str, str, str, str]:
        """Return work, goal, what was measured, and the verdict."""
        found = self.source(readings)
        if found is None:
            return self.work, self.text, "", "not measured"
        verdict = "met" if self.keeps(found.value) else "**missed**"
        mixed = self.keeps(found.least) != self.keeps(found.most)
        return self.work, self.text, str(found), verdict + (", not in each round" if mixed else "")


def on_beanstalkd(contender: str, figure: str = "jobs_per_second") -> Where:
    return Where("drain-beanstalkd", contender, figure)


def on_file(contender: str, figure: str = "jobs_per_second") -> Where:
    return Where("drain-file", contender, figure)


def picked_up(contender: str, figure: str) -> Where:
    return Where("pickup-all", contender, figure)


BEANSTALKD, FILE = "pulpo-pool on beanstalkd, 2", "pulpo-pool on file, 2"
GREENSTALK, PIPELINED, SQLITE = "raw-greenstalk, 2", "raw-pipelined, 2", "raw-sqlite, 2"
CELERY, DRAMATIQ = "celery (redis, prefetch 4), 2", "dramatiq (redis, prefetch 64), 2"
HUEY = "huey (sqlite), 2"

DRAINING = (
    Goal("beanstalkd, drain", "jobs/s over raw greenstalk",
         Ratio(on_beanstalkd(BEANSTALKD), on_beanstalkd(GREENSTALK)), at_least=1.1),
    Goal("beanstalkd, drain", "jobs/s over Celery (prefetch 4)",
         Ratio(on_beanstalkd(BEANSTALKD), on_beanstalkd(CELERY)), at_least=10),
    Goal("beanstalkd, drain", "jobs/s over Dramatiq (prefetch 64)",
         Ratio(on_beanstalkd(BEANSTALKD), on_beanstalkd(DRAMATIQ)), at_least=1),
    Goal("beanstalkd, drain", "CPU a job over hand-pipelined",
         Ratio(on_beanstalkd(BEANSTALKD, "worker_cpu"), on_beanstalkd(PIPELINED, "worker_cpu")),
         at_most=1.9),
    Goal("beanstalkd, drain", "CPU a job over raw greenstalk",
         Ratio(on_beanstalkd(BEANSTALKD, "worker_cpu"), on_beanstalkd(GREENSTALK, "worker_cpu")),
         at_most=1.4),
    Goal("file, drain", "jobs/s over raw SQLite",
         Ratio(on_file(FILE), on_file(SQLITE)), at_least=0.6),
    Goal("file, drain", "jobs/s over Huey on SQLite",
         Ratio(on_file(FILE), on_file(HUEY)), at_least=2.5),
)  # fmt: skip

PICKING_UP = (
    Goal("idle pick-up, beanstalkd", "p50 over raw blocking loop",
         Ratio(picked_up(BEANSTALKD, "p50"), picked_up(GREENSTALK, "p50")), at_most=1.6),
    Goal("idle pick-up, beanstalkd", "p99",
         Value(picked_up(BEANSTALKD, "p99")), at_most=5, unit=" ms"),
    Goal("idle pick-up, file", "p50 over raw blocking loop on beanstalkd",
         Ratio(picked_up(FILE, "p50"), picked_up(GREENSTALK, "p50")), at_most=1.6),
    Goal("idle pick-up, file", "p99", Value(picked_up(FILE, "p99")), at_most=5, unit=" ms"),
)  # fmt: skip

ENDURING = tuple(
    goal
    for engine in ("beanstalkd", "file")
    for file, work in [(f"endurance-{engine}", f"{engine}, 10 minutes")]
    for goal in (
        Goal(work, "memory (PSS), last minute over second",
             Change(file, "memory"), at_most=1.01),
        Goal(work, "descriptors, last minute over second",
             Change(file, "descriptors"), at_most=1),
        Goal(work, "files in the run directory, last minute over second",
             Change(file, "files"), at_most=1),
        Goal(work, "bytes in the run directory, last minute over second",
             Change(file, "bytes of files"), at_most=1),
        *([Goal(work, "queue file and its -wal, last minute over second",
                Change(file, "bytes of queue"), at_most=1)] if engine == "file" else []),
        Goal(work, "jobs/s, last minute over second", Change(file, "jobs/s"), at_least=0.95),
        Goal(work, "CPU a job, last minute over second", Change(file, "CPU"), at_most=1.05),
    )
)  # fmt: skip

GOALS: tuple[Goal, ...] = (*DRAINING, *PICKING_UP, *ENDURING)


def verdicts(readings: Readings) -> str:
    """The table of all goals."""
    lines = ["| work | goal | measured | |", "| --- | --- | ---: | --- |"]
    lines += ["| " + " | ".join(goal.row(readings)) + " |" for goal in GOALS]
    return "\n".join(lines)
