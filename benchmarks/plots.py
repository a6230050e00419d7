"""The plots of docs/performance.md: which there are, and from which result files each is drawn.

matplotlib is loaded only where something is drawn: `pip install -e .[benchmarks]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.readings import Where

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from benchmarks.readings import Readings

FOLDER = Path(__file__).parents[1] / "docs" / "plots"
# Grey that can be read on white and on black, and three colours of Okabe and Ito, which people who
# see fewer colours can tell apart; each kind has a marker of its own as well.
GREY = "#767676"
OURS, RAW, PEER = ("#0072B2", "o"), ("#009E73", "s"), ("#D55E00", "D")
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files, and it can be searched
    "svg.hashsalt": "pulpo-pool",  # the same results give the same bytes
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.markersize": 6,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color",
         "ytick.color", "grid.color"), GREY,
    ),
}  # fmt: skip
WIDTH = 8.0  # inches, of 72 points
PERCENTILES = {"p50": "50", "p90": "90", "p99": "99", "p999": "99.9", "longest": "100"}
SHORT_SCALE = 30  # times its low end is its high end
MEBIBYTE = 1024  # kiB


@dataclass(frozen=True)
class Plot:
    """A file in docs/plots: `draw` is given the readings and the one file that it shows."""

    file: str
    draw: Callable[[Readings, str], Figure]
    alt: str

    def can_be_drawn(self, readings: Readings) -> bool:
        return self.file in readings

    def origin(self, readings: Readings) -> str:
        """What the SVG says of the results it was drawn from."""
        return f"from {self.file}.json, {readings.digest([self.file])}"

    def write(self, path: Path, readings: Readings) -> None:
        """Draw it; the same results and the same matplotlib give the same bytes."""
        import matplotlib as mpl

        with mpl.rc_context(LOOK):
            about = {"Date": None, "Creator": None, "Title": self.alt,
                     "Description": self.origin(readings)}  # fmt: skip
            drawn = self.draw(readings, self.file)
            drawn.savefig(path, format="svg", transparent=True, metadata=about)


def style(contender: str) -> tuple[str, str]:
    """Return the colour and the marker of a kind of contender."""
    if contender.startswith("pulpo-pool"):
        return OURS
    return RAW if contender.startswith("raw") else PEER


def panels(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def plain(axis: Axis) -> None:
    """Write 1,000 on a scale of factors of ten; and 2 and 5 times that, where it is a short one."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < SHORT_SCALE * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_locator(NullLocator())


def spreads(readings: Readings, file: str, shown: dict[str, str]) -> Figure:
    """Medians by contender, with the smallest and the largest; on a scale of factors of ten."""
    contenders = readings.contenders(file)[::-1]
    figure, axes = panels(1, len(shown), 0.9 + 0.32 * len(contenders), sharey=True)
    for axis, (name, label) in zip(axes[0], shown.items(), strict=True):
        for place, contender in enumerate(contenders):
            found = readings.figure(Where(file, contender, name))
            assert found is not None
            colour, marker = style(contender)
            error = [[found.middle - found.least], [found.most - found.middle]]
            axis.errorbar(found.middle, place, xerr=error, color=colour, marker=marker, capsize=3)
        axis.set(xscale="log", xlabel=label)
        plain(axis.xaxis)
    axes[0][0].set_yticks(range(len(contenders)), contenders)
    return figure


def drained(readings: Readings, file: str) -> Figure:
    shown = {"jobs_per_second": "jobs/s (log scale)", "worker_cpu": "CPU, µs a job (log scale)"}
    return spreads(readings, file, shown)


def picked_up(readings: Readings, file: str) -> Figure:
    return spreads(readings, file, {"p50": "p50, ms (log scale)", "p99": "p99, ms (log scale)"})


