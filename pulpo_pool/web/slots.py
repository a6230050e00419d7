"""What each worker uses: read from the kernel and the scoreboard, a series a slot."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Final

import psutil
from prometheus_client.registry import Collector

from pulpo_pool.memory import MemoryParts, memory_parts
from pulpo_pool.metrics import catalogue as metrics
from pulpo_pool.scoreboard import TornRow, WorkRow, read_row
from pulpo_pool.states import SlotState
from pulpo_pool.web.collector import labelled
from pulpo_pool.web.health import worker_slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from pulpo_pool.clock import Clock
    from pulpo_pool.scoreboard import LifeRow, Scoreboard

MEMORY_LOOK: Final = 15.0  # seconds between two looks at one worker's pages
ATTENTION: Final = 300.0  # seconds after a scrape in which the next one is prepared for
MEMORY_SHARE: Final = 0.05  # seconds of each round: a look may take milliseconds
_PROC: Final = sys.platform.startswith("linux")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_THERE: Final = (SlotState.BOOTING, SlotState.UP, SlotState.STOPPING, SlotState.KILLED)


class MemoryLooks:
    """What workers' pages were like lately: too dear to be asked for with every scrape."""

    def __init__(self, scoreboard: Scoreboard, clock: Clock) -> None:
        self._scoreboard = scoreboard
        self._clock = clock
        self._asked_at = -inf
        self._seen: dict[int, tuple[int, float, MemoryParts]] = {}  # by slot: serial, when, what

    @property
    def are_wanted(self) -> bool:
        """Whether somebody scrapes, and so will again."""
        return self._clock.monotonic() - self._asked_at <= ATTENTION

    def look(self) -> None:
        """Look at those that were not looked at for longest, as far as the time goes."""
        if not self.are_wanted:
            return
        began = now = self._clock.monotonic()
        for slot in sorted(worker_slots(self._scoreboard), key=self._seen_at):
            life = self._scoreboard.life(slot)
            serial, pid = life.serial, life.pid
            if life.state not in _THERE or not pid:
                self._seen.pop(slot, None)
                continue
            if now - self._seen_at(slot) < MEMORY_LOOK:
                continue
            parts = memory_parts(pid)
            if parts is not None and parts.private:  # a zombie has nothing
                self._seen[slot] = (serial, now, parts)
            now = self._clock.monotonic()
            if now - began > MEMORY_SHARE:
                return

    def of(self, slot: int) -> MemoryParts | None:
        """Return what was seen of the process that sits in this slot."""
        self._asked_at = self._clock.monotonic()
        seen = self._seen.get(slot)
        return seen[2] if seen and seen[0] == self._scoreboard.life(slot).serial else None

    def _seen_at(self, slot: int) -> float:
        seen = self._seen.get(slot)
        return seen[1] if seen and seen[0] == self._scoreboard.life(slot).serial else -MEMORY_LOOK


class SlotCollector(Collector):
    """Reads rows and processes anew for each scrape; counters go on over the lives in a slot."""

    def __init__(self, scoreboard: Scoreboard, looks: MemoryLooks, clock: Clock) -> None:
        self._scoreboard = scoreboard
        self._looks = looks
        self._clock = clock
        self._highest: dict[tuple[str, int], float] = {}
        self._lock = Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of what workers use."""
        wanted = self._scoreboard.header.wanted_workers
        lives = {slot: self._scoreboard.life(slot) for slot in worker_slots(self._scoreboard)}
        ever = {slot: life for slot, life in lives.items() if life.serial or slot < wanted}
        there = {slot: life for slot, life in ever.items() if life.state in _THERE and life.pid}
        yield from self._times(ever, there)
        used = {slot: usage for slot, life in there.items() if (usage := usage_of(life.pid))}
        yield by_worker(metrics.WORKER_RSS, {slot: usage.resident for slot, usage in used.items()})
        parts = {slot: part for slot in there if (part := self._looks.of(slot))}
        yield by_worker(
            metrics.WORKER_PSS, {slot: part.proportional for slot, part in parts.items()}
        )
        yield by_worker(metrics.WORKER_USS, {slot: part.private for slot, part in parts.items()})

    def _times(self, ever: Mapping[int, LifeRow], there: Mapping[int, LifeRow]) -> Iterator[Metric]:
        # Before the rows are read: a job that ends meanwhile must not seem to have run longer.
        wall, now = self._clock.now(), self._clock.monotonic()
        rows = {slot: self._scoreboard.read_work(slot) for slot in there}
        yield by_worker(
            metrics.WORKER_START, {slot: wall - (now - life.born) for slot, life in there.items()}
        )
        yield by_worker(
            metrics.WORKER_HEARTBEAT,
            {slot: wall - (now - row.heartbeat) for slot, row in rows.items() if row},
        )
        with self._lock:
            yield by_worker(
                metrics.WORKER_BUSY, {slot: self._rising("busy", slot, now) for slot in ever}
            )
            yield by_worker(
                metrics.WORKER_CPU, {slot: self._rising("cpu", slot, now) for slot in ever}
            )

    def _rising(self, what: str, slot: int, now: float) -> float:
        """Return a sum that never falls.

        Between the end of a process and the moment when its master has added it up, less than
        all of it can be seen; Prometheus would take that for a restart and count it all again.
        """
        seen = self._busy(slot, now) if what == "busy" else self._cpu(slot)
        highest = self._highest[what, slot] = max(seen, self._highest.get((what, slot), 0.0))
        return highest

    def _busy(self, slot: int, now: float) -> float:
        try:
            row: WorkRow = read_row(self._scoreboard.work(slot))
        except TornRow:
            return 0.0
        running = max(0.0, now - row.busy_since) if row.busy_since else 0.0
        return float(row.busy + running)

    def _cpu(self, slot: int) -> float:
        try:
            life = self._scoreboard.read_life(slot)
        except TornRow:
            return 0.0
        used = float(life.cpu_before)
        if life.state in _THERE and life.pid:
            usage = usage_of(life.pid)
            used += usage.cpu if usage else 0.0
        return used


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: seconds of processor, its children's included; bytes of memory."""

    cpu: float
    resident: int


def usage_of(pid: int) -> Usage | None:
    """Return what a process uses; None if it is gone. 20 us, a tenth of what psutil takes."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - Path costs more
            fields = file.read(4_096).rpartition(b")")[2].split()
    except OSError:
        return None if _PROC else _by_psutil(pid)
    return Usage(sum(map(int, fields[11:15])) / _TICKS, int(fields[21]) * _PAGE)


def _by_psutil(pid: int) -> Usage | None:
    """Ask where there is no /proc: macOS."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        times = process.cpu_times()
        cpu = times.user + times.system + times.children_user + times.children_system
        return Usage(cpu, process.memory_info().rss)
    return None


def by_worker(spec: metrics.MetricSpec, values: Mapping[int, float | None]) -> Metric:
    """Return a family with a sample for each slot of which something is known."""
    return labelled(
        spec, {(str(slot),): value for slot, value in values.items() if value is not None}
    )
