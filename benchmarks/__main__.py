"""`python -m benchmarks COMMAND`: one command for each question.

python -m benchmarks drain --broker beanstalkd                    # some two minutes
python -m benchmarks backlog --broker file                        # is a long queue slower?
python -m benchmarks publish --broker file                        # jobs/s that one process sends
python -m benchmarks pickup --broker file                         # how soon an idle worker begins
python -m benchmarks life                                         # start, replacement, idle
python -m benchmarks latency --broker beanstalkd                  # waits at half of the most
python -m benchmarks endurance --broker file --seconds 600        # does anything grow?
python -m benchmarks report                                       # docs/performance.md anew
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.backlog import backlogs, work_off
from benchmarks.contenders import contenders_for
from benchmarks.contenders.publishers import publishers_for
from benchmarks.drain import drain
from benchmarks.harness import interleaved
from benchmarks.life import life
from benchmarks.loaded import add_loaded
from benchmarks.pickup import pick_up
from benchmarks.publish import publish
from benchmarks.report import against, save, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.harness import Contender, Run

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, dest="benchmark")
    drained = commands.add_parser("drain", help="jobs/s and CPU a job, over a backlog")
    drained.add_argument("--jobs", type=int, default=20_000, help="that are measured")
    shared_options(drained)
    drained.set_defaults(command=run_drain)
    piled = commands.add_parser("backlog", help="CPU a job and memory, while a million wait")
    piled.add_argument("--jobs", type=int, default=20_000, help="that are measured")
    piled.add_argument("--backlog", type=int, default=1_000_000, help="that wait")
    piled.add_argument("--workers", type=int, default=2)
    shared_options(piled)
    piled.set_defaults(command=run_backlog)
    picked = commands.add_parser("pickup", help="from the send call to the handler's first line")
    picked.add_argument("--jobs", type=int, default=200, help="that are sent, one at a time")
    shared_options(picked)
    picked.set_defaults(command=run_pickup)
    published = commands.add_parser("publish", help="jobs/s and CPU a job, while no worker runs")
    published.add_argument("--jobs", type=int, default=20_000)
    shared_options(published)
    published.set_defaults(command=run_publish)
    lived = commands.add_parser("life", help="start, replacement, idle CPU of a pool")
    lived.add_argument("--workers", type=int, default=8)
    lived.add_argument("--idle", type=float, default=20.0, help="seconds")
    lived.set_defaults(command=lambda options: life(options.workers, options.idle))
    add_loaded(commands)
    options = parser.parse_args()
    options.command(options)


def shared_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--broker", choices=["beanstalkd", "file", "all"], default="all")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument(
        "--only", metavar="TEXT", action="append", help="in the contenders' names; repeatable"
    )
    command.add_argument("--save", type=Path, help="where the raw results go, as JSON")


def run_drain(options: argparse.Namespace) -> None:
    run(options, lambda contender, number: drain(contender, number, options.jobs))


def run_backlog(options: argparse.Namespace) -> None:
    found = backlogs(options.broker, options.backlog, options.workers)
    runs = interleaved(
        [contender for name, (contender, _) in found.items() if is_wanted(options, name)],
        options.rounds,
        lambda one, number: work_off(one, number, options.jobs, found[str(one.name)][1]),
    )
    show(options, runs, backlog=options.backlog)


def run_pickup(options: argparse.Namespace) -> None:
    run(options, lambda contender, number: pick_up(contender, number, options.jobs))


def run_publish(options: argparse.Namespace) -> None:
    chosen = [each for each in publishers_for(options.broker) if is_wanted(options, each.name)]
    runs = interleaved(
        chosen, options.rounds, lambda one, number: publish(one, number, options.jobs)
    )
    show(options, runs)


def is_wanted(options: argparse.Namespace, name: str) -> bool:
    return any(text in name for text in options.only or [""])


def run(
    options: argparse.Namespace, measure: Callable[[Contender, int], Run], **parameters: int
) -> None:
    """Measure those that are asked for."""
    chosen = [each for each in contenders_for(options.broker) if is_wanted(options, each.name)]
    show(options, interleaved(chosen, options.rounds, measure), **parameters)


def show(options: argparse.Namespace, runs: Sequence[Run], **parameters: int) -> None:
    """Keep what came out, and print it."""
    path = options.save or RESULTS / f"{options.benchmark}-{options.broker}.json"
    save(path, options.benchmark, runs, jobs=options.jobs, **parameters)
    print(f"{table(runs)}\n\n{against(runs)}\n\nraw results: {path}")


if __name__ == "__main__":
    main()
