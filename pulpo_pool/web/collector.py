"""What the scoreboard knows, as metrics: read when asked, never stored."""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pulpo_pool import __version__
from pulpo_pool.circuits import read_circuits
from pulpo_pool.log import LEVELS
from pulpo_pool.metrics import catalogue as metrics
from pulpo_pool.metrics.catalogue import Kind, MetricSpec, WorkerState
from pulpo_pool.scoreboard import as_text
from pulpo_pool.states import ExitReason, ForkReason, PoolState
from pulpo_pool.web.health import queue_is_seen, reasons_not_ready, worker_slots, worker_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from pulpo_pool.clock import Clock
    from pulpo_pool.scoreboard import Scoreboard

Sums: TypeAlias = "dict[tuple[str, ...], float]"  # by label values


class ScoreboardCollector(Collector):
    """Reads the shared rows anew for each scrape."""

    def __init__(
        self, scoreboard: Scoreboard, queues: Iterable[str], clock: Clock, broker: str = ""
    ) -> None:
        """`broker` is the kind of queue, such as "file"."""
        self._scoreboard = scoreboard
        self._queues = {as_text(queue): queue for queue in queues}
        self._clock = clock
        self._broker = broker

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the pool's own life."""
        header = self._scoreboard.header
        slots = worker_slots(self._scoreboard)
        wanted = header.wanted_workers
        states = Counter(dict.fromkeys(WorkerState, 0))
        for slot in slots:
            state = worker_state(self._scoreboard, slot)
            if state is not WorkerState.EMPTY or slot < wanted:
                states[state] += 1
        yield labelled(metrics.WORKERS, {(state,): count for state, count in states.items()})
        yield single(metrics.WORKERS_WANTED, wanted)
        in_flight, running_since = self._running()
        yield labelled(metrics.JOBS_IN_FLIGHT, in_flight)
        yield labelled(metrics.LONGEST_RUNNING, running_since)
        yield labelled(
            metrics.WORKER_FORKS, {(r.name.lower(),): header.forks[r] for r in ForkReason}
        )
        yield labelled(
            metrics.WORKER_EXITS, {(r.name.lower(),): header.exits[r] for r in ExitReason}
        )
        yield labelled(
            metrics.WORKER_RECYCLES,
            {(r.name.lower(),): header.exits[r] for r in metrics.RECYCLES},
        )
        yield from self._pool()
        yield from self._circuits()
        yield labelled(metrics.LOG_MESSAGES, self._log_lines())
        build = (__version__, platform.python_version(), self._broker)
        yield labelled(metrics.BUILD_INFO, {build: 1})

    def _pool(self) -> Iterator[Metric]:
        header = self._scoreboard.header
        now, monotonic = self._clock.now(), self._clock.monotonic()
        yield labelled(
            metrics.POOL_STATE,
            {(s.name.lower(),): float(s == header.pool_state) for s in PoolState},
        )
        ready = not reasons_not_ready(self._scoreboard, monotonic)
        yield single(metrics.POOL_READY, float(ready))
        yield single(metrics.CRASH_LOOPING, header.crash_looping)
        yield labelled(
            metrics.CONFIG_RELOADS,
            {("success",): header.reloads_done, ("failure",): header.reloads_failed},
        )
        yield single(metrics.CONFIG_RELOADED, header.last_reload_ok)
        yield single(metrics.CONFIG_RELOADED_AT, header.last_reload_at)
        yield single(metrics.GENERATION, header.generation)
        yield single(metrics.POOL_START, header.started_at)
        yield single(metrics.LOOP_LAG, header.loop_lag)
        yield single(metrics.QUEUE_UP, float(queue_is_seen(self._scoreboard, monotonic)))
        for spec, seen_at in (
            (metrics.MASTER_HEARTBEAT, header.heartbeat),
            (metrics.QUEUE_SEEN, header.queue_seen_at),
        ):
            # The scoreboard's times are monotonic; Prometheus compares with the wall clock.
            yield single(spec, now - (monotonic - seen_at) if seen_at else 0)

    def _circuits(self) -> Iterator[Metric]:
        circuits = read_circuits(self._scoreboard)
        wall = self._clock.now() - self._clock.monotonic()
        until: dict[tuple[str, ...], float] = {}
        pauses: dict[tuple[str, ...], float] = {}
        for circuit in circuits:
            until[circuit.request_type,] = circuit.paused_until and wall + circuit.paused_until
            pauses[circuit.request_type,] = circuit.pauses
        yield labelled(metrics.PAUSED_UNTIL, until)
        yield labelled(metrics.TYPE_PAUSES, pauses)

    def _running(self) -> tuple[Sums, Sums]:
        """Return, by queue, how many jobs run, and when the first of them started (0: none)."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        counts: Sums = {(queue,): 0.0 for queue in self._queues.values()}
        since = dict(counts)
        for slot in worker_slots(self._scoreboard):
            if worker_state(self._scoreboard, slot) is not WorkerState.BUSY:
                continue
            row = self._scoreboard.read_work(slot)
            if row is not None:
                queue = self._queues.get(row.queue, metrics.OTHER)
                counts[queue,] = counts.get((queue,), 0) + 1
                started = now - (monotonic - row.job_started)
                since[queue,] = min(started, since.get((queue,)) or started)
        return counts, since

    def _log_lines(self) -> Sums:
        """Add up what all processes of the pool wrote, in all their lives."""
        board = self._scoreboard
        counts = [list(board.header.log_lines)]
        counts += [list(board.work(slot).log_lines) for slot in range(board.slots)]
        return {
            (level,): sum(column)
            for level, column in zip(LEVELS, zip(*counts, strict=True), strict=True)
        }


def labelled(spec: MetricSpec, values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a family with a sample for each set of label values."""
    kind = CounterMetricFamily if spec.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(spec.name, spec.help, labels=spec.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def single(spec: MetricSpec, value: float) -> Metric:
    """Return a family with one sample and no labels."""
    return labelled(spec, {(): value})
