"""The commands that measure a pool's life: memory, start, idle, recycle, replacement."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from benchmarks import idle, memory, recycle, replacement, start
from benchmarks.choice import add_choice, chosen
from benchmarks.contenders.lives import Life
from benchmarks.harness import interleaved
from benchmarks.readings import RESULTS
from benchmarks.report import against, save, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from benchmarks.harness import AnyRun


AnyLife = TypeVar("AnyLife", bound=Life)


def add_lives(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    weighed = _added(commands, "memory", "PSS of all processes, heavy app", run_memory)
    weighed.add_argument("--jobs", type=int, default=8_000, help="that are done in between")
    _added(commands, "start", "until all workers are in a job, heavy app", run_start)
    idled = _added(commands, "idle", "CPU of all processes, nothing to do", run_idle)
    idled.add_argument("--seconds", type=float, default=20.0)
    recycled = _added(commands, "recycle", "every worker replaced each 100 jobs", run_recycle)
    recycled.add_argument("--jobs", type=int, default=20_000)
    replaced = _added(commands, "replacement", "kill -9 until a successor is up", run_replacement)
    for each in (recycled, replaced):
        each.add_argument("--app", choices=recycle.APPS, default="light")


def _added(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    command: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    add_choice(parser, rounds=5)
    parser.set_defaults(command=command)
    return parser


def run_memory(options: argparse.Namespace) -> None:
    runs = _run(options, memory.contenders(), partial(memory.memory, jobs=options.jobs))
    print(f"\n{memory.further(runs)}")


def run_start(options: argparse.Namespace) -> None:
    _run(options, start.contenders(), start.start)


def run_idle(options: argparse.Namespace) -> None:
    _run(options, idle.contenders(), partial(idle.idle, seconds=options.seconds))


def run_recycle(options: argparse.Namespace) -> None:
    contenders = recycle.contenders(options.app)
    _run(options, contenders, partial(recycle.recycle, jobs=options.jobs), options.app)


def run_replacement(options: argparse.Namespace) -> None:
    _run(options, replacement.contenders(options.app), replacement.replacement, options.app)


def _run(
    options: argparse.Namespace,
    contenders: Sequence[AnyLife],
    measure: Callable[[AnyLife, int], AnyRun],
    app: str = "",
) -> list[AnyRun]:
    """Measure those that are asked for, keep what came out, and print it."""
    runs = interleaved(chosen(options, contenders), options.rounds, measure)
    name = f"{options.benchmark}-{app}" if app else options.benchmark
    path = options.save or RESULTS / f"{name}.json"
    save(path, name, runs)
    print(f"{table(runs)}\n\n{against(runs)}\n\nraw results: {path}")
    return runs
