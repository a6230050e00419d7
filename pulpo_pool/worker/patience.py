"""Patience: a worker stays alive while its queue is away, and tries again ever more slowly."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

from tenacity import Retrying, retry_if_exception, stop_never, wait_random_exponential

from pulpo_pool.errors import ConfigError, QueueCorrupt, QueueUnavailable
from pulpo_pool.states import Activity, QueueLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from pulpo_pool.clock import Clock
    from pulpo_pool.metrics.jobs import JobMetrics
    from pulpo_pool.seat import Seat
    from pulpo_pool.worker.hygiene import Hygiene
    from pulpo_pool.worker.loop import WorkerLoop
    from pulpo_pool.worker.orders import Orders

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What people filter by says who speaks, the worker, not in which file it is written.
logger = logging.getLogger("pulpo_pool.worker.process")

LONGEST_RECONNECT_WAIT: Final = 30.0  # seconds
LAST_RECONNECT_WAIT: Final = 1.0  # the same, once told to leave with a job unsettled


class Leave(Exception):
    """The worker was told to leave while it waited for its queue."""


class Patience:
    """What is worth waiting for, how long, and what is said meanwhile.

    `loop` is None until the worker has booted: what is wrong before that is a mistake to report.
    """

    def __init__(
        self, seat: Seat, orders: Orders, hygiene: Hygiene, metrics: JobMetrics, clock: Clock
    ) -> None:
        self.loop: WorkerLoop | None = None
        self._seat = seat
        self._orders = orders
        self._hygiene = hygiene
        self._metrics = metrics
        self._clock = clock

    def until_it_works(self, step: Callable[[*Ts], T], *given: *Ts) -> T:
        """Call again and again, ever more slowly, while the queue is away.

        What follows an opening is tried inside too: a full disk can be opened. Raises Leave.
        """
        # The first try is made without tenacity, whose own steps unshare 0.2 MB of each worker.
        try:
            return step(*given)
        except Exception as error:
            if not self._is_worth_waiting(error):
                raise
            failed = [error]

        def again() -> T:
            if failed:
                raise failed.pop()
            return step(*given)

        return self._retrying()(again)

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(self._is_worth_waiting),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_RECONNECT_WAIT),
            stop=stop_never,
            sleep=self._nap_unless_leaving,
            before_sleep=self._note_failed_try,
            reraise=True,
        )

    def say_queue_is_away(self, error: BaseException | None) -> None:
        """Tell the master, the metrics and the log."""
        self._seat.work.queue_up = QueueLink.AWAY
        self._metrics.queue_failed(error)
        if isinstance(error, QueueCorrupt):
            logger.error("the queue is unusable: %s", error)
        else:
            logger.warning("the queue is unavailable: %s", error)

    def _is_worth_waiting(self, error: BaseException) -> bool:
        """A queue may come back; what was wrong from the first is a mistake to report."""
        if isinstance(error, QueueCorrupt | ConfigError):
            return self.loop is not None
        return isinstance(error, QueueUnavailable)

    def _note_failed_try(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.say_queue_is_away(error)
        self._seat.work.heartbeat = self._clock.monotonic()
        if self.loop is None:
            # Booted, but without a queue: /readyz says so, and nothing is restarted for it.
            self._seat.work.activity = Activity.IDLE
            self._seat.ring()

    def _nap_unless_leaving(self, seconds: float) -> None:
        """Wait, and give up only when there is nothing left to settle.

        A job that is done but not acknowledged is worth the rest of the drain timeout.
        """
        self._hygiene.tidy_signals()
        self._leave_if_told()
        is_last = self._orders.is_stopping()
        self._orders.nap(min(seconds, LAST_RECONNECT_WAIT) if is_last else seconds)
        self._orders.woken()
        self._leave_if_told()

    def _leave_if_told(self) -> None:
        if self._orders.is_stopping() and not (self.loop and self.loop.has_unsettled):
            raise Leave
