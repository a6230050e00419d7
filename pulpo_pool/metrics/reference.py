"""The catalogue as a page for people: docs/metrics.md is this, and a test compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulpo_pool.metrics.catalogue import CATALOGUE, OTHER, UNKNOWN
from pulpo_pool.metrics.slot_values import MOST_SERIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pulpo_pool.metrics.spec import MetricSpec

_SECTIONS: Final = (
    ("Jobs", ("pulpo_job_", "pulpo_jobs_")),
    ("Queues", ("pulpo_queue_",)),
    ("Workers", ("pulpo_worker_", "pulpo_workers")),
    ("The pool", ("pulpo_",)),
)
_OPEN_LABELS: Final = {
    "queue": f"the queues that the pool works on; of others at most 200, the rest as `{OTHER}`. "
    "`pulpo_jobs_published_total` names these, `default` and those of `@pulpo.job(queue=...)`",
    "request_type": f"those that have a handler; all others are counted as `{UNKNOWN}`",
    "worker": "the slot, from 0: it stays the same over the lives of its processes",
    "version": "of pulpo-pool",
    "python": "its version",
    "broker": "the kind of queue, such as `file`",
}
_HEAD: Final = """\
# Metrics

Written by `pulpo-pool metrics --catalog --format markdown`: do not edit.

All are at `/metrics`, as text or OpenMetrics, with gzip for those who ask. Every series that is
known beforehand exists from the start, with 0. Counters go on over the recycling, the crashes and
the reloads of workers; they begin again with the pool. Times are seconds, sizes bytes; moments are
Unix times, so that an age is `time() - x`, and 0 means that there is none.

The counts of a queue (`pulpo_queue_jobs`, `pulpo_queue_oldest_ready_timestamp_seconds`) are missing
while it cannot be reached. Pools that share a queue all report its depth: take the `max`, not the
`sum`, over instances.
"""
_TAIL: Final = f"""\
## Metrics of your own

Whatever handlers count with `prometheus_client` (Counter, Gauge, Histogram, Summary) appears on the
same page, added up over all workers, and goes on like the pool's own. A `Gauge` needs a
`multiprocess_mode`, such as `livesum`; without one each slot is a series of its own, its number in
the label `pid`. Not exported, and named in a warning at the start: Info, Enum, custom collectors.
Exemplars are dropped. Names that begin with `pulpo_` are the pool's.

A slot takes {MOST_SERIES:,} series of an app. What is beyond is counted in
`pulpo_metrics_series_refused_total` and named in the log, and costs nobody else anything. A series
once exported stays until the pool starts anew.
"""


def as_markdown(catalogue: Iterable[MetricSpec] = CATALOGUE) -> str:
    """Return the reference page."""
    left = list(catalogue)
    parts = [_HEAD]
    for title, prefixes in _SECTIONS:
        mine = [spec for spec in left if spec.name.startswith(prefixes)]
        left = [spec for spec in left if spec not in mine]
        lines = [f"## {title}", "", "| metric | type | labels | |", "| --- | --- | --- | --- |"]
        parts.append("\n".join(lines + [_row(spec) for spec in mine]) + "\n")
    parts.append("\n".join(["## Labels", "", *_label_lines(catalogue)]) + "\n")
    return "\n".join([*parts, _TAIL])


def _row(spec: MetricSpec) -> str:
    labels = ", ".join(f"`{label}`" for label in spec.labels)
    help_text = spec.help
    if spec.buckets:
        help_text += f" Buckets: {', '.join(f'{bound:g}' for bound in spec.buckets)}."
    return f"| `{spec.name}` | {spec.kind} | {labels} | {help_text} |"


def _label_lines(catalogue: Iterable[MetricSpec]) -> Iterator[str]:
    told = set()
    for spec in catalogue:
        for label in spec.labels:
            values = spec.values.get(label)
            if values is None and label not in told:
                told.add(label)
                yield f"- `{label}`: {_OPEN_LABELS[label]}."
            elif values is not None:
                words = ", ".join(f"`{value}`" for value in values)
                yield f"- `{label}` of `{spec.name}`: {words}."
