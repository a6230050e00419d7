"""The keeper: takes back the jobs of dead workers and counts what waits."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry
from tenacity import Retrying, retry_if_exception_type, stop_never, wait_random_exponential

from pulpo_pool.clock import SystemClock
from pulpo_pool.crashes import Coroner, CrashBook
from pulpo_pool.errors import ConfigError, QueueError, QueueUnavailable
from pulpo_pool.keeper.housekeeping import QueueGauges, Rescuer, judge_by
from pulpo_pool.log import count_lines_in, set_up_logging
from pulpo_pool.metrics.jobs import JobMetrics
from pulpo_pool.metrics.slot_values import enter_multiprocess, tell_losses_to
from pulpo_pool.queues.adapter import QueueStats
from pulpo_pool.service import Service
from pulpo_pool.states import QueueLink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tenacity import RetryCallState

    from pulpo_pool.clock import Clock
    from pulpo_pool.queues.adapter import QueueAdapter
    from pulpo_pool.seat import Seat
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

FULL_LOOK: Final = 5.0  # seconds; the bell may be missed at no greater price
BETWEEN_TIDYINGS: Final = 60.0  # seconds
BETWEEN_PARTS: Final = 0.5  # seconds, while there is more to tidy up: others want to write too
LONGEST_RECONNECT_WAIT: Final = 30.0  # seconds


class StatsPace:
    """How often the queue may be counted: a big queue must not be busy with being counted."""

    def __init__(self, *, burst: bool) -> None:
        self._shortest, self._share = (0.1, 5.0) if burst else (2.0, 50.0)
        self._longest = self._shortest if burst else FULL_LOOK
        self._next_at = 0.0
        self._last: object = None

    def wait(self, now: float) -> float:
        """Return the seconds until it may be counted again. `now` is monotonic."""
        return max(0.0, self._next_at - now)

    def counted(self, started: float, ended: float, found: object = None) -> None:
        """Note how long counting took; what was found twice is looked at less often."""
        pause = self._longest if found == self._last else self._shortest
        self._last = found
        self._next_at = ended + max(pause, self._share * (ended - started))


def run_keeper(  # noqa: PLR0913 - what it is composed of
    seat: Seat,
    *,
    bell: int,
    settings: Settings,
    metrics_directory: Path,
    open_queue: Callable[[], QueueAdapter],
    clock: Clock | None = None,
    registry: CollectorRegistry = REGISTRY,
    crashes: Path | None = None,
) -> int:
    """Keep house until told to leave; return the exit status.

    `bell` is read and never blocks; `crashes` is where the master keeps what the ended showed.
    """
    set_up_logging("keeper", level=settings.log_level, log_format=settings.log_format)
    count_lines_in(seat.work.log_lines)
    enter_multiprocess(metrics_directory, seat.label)
    service = Service(seat, clock or SystemClock())
    service.listen_to(bell)
    metrics = JobMetrics(registry)
    tell_losses_to(metrics.lost)
    gauges = QueueGauges(settings.queues, registry)
    coroner = Coroner(seat.pool, seat.instance, crashes)
    judge, book = judge_by(seat.scoreboard, coroner), CrashBook(seat.scoreboard, coroner)
    rescuer = Rescuer(judge, book, metrics, max_crashes=settings.max_crashes)
    Keeper(service, settings, open_queue, rescuer, metrics, gauges, clock or SystemClock()).run()
    service.report_leaving()
    return 0


class _Leave(Exception):
    """The keeper was told to leave while it waited for the queue."""


class Keeper:
    """One life of the keeper.

    1. wait for the bell, which the master rings after each death, or for the next look
    2. take back what dead workers held, then count what waits
    3. told to leave, by when the workers are gone: look once more
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        open_queue: Callable[[], QueueAdapter],
        rescuer: Rescuer,
        metrics: JobMetrics,
        gauges: QueueGauges,
        clock: Clock,
    ) -> None:
        self._service = service
        self._seat = service.seat
        self._settings = settings
        self._open_queue = open_queue
        self._metrics = metrics
        self._gauges = gauges
        self._clock = clock
        self._rescuer = rescuer
        self._pace = StatsPace(burst=settings.burst)
        self._tidies_at = clock.monotonic()  # a pool may live for less than BETWEEN_TIDYINGS
        self._queue: QueueAdapter | None = None
        self._had_queue = False

    def run(self) -> None:
        """Look again and again, until told to leave."""
        self._service.report_ready()
        with suppress(_Leave):
            while not self._service.leaving:
                self._patiently(self._look)
                self._service.wait(self._until_next_look())
        if not self._service.orphaned:
            self._last_look()
        self._let_go()

    def _until_next_look(self) -> float:
        now = self._clock.monotonic()
        until_tidying = max(0.0, self._tidies_at - now)
        return min(FULL_LOOK, until_tidying, self._pace.wait(now) or FULL_LOOK)

    def _look(self) -> None:
        queue = self._connected()
        self._rescuer.rescue(queue)
        started = self._clock.monotonic()
        if self._pace.wait(started) == 0:
            stats = queue.stats()
            waiting_since = queue.waiting_since()
            self._pace.counted(started, self._clock.monotonic(), stats)
            self._gauges.show(stats, waiting_since)
            self._note_whether_work_is_left(stats)
        self._seat.scoreboard.header.queue_seen_at = self._clock.monotonic()
        if started >= self._tidies_at:
            pause = BETWEEN_PARTS if queue.tidy() else BETWEEN_TIDYINGS
            self._tidies_at = self._clock.monotonic() + pause

    def _note_whether_work_is_left(self, stats: Mapping[str, QueueStats]) -> None:
        """A pool that runs in a burst ends when nothing is ready and nothing held."""
        if not self._settings.burst:
            return
        ours = [stats.get(queue, QueueStats()) for queue in self._settings.queues]
        out_of_work = sum(counts.ready + counts.reserved for counts in ours) == 0
        self._seat.scoreboard.header.out_of_work = int(out_of_work)
        if out_of_work:
            self._seat.ring()

    def _last_look(self) -> None:
        """Take back what the last workers held; a queue that is away now is not waited for."""
        try:
            self._rescuer.rescue(self._connected())
        except (QueueError, ConfigError) as error:
            logger.warning(
                "jobs held at the end come back with the next start, or when their lease ends: %s",
                error,
            )

    # -- the queue ----------------------------------------------------------------------------

    def _connected(self) -> QueueAdapter:
        if self._queue is None:
            self._queue = self._open_queue()
            self._seat.work.queue_up = QueueLink.UP
            if self._had_queue:
                self._metrics.reconnected()
            self._had_queue = True
        return self._queue

    def _let_go(self) -> None:
        queue, self._queue = self._queue, None
        self._seat.work.queue_up = QueueLink.UNKNOWN
        if queue is not None:
            with suppress(QueueError):
                queue.close()

    def _patiently(self, step: Callable[[], None]) -> None:
        """Take a step, again after as many reconnects as it takes."""
        retrying = Retrying(
            # A directory in the place of a queue's file is a ConfigError, and may go again.
            retry=retry_if_exception_type((QueueUnavailable, ConfigError)),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_RECONNECT_WAIT),
            stop=stop_never,
            sleep=self._nap,
            before_sleep=self._lose_queue,
        )
        retrying(step)

    def _lose_queue(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._metrics.queue_failed(error)
        logger.warning("the queue is unavailable: %s", error)
        self._let_go()

    def _nap(self, seconds: float) -> None:
        """Wait for the next try; the bell shortens it, since a dead worker's job should be back."""
        self._service.wait(seconds)
        if self._service.leaving:
            raise _Leave
