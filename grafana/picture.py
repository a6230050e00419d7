"""Draws the dashboard's panels from a Prometheus's answers, where there is no Grafana.

    python -m grafana.picture http://127.0.0.1:9090 dashboard.png --minutes 15

Needs matplotlib, which nothing else here does.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grafana.panels import ROWS, Panel

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = 24
LEGENDS = 10  # series named in one picture


@dataclass(frozen=True, slots=True)
class Source:
    """A Prometheus and the time to look at."""

    url: str
    start: float
    end: float
    window: str

    def series(self, panel: Panel) -> Iterator[tuple[str, list[float], list[float]]]:
        """Yield the name, the times and the values of each line of a panel."""
        for query in panel.queries:
            for found in self._ask(query.expr):
                points = [(float(at), float(value)) for at, value in found["values"]]
                points = [(at - self.end, value) for at, value in points if math.isfinite(value)]
                name = query.legend or panel.title
                for label, value in found["metric"].items():
                    name = name.replace(f"{{{{{label}}}}}", value)
                yield name, [at for at, _ in points], [value for _, value in points]

    def _ask(self, expression: str) -> list[dict[str, Any]]:
        for name in ("$__rate_interval", "$__range"):
            expression = expression.replace(name, self.window)
        for name in ("$job", "$queue", "$request_type"):
            expression = expression.replace(name, ".*")
        step = max(0.25, (self.end - self.start) / 200)
        fields = {"query": expression, "start": self.start, "end": self.end, "step": step}
        url = f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(fields)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]["result"]


def draw(source: Source, path: str) -> None:
    """Write a picture of all rows."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    heights = [1 if panels[0].look == "stat" else 3 for _, panels in ROWS for _ in lines_of(panels)]
    figure = plt.figure(figsize=(21, 1.25 * sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    line = 0
    for title, panels in ROWS:
        for on_line in lines_of(panels):
            column = 0
            for panel in on_line:
                axes = figure.add_subplot(grid[line, column : column + panel.width])
                draw_panel(axes, panel, list(source.series(panel)))
                if panel is panels[0]:
                    axes.set_title(f"{title.upper()}   ", loc="left", fontsize=8, color="grey")
                column += panel.width
            line += 1
    figure.savefig(path, dpi=70)


def lines_of(panels: tuple[Panel, ...]) -> list[list[Panel]]:
    lines: list[list[Panel]] = [[]]
    for panel in panels:
        if sum(each.width for each in lines[-1]) + panel.width > COLUMNS:
            lines.append([])
        lines[-1].append(panel)
    return lines


def draw_panel(axes: Any, panel: Panel, found: list[Any]) -> None:
    axes.set_title(f"{panel.title} [{panel.unit}]", fontsize=9)
    axes.tick_params(labelsize=7)
    if panel.look == "stat":
        value = found[0][2][-1] if found and found[0][2] else math.nan
        axes.text(0.5, 0.4, f"{value:.4g}", ha="center", va="center", fontsize=20)
        axes.set_axis_off()
        return
    if panel.look == "heatmap":
        draw_heatmap(axes, found)
        return
    if panel.look == "stack" and len({tuple(times) for _, times, _ in found}) == 1:
        axes.stackplot(
            found[0][1], [values for _, _, values in found], labels=[n for n, _, _ in found]
        )
    else:
        for name, times, values in found:
            axes.plot(times, values, label=name, linewidth=1.2)
    axes.set_ylim(bottom=0)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[:LEGENDS], names[:LEGENDS], fontsize=6, loc="upper left")


def draw_heatmap(axes: Any, found: list[Any]) -> None:
    """Buckets are cumulative: each shows what it has more than the one below it."""
    found = sorted(found, key=lambda line: float(line[0]))
    times = found[-1][1]
    rows, below = [], dict.fromkeys(times, 0.0)
    for _, at, values in found:
        here = dict(zip(at, values, strict=True))
        rows.append([max(0.0, here.get(moment, 0.0) - below.get(moment, 0.0)) for moment in times])
        below = here
    axes.imshow(
        rows, aspect="auto", origin="lower", cmap="Blues",
        extent=(times[0], times[-1], -0.5, len(rows) - 0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(found)), [name for name, _, _ in found])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prometheus", help="its address, such as http://127.0.0.1:9090")
    parser.add_argument("picture", help="the PNG to write")
    parser.add_argument("--minutes", type=float, default=60, help="how far to look back")
    parser.add_argument("--window", default="1m", help="over which rates are taken")
    options = parser.parse_args()
    now = time.time()
    draw(
        Source(options.prometheus, now - 60 * options.minutes, now, options.window),
        options.picture,
    )
