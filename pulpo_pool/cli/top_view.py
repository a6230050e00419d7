"""What `pulpo-pool top` shows: from two snapshots of a pool to lines that fit the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from pulpo_pool.cli.output import counted, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS: Final = "p pause/resume  + - scale  r recycle  \u2191\u2193 select  q quit"
_FIXED_LINES: Final = 4  # two of the pool, the heads of the columns, the keys
_STYLES: Final = {"busy": "green", "booting": "yellow", "stopping": "yellow", "backoff": "red"}
_PLANNED: Final = frozenset({"start", "scale_up"})  # forks that replace nobody
_MIB: Final = 1_048_576
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pool at one moment, and how fast it has been since the one before."""

    master: Mapping[str, Any]
    workers: list[Mapping[str, Any]]
    counted_from: tuple[float, int]  # monotonic seconds, and the jobs that were done by then
    rate: float | None = None  # jobs a second; None until there was time to measure it
    paused: tuple[str, ...] = ()  # request_types

    @classmethod
    def of(
        cls, status: Mapping[str, Any], now: float, before: Snapshot | None, shortest: float
    ) -> Snapshot:
        """Return what `status` says, with the rate over `shortest` seconds at least."""
        master, workers = status["master"], status["workers"]
        paused = tuple(each["request_type"] for each in status["paused_request_types"])
        here = (now, master["jobs_total"])
        if before is None:
            return cls(master, workers, here, None, paused)
        began, jobs = before.counted_from
        if now - began < shortest:
            return cls(master, workers, before.counted_from, before.rate, paused)
        rate = max(0.0, (here[1] - jobs) / (now - began))
        return cls(master, workers, here, rate, paused)

    def count(self, *states: str) -> int:
        """Return how many workers are in one of these states."""
        return sum(worker["state"] in states for worker in self.workers)

    @property
    def replaced(self) -> int:
        """How many processes were started in the place of another."""
        return sum(n for reason, n in self.master["forks"].items() if reason not in _PLANNED)


def plain_line(snapshot: Snapshot) -> str:
    """Return the pool in a line for a pipe."""
    master = snapshot.master
    rate = "-" if snapshot.rate is None else f"{snapshot.rate:.1f}"
    return (
        f"{master['state']}: {snapshot.count('idle', 'busy')}/{master['workers_wanted']} workers, "
        f"{snapshot.count('busy')} busy, {rate} jobs/s, {counted(master['jobs_total'])} done, "
        f"{snapshot.replaced:,} restarts, generation {master['generation']}"
    )


def screen(snapshot: Snapshot, selected: int | None, said: str, height: int) -> Table:
    """Return all that is shown, never more than `height` lines; `said` takes the keys' place."""
    grid = Table.grid(expand=True)
    for line in (_pool_line(snapshot), _work_line(snapshot)):
        grid.add_row(line)
    grid.add_row(_workers(snapshot, selected, max(1, height - _FIXED_LINES)))
    bottom = Text(printable(said), style="yellow") if said else Text(KEYS, style="dim")
    grid.add_row(_one_line(bottom))
    return grid


def _pool_line(snapshot: Snapshot) -> Text:
    master = snapshot.master
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(printable(master["name"]), "bold").append(": ")
    text.append(master["state"], "green" if master["state"] == "running" else "yellow")
    text.append(
        f"   {snapshot.count('idle', 'busy')}/{master['workers_wanted']} workers, "
        f"{snapshot.count('busy')} busy   generation {master['generation']}   "
        f"up {duration(master['uptime_seconds'])}"
    )
    if master["crash_looping"]:
        text.append("   crash-looping", "bold red")
    return text


def _work_line(snapshot: Snapshot) -> Text:
    rate = "-" if snapshot.rate is None else f"{snapshot.rate:,.1f}"
    reload = snapshot.master["reload"]["phase"]
    words = f"{rate} jobs/s   {counted(snapshot.master['jobs_total'])} done   "
    words += f"{snapshot.replaced:,} restarts"
    if reload not in ("none", "done"):
        words += f"   reload {reload}"
    text = Text(words)
    if snapshot.paused:
        text.append("   paused: " + printable(", ".join(snapshot.paused)), "bold yellow")
    return _one_line(text)


def _workers(snapshot: Snapshot, selected: int | None, room: int) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    for name, right, width in (
        ("SLOT", True, 4),
        ("PID", True, 7),
        ("STATE", False, 8),
        ("DOING", False, None),
        ("FOR", True, 6),
        ("JOBS", True, 9),
        ("MIB", True, 5),
    ):
        table.add_column(
            name,
            justify="right" if right else "left",
            width=width,
            ratio=None if width else 1,
            no_wrap=True,
            overflow="ellipsis",
        )
    for worker in _window(snapshot.workers, selected, room):
        style = "reverse" if worker["slot"] == selected else _STYLES.get(worker["state"], "")
        table.add_row(*(Text(cell) for cell in _cells(worker)), style=style)
    return table


def _window(
    workers: list[Mapping[str, Any]], selected: int | None, room: int
) -> list[Mapping[str, Any]]:
    """Return the workers there is room for, the selected one among them."""
    place = next((n for n, worker in enumerate(workers) if worker["slot"] == selected), 0)
    first = max(0, min(place - room // 2, len(workers) - room))
    return workers[first : first + room]


def _cells(worker: Mapping[str, Any]) -> list[str]:
    doing = worker["request_type"] or ""
    if worker["job_id"]:
        doing += f" {worker['job_id']}"
    return [
        str(worker["slot"]),
        str(worker["pid"] or ""),
        worker["state"],
        printable(doing),
        "" if worker["job_seconds"] is None else duration(worker["job_seconds"]),
        f"{worker['jobs_done']:,}",
        f"{worker['rss_bytes'] / _MIB:.0f}" if worker["rss_bytes"] else "",
    ]


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def duration(seconds: float) -> str:
    """Return a time of at most six characters, such as 12.3s, 4m05s, 3h07m or 12d03h."""
    if seconds < _MINUTE:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"
