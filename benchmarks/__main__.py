"""`python -m benchmarks COMMAND`: one command for each question.

python -m benchmarks drain --broker beanstalkd                    # some two minutes
python -m benchmarks backlog --broker file                        # is a long queue slower?
python -m benchmarks publish --broker file                        # jobs/s that one process sends
python -m benchmarks pickup --broker file                         # how soon an idle worker begins
python -m benchmarks memory                                       # eight workers, heavy app
python -m benchmarks start                                        # until all are in a job
python -m benchmarks idle                                         # CPU of a pool with no work
python -m benchmarks recycle --app heavy                          # a life of 100 jobs
python -m benchmarks replacement                                  # after kill -9
python -m benchmarks latency --broker beanstalkd                  # waits at half of the most
python -m benchmarks endurance --broker file --seconds 600        # does anything grow?
python -m benchmarks report                                       # docs/performance.md anew
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from benchmarks.backlog import backlogs, work_off
from benchmarks.choice import add_choice, chosen
from benchmarks.contenders import contenders_for
from benchmarks.contenders.publishers import publishers_for
from benchmarks.drain import drain
from benchmarks.harness import interleaved
from benchmarks.lives import add_lives
from benchmarks.loaded import add_loaded
from benchmarks.pickup import pick_up
from benchmarks.publish import publish
from benchmarks.readings import RESULTS
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
    add_lives(commands)
    add_loaded(commands)
    options = parser.parse_args()
    options.command(options)


def shared_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--broker", choices=["beanstalkd", "file", "all"], default="all")
    add_choice(command, rounds=5)


def run_drain(options: argparse.Namespace) -> None:
    run(options, lambda contender, number: drain(contender, number, options.jobs))


def run_backlog(options: argparse.Namespace) -> None:
    found = backlogs(options.broker, options.backlog, options.workers)
    runs = interleaved(
        chosen(options, (contender for contender, _ in found.values())),
        options.rounds,
        lambda one, number: work_off(one, number, options.jobs, found[str(one.name)][1]),
    )
    show(options, runs, backlog=options.backlog)


def run_pickup(options: argparse.Namespace) -> None:
    run(options, lambda contender, number: pick_up(contender, number, options.jobs))


def run_publish(options: argparse.Namespace) -> None:
    publishers = chosen(options, publishers_for(options.broker))
    runs = interleaved(
        publishers, options.rounds, lambda one, number: publish(one, number, options.jobs)
    )
    show(options, runs)


def run(
    options: argparse.Namespace, measure: Callable[[Contender, int], Run], **parameters: int
) -> None:
    """Measure those that are asked for."""
    contenders = chosen(options, contenders_for(options.broker))
    show(options, interleaved(contenders, options.rounds, measure), **parameters)


def show(options: argparse.Namespace, runs: Sequence[Run], **parameters: int) -> None:
    """Keep what came out, and print it."""
    path = options.save or RESULTS / f"{options.benchmark}-{options.broker}.json"
    save(path, options.benchmark, runs, jobs=options.jobs, **parameters)
    print(f"{table(runs)}\n\n{against(runs)}\n\nraw results: {path}")


if __name__ == "__main__":
    main()
