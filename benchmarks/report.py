"""From raw results to a JSON file and a table of medians, spreads and ratios."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Run


def save(path: Path, benchmark: str, runs: Sequence[Run], **parameters: int) -> None:
    """Keep every run, and where it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": benchmark,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs",
        "load": os.getloadavg(),
        **parameters,
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def table(runs: Sequence[Run]) -> str:
    """A Markdown table: medians, with the smallest and the largest, and ratios to the baseline."""
    columns = runs[0].columns
    lines = [
        "| contender |" + "".join(f" {title} (min-max) | ratio |" for title in columns),
        "| --- |" + " ---: | ---: |" * len(columns),
    ]
    by_name = _by_name(runs)
    for name, own in by_name.items():
        base = by_name.get(own[0].baseline, [])
        cells = [
            cell
            for figure in columns.values()
            for cell in (_spread(own, figure), _ratio(own, base, figure))
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def against(runs: Sequence[Run]) -> str:
    """A Markdown table: us against each other contender of the same group, ratios of medians."""
    columns = runs[0].columns
    lines = [
        "| us | against | " + " | ".join(columns) + " |",
        "| --- | --- |" + " ---: |" * len(columns),
    ]
    by_name = _by_name(runs)
    for us, own in by_name.items():
        if not us.startswith("pulpo-pool"):
            continue
        for name, others in by_name.items():
            if name != us and others[0].baseline == own[0].baseline:
                cells = [_ratio(own, others, figure) for figure in columns.values()]
                lines.append("| " + " | ".join([us, name, *cells]) + " |")
    return "\n".join(lines)


def _by_name(runs: Sequence[Run]) -> dict[str, list[Run]]:
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.contender, []).append(run)
    return by_name


def _spread(runs: Sequence[Run], figure: str) -> str:
    values = [getattr(run, figure) for run in runs]
    middle = median(values)
    digits = 0 if middle >= 1_000 else 1 if middle >= 10 else 2
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _ratio(runs: Sequence[Run], base: Sequence[Run], figure: str) -> str:
    ours, theirs = (
        median([getattr(run, figure) for run in some] or [0.0]) for some in (runs, base)
    )
    return f"{ours / theirs:.2f}" if theirs else "-"
