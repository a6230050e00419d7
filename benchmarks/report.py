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
    from collections.abc import Callable, Sequence
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
    """A Markdown table: medians, with the smallest and the largest, and ratios of medians."""
    lines = [
        "| contender | jobs/s (min-max) | ratio | CPU us/job (min-max) | ratio | server CPU |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.contender, []).append(run)
    for name, own in by_name.items():
        base = by_name.get(own[0].baseline, [])
        rate = _spread(own, lambda run: run.jobs_per_second)
        price = _spread(own, lambda run: run.worker_cpu)
        lines.append(
            f"| {name} | {rate} | {_ratio(own, base, lambda run: run.jobs_per_second)} | {price} "
            f"| {_ratio(own, base, lambda run: run.worker_cpu)} "
            f"| {median(run.server_cpu for run in own):,.1f} |"
        )
    return "\n".join(lines)


def against(runs: Sequence[Run]) -> str:
    """A Markdown table: us against each other contender of the same group, ratios of medians."""
    lines = ["| us | against | jobs/s | CPU a job |", "| --- | --- | ---: | ---: |"]
    names = list(dict.fromkeys(run.contender for run in runs))
    by_name = {name: [run for run in runs if run.contender == name] for name in names}
    for us in (name for name in names if name.startswith("pulpo-pool")):
        own = by_name[us]
        for name, others in by_name.items():
            if name != us and others[0].baseline == own[0].baseline:
                rate = _ratio(own, others, lambda run: run.jobs_per_second)
                price = _ratio(own, others, lambda run: run.worker_cpu)
                lines.append(f"| {us} | {name} | {rate} | {price} |")
    return "\n".join(lines)


def _spread(runs: Sequence[Run], value: Callable[[Run], float]) -> str:
    values = [value(run) for run in runs]
    digits = 0 if median(values) >= 1_000 else 1
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _ratio(runs: Sequence[Run], base: Sequence[Run], value: Callable[[Run], float]) -> str:
    if not base:
        return "-"
    return f"{median(map(value, runs)) / median(map(value, base)):.2f}"
