"""`python -m benchmarks COMMAND`: one command for each question.

python -m benchmarks drain --broker beanstalkd                    # some two minutes
python -m benchmarks drain --broker file --backlog 1000000        # is a long queue slower?
python -m benchmarks pickup --broker file                         # how soon an idle worker begins
python -m benchmarks memory                                       # eight workers, heavy app
python -m benchmarks start                                        # until all are in a job
python -m benchmarks idle                                         # CPU of a pool with no work
python -m benchmarks recycle --app heavy                          # a life of 100 jobs
python -m benchmarks replacement                                  # after kill -9
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import contenders_for
from benchmarks.drain import drain
from benchmarks.harness import interleaved
from benchmarks.lives import add_lives
from benchmarks.pickup import pick_up
from benchmarks.report import against, save, table

if TYPE_CHECKING:
    from collections.abc import Callable

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
    drained.add_argument("--backlog", type=int, default=0, help="that wait, if more than these")
    shared_options(drained)
    drained.set_defaults(command=run_drain)
    picked = commands.add_parser("pickup", help="from the send call to the handler's first line")
    picked.add_argument("--jobs", type=int, default=200, help="that are sent, one at a time")
    shared_options(picked)
    picked.set_defaults(command=run_pickup)
    add_lives(commands)
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
    jobs, backlog = options.jobs, max(options.jobs, options.backlog)
    run(options, lambda contender, number: drain(contender, number, jobs, backlog), backlog=backlog)


def run_pickup(options: argparse.Namespace) -> None:
    run(options, lambda contender, number: pick_up(contender, number, options.jobs))


def run(
    options: argparse.Namespace, measure: Callable[[Contender, int], Run], **parameters: int
) -> None:
    """Measure those that are asked for, keep what came out, and print it."""
    wanted = options.only or [""]
    chosen = [
        each for each in contenders_for(options.broker) if any(text in each.name for text in wanted)
    ]
    runs = interleaved(chosen, options.rounds, measure)
    path = options.save or RESULTS / f"{options.benchmark}-{options.broker}.json"
    save(path, options.benchmark, runs, jobs=options.jobs, **parameters)
    print(f"{table(runs)}\n\n{against(runs)}\n\nraw results: {path}")


if __name__ == "__main__":
    main()
