"""Idle: CPU of all processes of a pool that has nothing to do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.lives import AHEAD, KINDS, LIGHT
from benchmarks.harness import Run, cpu, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders.lives import Life

WORKERS = 8
SETTLING = 3.0  # seconds after the last job: what a job leaves behind is done by then


@dataclass(frozen=True)
class Idled(Run):
    """Milliseconds of CPU."""

    milliseconds: float
    processes: int

    columns: ClassVar[Mapping[str, str]] = {"CPU ms": "milliseconds", "processes": "processes"}


def contenders() -> list[Life]:
    return [kind(WORKERS, LIGHT) for kind in KINDS]


def idle(contender: Life, number: int, seconds: float) -> Idled:
    """Every worker has done a job before."""
    contender.hold()
    contender.prepare(AHEAD * contender.count)
    contender.start()
    until(contender, contender.count)
    contender.let_go()
    until(contender, AHEAD * contender.count)
    time.sleep(SETTLING)
    family = contender.family()
    before = cpu(family)
    time.sleep(seconds)
    used = cpu(family) - before
    return Idled(contender.name, f"celery (redis), {WORKERS}", number, used * 1e3, len(family))
