"""The commands that measure under load, latency and endurance, and the report of all results."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.choice import add_choice, add_save, chosen
from benchmarks.contenders import contenders_for
from benchmarks.endurance import endurance
from benchmarks.endured import verdict
from benchmarks.harness import interleaved
from benchmarks.latency import CONTENDERS, latency
from benchmarks.page import PAGE, refreshed
from benchmarks.plots import draw_all
from benchmarks.readings import RESULTS, Readings
from benchmarks.report import save, table

if TYPE_CHECKING:
    import argparse


def add_loaded(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    late = commands.add_parser("latency", help="waits at half of the maximum rate")
    late.add_argument("--broker", choices=["beanstalkd", "file"], required=True)
    late.add_argument("--seconds", type=float, default=10.0, help="at each of the two rates")
    late.add_argument("--flood", type=float, default=4.0, help="seconds to find the maximum")
    late.add_argument("--rate", type=float, default=200.0, help="jobs/s that are the same for all")
    add_choice(late, rounds=3)
    late.set_defaults(command=run_latency)
    long = commands.add_parser("endurance", help="minutes at full rate: what grows?")
    long.add_argument("--broker", choices=["beanstalkd", "file"], required=True)
    long.add_argument("--seconds", type=float, default=600.0)
    long.add_argument("--workers", type=int, default=2)
    add_save(long)
    long.set_defaults(command=run_endurance)
    written = commands.add_parser("report", help="tables and plots of docs/performance.md")
    written.set_defaults(command=lambda _: report())


def run_latency(options: argparse.Namespace) -> None:
    asked = {"flood": options.flood, "seconds": options.seconds, "rate": options.rate}
    contenders = chosen(options, contenders_for(options.broker), CONTENDERS)
    runs = interleaved(contenders, options.rounds, partial(latency, **asked))
    path = options.save or RESULTS / f"latency-{options.broker}.json"
    save(path, "latency", runs, **asked)
    print(f"{table(runs)}\n\nraw results: {path}")


def run_endurance(options: argparse.Namespace) -> None:
    path = options.save or RESULTS / f"endurance-{options.broker}.json"
    samples = []
    try:
        for sample in endurance(options.broker, options.workers, options.seconds):
            print(f"{sample.at:6.1f} s {sample.jobs_per_second:8,.0f} jobs/s", file=sys.stderr)
            samples.append(sample)
    finally:  # what breaks in the ninth minute is what eight minutes were run for
        if samples:
            save(path, "endurance", samples, seconds=options.seconds, workers=options.workers)
    print(f"{verdict(json.loads(path.read_text()))}\n\nraw results: {path}")


def report() -> None:
    """Write the page anew, and the plots, from the results there are."""
    readings = Readings()
    PAGE.write_text(refreshed(PAGE.read_text(), readings))
    for path in (PAGE, *draw_all(readings)):
        print(path)
