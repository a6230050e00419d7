"""What an app registers with prometheus_client and a pool of processes cannot add up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    REGISTRY,
    Counter,
    Enum,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    Summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

_EXPORTED: Final = (Counter, Gauge, Histogram, Summary)
_DEFAULT: Final = (GCCollector, PlatformCollector, ProcessCollector)  # of every process


def warn_of_unexported(registry: CollectorRegistry = REGISTRY) -> None:
    """Log, by name, what of this registry will not appear in the pool's metrics, and why."""
    for name, why in unexported(registry):
        logger.warning("the metric %s is not exported: %s", name, why)


def unexported(registry: CollectorRegistry) -> Iterator[tuple[str, str]]:
    """Yield the names of the metrics that are not exported, each with the reason."""
    found = registry._collector_to_names  # noqa: SLF001 - the only list of what is registered
    for collector, names in list(found.items()):
        if isinstance(collector, (*_EXPORTED, *_DEFAULT)):
            continue
        name = min(names, default="")
        if isinstance(collector, Info):
            yield name, "an Info is text, which the slots' files cannot hold; use a Gauge of 1"
        elif isinstance(collector, Enum):
            yield name, "an Enum is text, which the slots' files cannot hold; use a Gauge a state"
        else:
            kind = type(collector).__name__
            why = f"a custom collector ({kind}) is asked in one process, and there are many; use a "
            yield name or f"of {kind}", why + "Counter, Gauge, Histogram or Summary"
