"""What a scrape costs: 8 and 256 slots, few series and many.

    python -m benchmarks.scrape

Every slot has counted each request_type of each queue. The slots' processes are this one, so that
reading CPU and memory costs what it does.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from pulpo_pool.clock import SystemClock
from pulpo_pool.metrics.jobs import JobMetrics
from pulpo_pool.metrics.slot_values import enter_multiprocess
from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.scoreboard import Scoreboard
from pulpo_pool.states import Activity, SlotState
from pulpo_pool.web.app import build_app
from pulpo_pool.web.collector import ScoreboardCollector
from pulpo_pool.web.file_collector import FileCollector
from pulpo_pool.web.slots import MemoryLooks, SlotCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    Headers = list[tuple[str, str]]
    Write = Callable[[bytes], None]

SCRAPES = 9


def take_head(_status: str, _headers: Headers, _error: object = None, /) -> Write:
    """Take what a WSGI app says before its body."""
    return bytearray().extend


def count(directory: Path, slot: int, queues: list[str], request_types: list[str]) -> None:
    """Count a job of each kind, in a process of its own."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    enter_multiprocess(directory, str(slot))
    metrics = JobMetrics(CollectorRegistry())
    metrics.prepare(queues, request_types)
    if slot == 0:
        metrics.export_zeros()
    for queue in queues:
        metrics.job_waited(queue, 1)
        for request_type in request_types:
            metrics.job_finished(queue, request_type, JobOutcome.SUCCESS, 0.1)
    os._exit(0)


def measure(slots: int, queues: int, request_types: int) -> None:
    scoreboard, clock = Scoreboard(slots + 2), SystemClock()
    scoreboard.header.wanted_workers = slots
    names = [f"queue_{number}" for number in range(queues)]
    with tempfile.TemporaryDirectory(prefix="pulpo-benchmark-") as folder:
        for slot in range(slots):
            count(Path(folder), slot, names, [f"type_{number}" for number in range(request_types)])
            life, work = scoreboard.life(slot), scoreboard.work(slot)
            life.state, life.serial, life.pid = SlotState.UP, slot + 1, os.getpid()
            work.serial, work.activity = slot + 1, Activity.IDLE
        known = (
            ScoreboardCollector(scoreboard, names, clock, "file"),
            SlotCollector(scoreboard, MemoryLooks(scoreboard, clock), clock),
        )
        app = build_app(scoreboard, known, FileCollector(Path(folder), scoreboard, clock), clock)
        times = []
        for _ in range(SCRAPES):
            began = time.perf_counter()
            environ = {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}
            body = b"".join(app(environ, take_head))
            times.append(time.perf_counter() - began)
    first, *others = times
    print(
        f"{slots:3} slots, {queues} queues of {request_types:2} request_types: "
        f"{sorted(others)[len(others) // 2] * 1e3:6.1f} ms (the first {first * 1e3:6.1f} ms), "
        f"{len(body) // 1024} kB"
    )


if __name__ == "__main__":
    for slots in (8, 256):
        for queues, request_types in ((1, 5), (3, 20)):
            measure(slots, queues, request_types)
