"""The contenders, by engine: ourselves, the loops that people write by hand, the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders.celery import Celery, CeleryAhead
from benchmarks.contenders.dramatiq import Dramatiq, DramatiqAhead
from benchmarks.contenders.huey import Huey
from benchmarks.contenders.pulpo import PulpoOnBeanstalkd, PulpoOnFile
from benchmarks.contenders.raw import RawGreenstalk, RawPipelined, RawSqlite
from benchmarks.contenders.rq import Rq

if TYPE_CHECKING:
    from benchmarks.harness import Contender


def contenders_for(broker: str) -> list[Contender]:
    """Return who takes part, in the order of their turns: the peers on Redis beside beanstalkd."""
    by_broker: dict[str, list[Contender]] = {
        "beanstalkd": [
            *(
                kind(processes)
                for processes in (1, 2)
                for kind in (RawGreenstalk, RawPipelined, PulpoOnBeanstalkd)
            ),
            *(peer() for peer in (Celery, CeleryAhead, Dramatiq, DramatiqAhead, Rq)),
        ],
        "file": [
            *(kind(processes) for processes in (1, 2, 8) for kind in (RawSqlite, PulpoOnFile)),
            Huey(),
        ],
    }
    return [each for name, some in by_broker.items() if broker in (name, "all") for each in some]
