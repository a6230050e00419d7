"""The contenders, by engine: ourselves, the loops that people write by hand, the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders.pulpo import PulpoOnBeanstalkd, PulpoOnFile
from benchmarks.contenders.raw import RawGreenstalk, RawPipelined, RawSqlite

if TYPE_CHECKING:
    from benchmarks.harness import Contender


def contenders_for(broker: str) -> list[Contender]:
    """Return who takes part, in the order of their turns."""
    by_broker: dict[str, list[Contender]] = {
        "beanstalkd": [
            kind(processes)
            for processes in (1, 2)
            for kind in (RawGreenstalk, RawPipelined, PulpoOnBeanstalkd)
        ],
        "file": [kind(processes) for processes in (1, 2) for kind in (RawSqlite, PulpoOnFile)],
    }
    return [each for name, some in by_broker.items() if broker in (name, "all") for each in some]
