"""JobMetrics: counts what becomes of jobs."""

from __future__ import annotations

from bisect import bisect_left
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from pulpo_pool.errors import QueueCorrupt
from pulpo_pool.metrics.catalogue import (
    FILES_QUARANTINED,
    JOB_BURIES,
    JOB_DURATION,
    JOB_RETRIES,
    JOB_WAIT,
    JOBS_FINISHED,
    JOBS_PUBLISHED,
    JOBS_PUT_BACK,
    OTHER,
    QUEUE_ERRORS,
    RECONNECTS,
    SERIES_REFUSED,
    SETTLEMENTS_LOST,
    UNKNOWN,
    QueueFailure,
)
from pulpo_pool.metrics.slot_values import Loss, SlotValue, making_sleepers, wake
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import BuryReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_FORESEEN: Final = 64  # pairs of a queue and a request_type; each takes 20 KB and 0.3 ms


class JobMetrics:
    """Counts what becomes of jobs, for some two microseconds a job.

    Made once per process, after `enter_multiprocess` or `enter_scratch`. Label children are looked
    up by one dict access; request_types that `prepare` was not told of are counted together, so
    that nobody can publish a label.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._published = JOBS_PUBLISHED.make(Counter, registry)
        self._finished = JOBS_FINISHED.make(Counter, registry)
        self._duration = JOB_DURATION.make(Histogram, registry)
        self._wait = JOB_WAIT.make(Histogram, registry)
        self._retries = JOB_RETRIES.make(Counter, registry)
        self._buries = JOB_BURIES.make(Counter, registry)
        self._put_back = JOBS_PUT_BACK.make(Counter, registry)
        self._lost = SETTLEMENTS_LOST.make(Counter, registry)
        self._reconnects = RECONNECTS.make(Counter, registry)
        errors = QUEUE_ERRORS.make(Counter, registry)
        self._errors = {kind: errors.labels(kind) for kind in QueueFailure}
        self._losses = {
            Loss.SERIES: SERIES_REFUSED.make(Counter, registry),
            Loss.FILE: FILES_QUARANTINED.make(Counter, registry),
        }
        self._queues: tuple[str, ...] = ()
        self._request_types: frozenset[str] = frozenset()
        self._published_to: frozenset[str] = frozenset()
        self._publish_counts: dict[tuple[str, str], Counter] = {}
        self._ended: dict[tuple[str, str, str], _Timed] = {}
        self._waited: dict[str, _Timed] = {}
        self._sleepers: list[SlotValue] = []

    def prepare(
        self,
        queues: Iterable[str],
        request_types: Iterable[str],
        *,
        published_to: Iterable[str] = (),
    ) -> None:
        """Say which names may become labels; `published_to` are queues that others work on."""
        before = self._queues, self._request_types, self._published_to
        self._queues = tuple(queues)
        self._request_types = frozenset(request_types)
        self._published_to = frozenset(published_to)
        if before != (self._queues, self._request_types, self._published_to):
            self._publish_counts.clear()
            self._ended.clear()
            self._waited.clear()

    def foresee(self) -> None:
        """Make, in a template, what nearly every job counts; no file has it before it counts.

        It saves each worker 1 ms at its first job, and 0.3 MB stay shared.
        """
        pairs = list(product(self._queues, self._request_types))
        if len(pairs) > MOST_FORESEEN:
            return
        for queue in self._queues:
            with making_sleepers() as sleepers:
                self._waited[queue] = _Timed(self._wait.labels(queue))
            self._sleepers += sleepers
        for queue, request_type in pairs:
            with making_sleepers() as sleepers:
                self._look_up(queue, request_type, JobOutcome.SUCCESS)
            self._sleepers += sleepers

    def export_zeros(self) -> None:
        """Export every series that is known beforehand, so that no rate() misses its first step.

        Only one slot of a pool need do this: sums over slots are exported, and the same zeros
        from each of 256 slots would make every scrape hundreds of times dearer.
        """
        wake(self._sleepers)
        named = list(product(self._queues, [*sorted(self._request_types), UNKNOWN]))
        for queue, request_type in named:
            for outcome in JobOutcome:
                if outcome is not JobOutcome.LOST:
                    self._finished.labels(queue, request_type, outcome)
            for retry_reason in RetryReason:
                self._retries.labels(queue, request_type, retry_reason)
            for bury_reason in BuryReason:
                self._buries.labels(queue, request_type, bury_reason)
            self._duration.labels(queue, request_type)
            self._published.labels(queue, request_type)
            if request_type != UNKNOWN:  # only a type with a handler can be paused
                self._put_back.labels(queue, request_type)
        for queue in self._queues:
            self._wait.labels(queue)
            self._lost.labels(queue)

    def jobs_published(self, queue: str, request_type: str, number: int) -> None:
        """Count jobs that were put into a queue, which handlers may name as they like."""
        try:
            counter = self._publish_counts[queue, request_type]
        except KeyError:
            counter = self._look_up_published(queue, request_type)
        counter.inc(number)

    def job_waited(self, queue: str, seconds: float) -> None:
        """Count how long a job waited for its first attempt."""
        try:
            waited = self._waited[queue]
        except KeyError:
            waited = self._waited[queue] = _Timed(self._wait.labels(queue))
        waited.count(seconds)

    def job_finished(
        self, queue: str, request_type: str, outcome: JobOutcome, seconds: float
    ) -> None:
        """Count the end of an attempt which spent `seconds` in its handler."""
        try:
            ended = self._ended[queue, request_type, outcome]
        except KeyError:
            ended = self._look_up(queue, request_type, outcome)
        ended.count(seconds)

    def job_crashed(self, queue: str, request_type: str, outcome: JobOutcome) -> None:
        """Count an attempt that ended with its worker: RETRIED, or BURIED at the limit."""
        label = self._label(request_type)
        self._finished.labels(queue, label, outcome).inc()
        if outcome is JobOutcome.BURIED:
            self._buries.labels(queue, label, BuryReason.CRASHED).inc()
        else:
            self._retries.labels(queue, label, RetryReason.CRASH).inc()

    def job_retried(self, queue: str, request_type: str, reason: RetryReason) -> None:
        """Count a job that was put back."""
        self._retries.labels(queue, self._label(request_type), reason).inc()

    def job_buried(self, queue: str, request_type: str, reason: BuryReason) -> None:
        """Count a job that was set aside."""
        self._buries.labels(queue, self._label(request_type), reason).inc()

    def job_put_back(self, queue: str, request_type: str) -> None:
        """Count a job that was not begun."""
        self._put_back.labels(queue, self._label(request_type)).inc()

    def settlement_lost(self, queue: str) -> None:
        """Count an attempt that was settled too late."""
        self._lost.labels(queue).inc()

    def reconnected(self) -> None:
        """Count a connection to the queue that came back."""
        self._reconnects.inc()

    def queue_failed(self, error: BaseException | None) -> None:
        """Count a call that the queue did not answer."""
        corrupt = isinstance(error, QueueCorrupt)
        self._errors[QueueFailure.CORRUPT if corrupt else QueueFailure.UNAVAILABLE].inc()

    def lost(self, what: Loss) -> None:
        """Count what became of a metric that is not exported as it should be."""
        self._losses[what].inc()

    def _look_up(self, queue: str, request_type: str, outcome: JobOutcome) -> _Timed:
        label = self._label(request_type)
        finished = self._finished.labels(queue, label, outcome)
        ended = _Timed(self._duration.labels(queue, label), finished)
        if label == request_type:  # hostile names must not fill the cache either
            self._ended[queue, request_type, outcome] = ended
        return ended

    def _look_up_published(self, queue: str, request_type: str) -> Counter:
        known = queue in self._published_to or queue in self._queues
        label = self._label(request_type)
        counter = self._published.labels(queue if known else OTHER, label)
        if known and label == request_type:  # see _look_up
            self._publish_counts[queue, request_type] = counter
        return counter

    def _label(self, request_type: str) -> str:
        return request_type if request_type in self._request_types else UNKNOWN


class _Timed:
    """The values behind a histogram, and behind a counter that goes with it.

    By way of `inc` and `observe`, which check, lock one by one and look for the bucket one by
    one, a job cost 1.5 us; this is 0.5. The names are prometheus_client's own, which is why its
    version is bounded.
    """

    __slots__ = ("_bounds", "_buckets", "_counter", "_store", "_sum")

    def __init__(self, histogram: Any, counter: Any = None) -> None:
        self._bounds: Sequence[float] = histogram._upper_bounds  # noqa: SLF001
        self._buckets: list[SlotValue] = histogram._buckets  # noqa: SLF001
        self._sum: SlotValue = histogram._sum  # noqa: SLF001
        self._counter: SlotValue | None = counter._value if counter is not None else None  # noqa: SLF001
        self._store = self._sum.store

    def count(self, seconds: float) -> None:
        lock = self._store.lock
        lock.acquire()  # not by `with`, which takes twice the time
        try:
            if self._counter is not None:
                self._counter.add(1.0)
            self._sum.add(seconds)
            self._buckets[bisect_left(self._bounds, seconds)].add(1.0)
        finally:
            lock.release()
