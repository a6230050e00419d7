"""`pulpo-pool doctor`: is this a place where a pool can live? A line for each thing it looks at."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cgroup import Cgroups
from pulpo_pool.cli import doctor_limits as limits
from pulpo_pool.cli import doctor_machine as machine
from pulpo_pool.cli import doctor_state as state
from pulpo_pool.cli.doctor_broker import broker
from pulpo_pool.cli.findings import Verdict, examined, warning
from pulpo_pool.cli.options import examples, json_option, loaded_settings, setting_options
from pulpo_pool.cli.output import print_json, printable
from pulpo_pool.clock import SystemClock
from pulpo_pool.settings import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pulpo_pool.cli.findings import Finding
    from pulpo_pool.settings import Loaded

_UNWELL: Final = 1


@click.command(
    epilog=examples(
        "pulpo-pool doctor",
        "pulpo-pool doctor --broker beanstalkd://10.0.0.5:11300 -w 8 --max-memory 200M",
        "pulpo-pool doctor --json | jq '.findings[] | select(.verdict != \"ok\")'",
        "pulpo-pool doctor --grace 30",
    )
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=600),
    default=5.0,
    metavar="SECONDS",
    help="How long each look may take.  [default: 5]",
)
@json_option
@setting_options(
    "broker",
    "workers",
    "name",
    "state_dir",
    "drain_timeout",
    "grace",
    "max_memory",
    "max_memory_hard",
)
def doctor(*, timeout: float, as_json: bool, **flags: Any) -> int | None:
    """Look at broker, clock, limits, disk and versions, and say what to mend.

    A job goes through the queue and back, under a name of its own; nothing is left behind. Exits
    with 1 if there is a problem; warnings are not counted.
    """
    loaded = loaded_settings(flags)
    findings = [
        finding
        for subject, examine in _examinations(loaded)
        for finding in examined(subject, examine, timeout)
    ]
    well = all(finding.verdict is not Verdict.PROBLEM for finding in findings)
    if as_json:
        print_json({"ok": well, "findings": findings})
    else:
        _print_for_people(findings)
    return None if well else _UNWELL


def _examinations(loaded: Loaded) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    settings, cgroups = loaded.settings, Cgroups()
    yield "settings", partial(_settings, loaded)
    yield "broker", partial(broker, settings)
    yield "state-dir", partial(state.state_directory, settings, state.Disks())
    yield "clock", partial(machine.clock, SystemClock(), time.sleep)
    yield "descriptors", limits.descriptors
    yield "processes", partial(limits.processes, settings, cgroups)
    yield "memory", partial(limits.memory, settings, cgroups, _installed_memory())
    yield "cpus", partial(limits.cpus, settings, cgroups, usable_cpus(cgroups))
    yield "grace", partial(limits.grace, loaded)
    yield "pool", partial(state.pool, settings)
    yield "versions", machine.versions


def _settings(loaded: Loaded) -> Iterator[Finding]:
    """Repeat what `check` warns of, but for what a line of its own says."""
    for text in loaded.warnings:
        if not text.startswith("drain-timeout:"):
            yield warning("settings", text, "pulpo-pool check shows them all")


def _installed_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _print_for_people(findings: Sequence[Finding]) -> None:
    subjects = max(len(finding.subject) for finding in findings)
    for finding in findings:
        advice = f" - {finding.advice}" if finding.advice else ""
        line = f"{finding.verdict:<7}  {finding.subject:<{subjects}}  {finding.said}{advice}"
        click.echo(printable(line))
