"""`python -m benchmarks COMMAND`: one command for each question.

python -m benchmarks drain --broker beanstalkd                    # some two minutes
python -m benchmarks drain --broker file --backlog 1000000        # is a long queue slower?
python -m benchmarks life                                         # start, replacement, idle
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.contenders import contenders_for
from benchmarks.drain import drain
from benchmarks.harness import interleaved
from benchmarks.life import life
from benchmarks.report import against, save, table

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    drained = commands.add_parser("drain", help="jobs/s and CPU a job, over a backlog")
    drained.add_argument("--broker", choices=["beanstalkd", "file", "all"], default="all")
    drained.add_argument("--jobs", type=int, default=20_000, help="that are measured")
    drained.add_argument("--backlog", type=int, default=0, help="that wait, if more than these")
    drained.add_argument("--rounds", type=int, default=5)
    drained.add_argument("--only", metavar="TEXT", default="", help="in the contenders' names")
    drained.add_argument("--save", type=Path, help="where the raw results go, as JSON")
    drained.set_defaults(command=run_drain)
    lived = commands.add_parser("life", help="start, replacement, idle CPU of a pool")
    lived.add_argument("--workers", type=int, default=8)
    lived.add_argument("--idle", type=float, default=20.0, help="seconds")
    lived.set_defaults(command=lambda options: life(options.workers, options.idle))
    options = parser.parse_args()
    options.command(options)


def run_drain(options: argparse.Namespace) -> None:
    chosen = [each for each in contenders_for(options.broker) if options.only in each.name]
    jobs, backlog = options.jobs, max(options.jobs, options.backlog)
    runs = interleaved(chosen, options.rounds, lambda contender: drain(contender, jobs, backlog))
    path = options.save or RESULTS / f"drain-{options.broker}.json"
    save(path, "drain", runs, jobs=jobs, backlog=backlog)
    print(table(runs))
    print()
    print(against(runs))
    print(f"\nraw results: {path}")


if __name__ == "__main__":
    main()