def weighed(readings: Readings, file: str) -> Figure:
    """Memory over the number of workers, a line for each kind; its slope is a worker's price."""
    figure, axes = panels(1, 1, 3.6)
    axis = axes[0][0]
    by_kind: dict[str, dict[int, float]] = {}
    for run in readings.runs(file):
        kind = run["contender"].rpartition(",")[0]
        found = _middle(readings, file, run["contender"], "used")
        by_kind.setdefault(kind, {})[run["workers"]] = found
    for kind, used in sorted(by_kind.items(), key=lambda item: -max(item[1].values())):
        axis.plot(
            list(used), list(used.values()), label=kind, color=style(kind)[0],
            marker=style(kind)[1], linestyle=_dashes(kind),
        )  # fmt: skip
    axis.set(xlabel="workers", ylabel="PSS of all processes, MiB", ylim=(0, None))
    axis.set_xticks(sorted({run["workers"] for run in readings.runs(file)}))
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def waits(readings: Readings, file: str) -> Figure:
    """The percentiles of each contender, a panel for each rate: medians of the rounds."""
    loads = {"half": "at half of its own maximum", "same": "at the same rate for all"}
    figure, axes = panels(1, len(loads), 3.6, sharey=True)
    for axis, (load, title) in zip(axes[0], loads.items(), strict=True):
        for contender in readings.contenders(file):
            middles = [_middle(readings, file, contender, f"{load}.{each}") for each in PERCENTILES]
            rate = _middle(readings, file, contender, f"{load}.rate")
            axis.plot(
                list(PERCENTILES.values()), middles, label=f"{contender}: {rate:,.0f} jobs/s",
                color=style(contender)[0], marker=style(contender)[1], linestyle=_dashes(contender),
            )  # fmt: skip
        axis.set(yscale="log", xlabel="percentile of jobs", title=title)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=9)
    plain(axes[0][0].yaxis)
    axes[0][0].set_ylabel("wait, ms (log scale)")
    return figure


def _dashes(contender: str) -> str:
    """Tell those of one colour apart."""
    others = {"dramatiq": "--", "huey": ":", "rq": "-.", "pulpo-pool on file": "--"}
    return next((dashes for name, dashes in others.items() if contender.startswith(name)), "-")


def _middle(readings: Readings, file: str, contender: str, name: str) -> float:
    found = readings.figure(Where(file, contender, name))
    assert found is not None
    return found.middle


def endured(readings: Readings, file: str) -> Figure:
    """Throughput, CPU, memory and descriptors over time, each scale from nothing."""
    samples = readings.runs(file)
    minutes = [sample["at"] / 60 for sample in samples]
    series: dict[str, Sequence[float]] = {
        "jobs/s": [sample["jobs_per_second"] for sample in samples],
        "worker CPU,\nµs a job": [sample["worker_cpu"] for sample in samples],
        "PSS without\nfiles, MiB": [
            sum(each["own"] for each in sample["members"]) / MEBIBYTE for sample in samples
        ],
        "open\ndescriptors": [
            sum(each["descriptors"] for each in sample["members"]) for sample in samples
        ],
    }
    figure, axes = panels(len(series), 1, 1.4 * len(series), sharex=True)
    for axis, (label, values) in zip(axes[:, 0], series.items(), strict=True):
        _curve(axis, minutes, values, label)
    axes[-1, 0].set_xlabel("minutes since the start")
    figure.align_ylabels()
    return figure


def _curve(axis: Axes, minutes: Sequence[float], values: Sequence[float], label: str) -> None:
    axis.plot(minutes, values, color=OURS[0])
    axis.set(ylabel=label, ylim=(0, max(values) * 1.15), xlim=(0, None))


PLOTS = {
    **{
        f"drain-{engine}": Plot(
            f"drain-{engine}", drained,
            f"Jobs a second and CPU a job of each contender that drains a queue beside {engine}: "
            "medians with the smallest and the largest round. The table below has the numbers.",
        )
        for engine in ("beanstalkd", "file")
    },
    "pickup": Plot(
        "pickup-all", picked_up,
        "Milliseconds from the send call to the handler's first line, median and 99th percentile "
        "of each contender with its spread. The table below has the numbers.",
    ),
    "memory": Plot(
        "memory", weighed,
        "Memory of all processes of a pool over its number of workers, a line for each contender, "
        "with an app that imports pandas, requests and sqlalchemy. The table has the numbers.",
    ),
    **{
        f"latency-{engine}": Plot(
            f"latency-{engine}", waits,
            f"Percentiles of a job's wait under load beside {engine}, a line for each contender: "
            "at half of its own maximum rate, and at a rate that is the same for all. The table "
            "below has the numbers.",
        )
        for engine in ("beanstalkd", "file")
    },
    **{
        f"endurance-{engine}": Plot(
            f"endurance-{engine}", endured,
            f"A long run at full rate on {engine}: jobs a second, CPU a job, memory and "
            "descriptors over time. The table below compares its second tenth with its last.",
        )
        for engine in ("beanstalkd", "file")
    },
}  # fmt: skip


def draw_all(readings: Readings) -> list[Path]:
    """Write every plot that has its results."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in PLOTS.items():
        if plot.can_be_drawn(readings):
            path = FOLDER / f"{name}.svg"
            plot.write(path, readings)
            written.append(path)
    return written
