"""From runs to a JSON file, and to a table of medians, spreads and ratios."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.provenance import provenance
from benchmarks.readings import Figure, number, part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.harness import Run


def save(path: Path, benchmark: str, runs: Sequence[Run], **parameters: float) -> None:
    """Keep every run, what its table shows, and where it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": benchmark,
        **provenance(),
        **parameters,
        "columns": dict(runs[0].columns),
        "ratios": runs[0].ratios,
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def table(runs: Sequence[Run]) -> str:
    """A Markdown table: medians, with the smallest and the largest, and ratios to the baseline."""
    return rows([asdict(run) for run in runs], runs[0].columns, with_ratios=runs[0].ratios)


def rows(runs: Sequence[dict[str, Any]], columns: Mapping[str, str], *, with_ratios: bool) -> str:
    """A table of runs as the JSON files have them, without columns that are nothing throughout."""
    columns = {title: name for title, name in columns.items() if any(part(r, name) for r in runs)}
    ratio = [" ratio |", " ---: |"] if with_ratios else ["", ""]
    lines = [
        "| contender |" + "".join(f" {title} (min-max) |{ratio[0]}" for title in columns),
        "| --- |" + f" ---: |{ratio[1]}" * len(columns),
    ]
    by_name = _by_name(runs)
    for name, own in by_name.items():
        base = by_name.get(own[0]["baseline"], [])
        cells = []
        for figure in columns.values():
            cells.append(_spread(own, figure))
            cells += [_ratio(own, base, figure)] if with_ratios else []
        shown = f"**{name}**" if name.startswith("pulpo-pool") else name
        lines.append("| " + " | ".join([shown, *cells]) + " |")
    return "\n".join(lines)


def against(runs: Sequence[Run]) -> str:
    """A Markdown table: us against each other contender of the same group, ratios of medians."""
    columns = runs[0].columns
    lines = [
        "| us | against | " + " | ".join(columns) + " |",
        "| --- | --- |" + " ---: |" * len(columns),
    ]
    by_name = _by_name([asdict(run) for run in runs])
    for us, own in by_name.items():
        if not us.startswith("pulpo-pool"):
            continue
        for name, others in by_name.items():
            if name != us and others[0]["baseline"] == own[0]["baseline"]:
                cells = [_ratio(own, others, figure) for figure in columns.values()]
                lines.append("| " + " | ".join([us, name, *cells]) + " |")
    return "\n".join(lines)


def _by_name(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_name.setdefault(run["contender"], []).append(run)
    return by_name


def _figure(runs: Sequence[dict[str, Any]], figure: str) -> Figure:
    return Figure({place: float(part(run, figure)) for place, run in enumerate(runs)})


def _spread(runs: Sequence[dict[str, Any]], figure: str) -> str:
    own = _figure(runs, figure)
    return f"{number(own.middle)} ({number(own.least)}-{number(own.most)})"


def _ratio(runs: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], figure: str) -> str:
    theirs = _figure(base, figure) if base else None
    if theirs is None or not theirs.middle:
        return "-"
    return number(_figure(runs, figure).middle / theirs.middle)
