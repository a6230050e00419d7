"""Replacement: from kill -9 of an idle worker until its successor is up; of our pool only."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.lives import HEAVY, LIGHT, LivePulpoOnBeanstalkd, LivePulpoOnFile
from benchmarks.harness import LOOK, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders.lives import LivePulpo
    from benchmarks.contenders.pulpo import Pool

WORKERS = 8


@dataclass(frozen=True)
class Replaced(Run):
    milliseconds: float

    columns: ClassVar[Mapping[str, str]] = {"ms": "milliseconds"}


def contenders(app: str) -> list[LivePulpo]:
    imports = {"light": LIGHT, "heavy": HEAVY}[app]
    return [kind(WORKERS, imports) for kind in (LivePulpoOnBeanstalkd, LivePulpoOnFile)]


def replacement(contender: LivePulpo, number: int) -> Replaced:
    """Kill each worker once."""
    contender.start()
    assert contender.pool is not None
    while len(contender.pool.up()) < contender.count:
        time.sleep(LOOK)
    waits = [_seconds(contender.pool, slot) for slot in range(contender.count)]
    return Replaced(contender.name, "", number, median(waits) * 1e3)


def _seconds(pool: Pool, slot: int) -> float:
    pid = pool.up()[slot]
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while pool.up().get(slot, pid) == pid:
        time.sleep(0.0005)
    return time.monotonic() - began
