"""docs/performance.md: what stands between its marks comes from the results, the rest is prose.

    <!-- generated: NAME -->
    <!-- end: NAME -->

NAME is `goals`, `provenance`, `table FILE` for a file of results, `half FILE` and `same FILE` for
one of latencies, `endurance FILE`, `plot NAME`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.endured import verdict
from benchmarks.goal_list import verdicts
from benchmarks.plots import PLOTS
from benchmarks.report import rows

if TYPE_CHECKING:
    from benchmarks.readings import Readings

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
ABSENT = "Not measured."
UNKNOWN = "not recorded"
WAITS = {
    "at jobs/s": "rate",
    "p50": "p50",
    "p90": "p90",
    "p99": "p99",
    "p99.9": "p999",
    "longest": "longest",
    "sent late": "late",
    "CPU us/job to send": "producer_cpu",
}
_MARKED = re.compile(r"(<!-- generated: ([^>]+) -->)\n.*?(<!-- end: \2 -->)", re.DOTALL)


def refreshed(text: str, readings: Readings) -> str:
    """Return the page with everything between marks as the results give it."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{_made(found[2], readings)}\n{found[3]}", text)


def _made(what: str, readings: Readings) -> str:
    kind, _, name = what.partition(" ")
    if kind in WHOLE:
        return WHOLE[kind](readings)
    if kind == "plot":
        return _plot(name, readings)
    return OF_FILE[kind](readings.files[name]) if name in readings else ABSENT


def _table(content: dict[str, Any]) -> str:
    return rows(content["runs"], _columns(content), with_ratios=content.get("ratios", True))


def _columns(content: dict[str, Any]) -> dict[str, str]:
    """Return what the file says; all figures, if it is of a time when files did not say."""
    first = content["runs"][0]
    every = {name: name for name, value in first.items() if isinstance(value, float)}
    columns: dict[str, str] = content.get("columns", every)
    return columns


def _half(content: dict[str, Any]) -> str:
    return rows(content["runs"], {"most jobs/s": "maximum", **_of("half")}, with_ratios=False)


def _same(content: dict[str, Any]) -> str:
    return rows(content["runs"], _of("same"), with_ratios=False)


def _of(load: str) -> dict[str, str]:
    return {title: f"{load}.{name}" for title, name in WAITS.items()}


def _plot(name: str, readings: Readings) -> str:
    plot = PLOTS[name]
    if not plot.can_be_drawn(readings):
        return ABSENT
    return f"![{plot.alt}](plots/{name}.svg)"


def _provenance(readings: Readings) -> str:
    lines = [
        "| results | measured (UTC) | commit | load before | rounds | machine |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for name, content in readings.files.items():
        rounds = len({run["round"] for run in content["runs"]})
        when = content["at"].replace("T", " ")[:16]
        machine = f"{content.get('machine', UNKNOWN)}; {content['system']}"
        load = f"{content['load'][0]:.1f}"
        commit = content.get("commit", UNKNOWN)
        link = f"[{name}](../benchmarks/results/{name}.json)"
        lines.append(f"| {link} | {when} | {commit} | {load} | {rounds} | {machine} |")
    return "\n".join(lines) + "\n\n" + _versions(readings)


def _versions(readings: Readings) -> str:
    """Every version that was measured: more than one of a name, if files differ."""
    numbers: dict[str, set[str]] = {}
    for content in readings.files.values():
        for name, number in content.get("versions", {}).items():
            numbers.setdefault(name, set()).add(number)
    told = (f"{name} {' and '.join(sorted(some))}" for name, some in sorted(numbers.items()))
    return f"Versions: {', '.join(told) or UNKNOWN}."


WHOLE = {"goals": verdicts, "provenance": _provenance}
OF_FILE = {"table": _table, "half": _half, "same": _same, "endurance": verdict}
