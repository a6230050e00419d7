"""Start: from the command until every worker is inside a job, beside one bare import of the app."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.lives import AHEAD, HEAVY, KINDS, BareImport
from benchmarks.harness import NANOSECONDS, Run, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders.lives import Life

WORKERS = 8


@dataclass(frozen=True)
class Started(Run):
    seconds: float

    columns: ClassVar[Mapping[str, str]] = {"seconds": "seconds"}


def contenders() -> list[Life]:
    return [BareImport(HEAVY), *(kind(WORKERS, HEAVY) for kind in KINDS)]


def start(contender: Life, number: int) -> Started:
    """Jobs are there before; none of the first ends before every worker has one."""
    contender.hold()
    contender.prepare(AHEAD * contender.count)
    began = time.monotonic_ns()
    contender.start()
    until(contender, contender.count)
    last = sorted(map(int, contender.done.read_bytes().split()))[contender.count - 1]
    contender.let_go()
    return Started(contender.name, "bare import", number, (last - began) / NANOSECONDS)
