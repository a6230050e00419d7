"""The goals: what each demands, and of which results it is computed. The page's table is this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.goals import Change, Each, Goal, Ratio, Value
from benchmarks.readings import Where

if TYPE_CHECKING:
    from benchmarks.readings import Readings


def on_beanstalkd(contender: str, figure: str = "jobs_per_second") -> Where:
    return Where("drain-beanstalkd", contender, figure)


def on_file(contender: str, figure: str = "jobs_per_second") -> Where:
    return Where("drain-file", contender, figure)


def picked_up(contender: str, figure: str) -> Where:
    return Where("pickup-all", contender, figure)


def published(contender: str) -> Where:
    return Where("publish-file", contender, "jobs_per_second")


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
    Goal("file, drain", "jobs/s with 8 workers over 2",
         Ratio(on_file("pulpo-pool on file, 8"), on_file(FILE)), at_least=1),
)  # fmt: skip

PUBLISHING = (
    Goal("file, publish", "one at a time, durability normal, jobs/s over raw INSERT + commit",
         Ratio(published("pulpo-pool on file, normal, one"),
               published("raw-sqlite, INSERT + commit")), at_least=0.6),
    Goal("file, publish", "1,000 a call, synced",
         Value(published("pulpo-pool on file, full, many")), at_least=50_000, unit=" jobs/s"),
)  # fmt: skip

WITH_BACKLOG = tuple(
    Goal(f"{engine}, 1,000,000 wait", f"{named} over that with 1,000 waiting",
         Ratio(Where(f"backlog-{engine}", f"{ours}, 1,000,000 wait", figure),
               Where(f"backlog-{engine}", f"{ours}, 1,000 wait", figure)), at_most=bound)
    for engine, ours in (("beanstalkd", BEANSTALKD), ("file", FILE))
    for named, figure, bound in (("CPU a job", "worker_cpu", 1.1), ("PSS of all", "memory", 1.01))
)  # fmt: skip

LIVING = tuple(
    goal
    for engine in ("beanstalkd", "file")
    for ours, more, two in [[f"pulpo-pool on {engine}, {count}" for count in (8, 16, 2)]]
    for goal in (
        Goal(f"idle, 8 workers, {engine}", "CPU of all processes in 20 s",
             Value(Where("idle", ours, "milliseconds")), at_most=20, unit=" ms"),
        Goal(f"memory, heavy app, {engine}", "PSS of all with 8 workers, after 8,000 jobs",
             Value(Where("memory", ours, "used")), at_most=170, unit=" MiB"),
        Goal(f"memory, heavy app, {engine}", "PSS of each further worker",
             Each(Where("memory", more, "used"), Where("memory", ours, "used"), 8),
             at_most=3, unit=" MiB"),
        Goal(f"start, heavy app, {engine}", "to 8 workers in a job, over one bare import",
             Ratio(Where("start", ours, "seconds"), Where("start", "bare import", "seconds")),
             at_most=1.5),
        *(Goal(f"recycled each 100 jobs, {app} app, {engine}", f"jobs/s over {peer}",
               Ratio(Where(f"recycle-{app}", two, "jobs_per_second"),
                     Where(f"recycle-{app}", f"{peer.lower()} (redis), 2", "jobs_per_second")),
               at_least=bound)
          for app in ("light", "heavy") for peer, bound in (("Celery", 8), ("Huey", 3))),
    )
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
        Goal(work, "memory (PSS without files), last minute over second",
             Change(file, "memory"), at_most=1.01),
        Goal(work, "descriptors, last minute over second",
             Change(file, "descriptors"), at_most=1),
        Goal(work, "files in the run directory, last minute over second",
             Change(file, "files"), at_most=1),
        Goal(work, "bytes in the run directory, last minute over second",
             Change(file, "bytes of files"), at_most=1.01),
        *([Goal(work, "queue file and its -wal, last minute over second",
                Change(file, "bytes of queue"), at_most=1.01)] if engine == "file" else []),
        Goal(work, "jobs/s, last minute over second", Change(file, "jobs/s"), at_least=0.95),
        Goal(work, "CPU a job, last minute over second", Change(file, "CPU"), at_most=1.05),
    )
)  # fmt: skip

GOALS: tuple[Goal, ...] = (
    *DRAINING, *PUBLISHING, *WITH_BACKLOG, *PICKING_UP, *LIVING, *ENDURING
)  # fmt: skip


def verdicts(readings: Readings) -> str:
    """The table of all goals."""
    lines = ["| work | goal | measured | |", "| --- | --- | ---: | --- |"]
    lines += ["| " + " | ".join(goal.row(readings)) + " |" for goal in GOALS]
    return "\n".join(lines)
