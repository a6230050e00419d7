"""MetricSpec: a line of the catalogue, from which a metric and all that tells of it are made."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

Metric = TypeVar("Metric", Counter, Gauge, Histogram)


class Kind(enum.StrEnum):
    """What a metric's numbers do."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(enum.StrEnum):
    """Who knows the numbers: jobs and queues go through files, the rest is read when asked."""

    WORKER = "worker"
    KEEPER = "keeper"
    SCOREBOARD = "scoreboard"
    WEB = "web"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: `values` names a label's values where they are known beforehand."""

    name: str
    kind: Kind
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    def make(self, metric: type[Metric], registry: CollectorRegistry) -> Metric:
        """Return the metric object of prometheus_client."""
        if metric is Histogram:
            return Histogram(
                self.name, self.help, self.labels, registry=registry, buckets=self.buckets
            )
        if metric is Gauge:
            return Gauge(
                self.name, self.help, self.labels, registry=registry,
                multiprocess_mode="livemostrecent",
            )  # fmt: skip
        return metric(self.name, self.help, self.labels, registry=registry)

    @property
    def series(self) -> dict[str, frozenset[str]]:
        """The names that Prometheus stores for it, each with the labels that it has."""
        labels = frozenset(self.labels)
        if self.kind is not Kind.HISTOGRAM:
            return {self.name: labels}
        return {
            f"{self.name}_bucket": labels | {"le"},
            f"{self.name}_sum": labels,
            f"{self.name}_count": labels,
        }


def words(kind: type[enum.Enum]) -> tuple[str, ...]:
    """Return the label values of an enum: a StrEnum's own, an IntEnum's names in lower case."""
    return tuple(
        member.value if isinstance(member.value, str) else member.name.lower() for member in kind
    )
