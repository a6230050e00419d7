"""`python -m benchmarks COMMAND`: one command for each question.

python -m benchmarks drain --broker beanstalkd                    # some two minutes
python -m benchmarks drain --broker file --backlog 1000000        # is a long queue slower?
python -m benchmarks pickup --broker file                         # how soon an idle worker begins
python -m benchmarks life                                         # start, replacement, idle
python -m benchmarks latency --broker beanstalkd                  # at half of the most
python -m benchmarks endurance --broker file --seconds 600        # does anything grow?
python -m benchmarks report                                       # docs/performance.md anew
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import contenders_for
from benchmarks.drain import drain
from benchmarks.endurance import endurance
from benchmarks.endured import verdict
from benchmarks.harness import interleaved
from benchmarks.latency import CONTENDERS, latency
from benchmarks.life import life
from benchmarks.page import PAGE, refreshed
from benchmarks.pickup import pick_up
from benchmarks.plots import draw_all
from benchmarks.readings import RESULTS, Readings
from benchmarks.report import against, save, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.harness import Contender, Run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, dest="benchmark")
    drained = commands.add_parser("drain", help="jobs/s and CPU a job, over a backlog")
    drained.add_argument("--jobs", type=int, default=20_000, help="that are measured")
    drained.add_argument("--backlog", type=int, default=0, help="that wait, if more than these")
    shared_options(drained)
    drained.set_defaults(command=run_drain)
    picked = commands.add_parser("pickup", help="from the send call to the handler's first line")
    picked.add_argument("--jobs", type=int, default=200, help="that are sent, one at a time")
    shared_options(picked)
    picked.set_defaults(command=run_pickup)
    lived = commands.add_parser("life", help="start, replacement, idle CPU of a pool")
    lived.add_argument("--workers", type=int, default=8)
    lived.add_argument("--idle", type=float, default=20.0, help="seconds")
    lived.set_defaults(command=lambda options: life(options.workers, options.idle))
    add_latency(commands)
    add_endurance(commands)
    written = commands.add_parser("report", help="the tables and plots of docs/performance.md")
    written.set_defaults(command=lambda _: report())
    options = parser.parse_args()
    options.command(options)


def shared_options(
    command: argparse.ArgumentParser, rounds: int = 5, only: Sequence[str] = ()
) -> None:
    command.add_argument("--broker", choices=["beanstalkd", "file", "all"], default="all")
    command.add_argument("--rounds", type=int, default=rounds)
    command.add_argument(
        "--only", metavar="TEXT", action="append", help="in the contenders' names; repeatable"
    )
    command.set_defaults(usual=only)
    command.add_argument("--save", type=Path, help="where the raw results go, as JSON")


def run_drain(options: argparse.Namespace) -> None:
    jobs, backlog = options.jobs, max(options.jobs, options.backlog)
    sizes = {"jobs": jobs, "backlog": backlog}
    run(options, lambda contender, number: drain(contender, number, **sizes), **sizes)


def run_pickup(options: argparse.Namespace) -> None:
    jobs = options.jobs
    run(options, lambda contender, number: pick_up(contender, number, jobs), jobs=jobs)


def add_latency(commands) -> None:
    late = commands.add_parser("latency", help="waits at half of the maximum rate")
    late.add_argument("--seconds", type=float, default=10.0, help="at each of the two rates")
    late.add_argument("--flood", type=float, default=4.0, help="seconds to find the maximum")
    late.add_argument("--rate", type=float, default=400.0, help="jobs/s that are the same for all")
    shared_options(late, rounds=3, only=CONTENDERS)
    late.set_defaults(command=run_latency)


def run_latency(options: argparse.Namespace) -> None:
    asked = {"flood": options.flood, "seconds": options.seconds, "rate": options.rate}
    run(options, lambda contender, number: latency(contender, number, **asked), **asked)


def add_endurance(commands) -> None:
    long = commands.add_parser("endurance", help="minutes at full rate: what grows?")
    long.add_argument("--broker", choices=["beanstalkd", "file"], required=True)
    long.add_argument("--seconds", type=float, default=600.0)
    long.add_argument("--workers", type=int, default=2)
    long.add_argument("--save", type=Path, help="where the raw results go, as JSON")
    long.set_defaults(command=run_endurance)


def run_endurance(options: argparse.Namespace) -> None:
    samples = endurance(options.broker, options.workers, options.seconds)
    path = options.save or RESULTS / f"endurance-{options.broker}.json"
    save(path, "endurance", samples, seconds=options.seconds, workers=options.workers)
    print(f"{verdict(json.loads(path.read_text()))}\n\nraw results: {path}")


def report() -> None:
    """Write the page anew, and the plots, from the results there are."""
    readings = Readings()
    PAGE.write_text(refreshed(PAGE.read_text(), readings))
    for path in (PAGE, *draw_all(readings)):
        print(path)


def run(
    options: argparse.Namespace, measure: Callable[[Contender, int], Run], **parameters: float
) -> None:
    """Measure those that are asked for, keep what came out, and print it."""
    wanted = options.only or options.usual or [""]
    chosen = [
        each for each in contenders_for(options.broker) if any(text in each.name for text in wanted)
    ]
    runs = interleaved(chosen, options.rounds, measure)
    path = options.save or RESULTS / f"{options.benchmark}-{options.broker}.json"
    save(path, options.benchmark, runs, **parameters)
    print(f"{table(runs)}\n\n{against(runs)}\n\nraw results: {path}")


if __name__ == "__main__":
    main()
