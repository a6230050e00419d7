"""Pick-up by idle workers: from before the send call to the first line of the handler."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, ClassVar

from benchmarks.harness import LINE, Run, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.harness import Contender

GAP = (0.02, 0.08)  # seconds between two jobs: idle enough to sleep, random so as to meet no beat
WARM_UP = 10  # jobs that are sent first: imports, connections
MILLISECOND = 1e6  # nanoseconds


@dataclass(frozen=True)
class PickedUp(Run):
    """Milliseconds."""

    p50: float
    p99: float

    columns: ClassVar[Mapping[str, str]] = {"p50 ms": "p50", "p99 ms": "p99"}


def pick_up(contender: Contender, number: int, jobs: int) -> PickedUp:
    """Send jobs one by one, each when the one before it is done."""
    contender.prepare(0)
    contender.start()
    sent = []
    for job in range(WARM_UP + jobs):
        time.sleep(random.uniform(*GAP))
        sent.append(contender.send(job))
        until(contender, job + 1)
    begun = map(int, contender.done.read_bytes().split())
    waits = [(end - start) / MILLISECOND for start, end in zip(sent, begun, strict=True)]
    assert len(LINE % 0) * len(waits) == contender.done.stat().st_size
    cuts = quantiles(waits[WARM_UP:], n=100, method="inclusive")
    return PickedUp(contender.name, contender.baseline, number, cuts[49], cuts[98])
