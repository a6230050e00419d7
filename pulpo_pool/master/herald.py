"""Herald: what the master tells unasked, to the service manager and to the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pulpo_pool.master.census import taken
from pulpo_pool.master.status import state_word
from pulpo_pool.states import ExitReason

if TYPE_CHECKING:
    from pulpo_pool.clock import Clock
    from pulpo_pool.master.census import Census
    from pulpo_pool.master.notify import Notifier
    from pulpo_pool.master.slots import SlotTable
    from pulpo_pool.scoreboard import Scoreboard
    from pulpo_pool.settings import Settings
    from pulpo_pool.states import PoolState

logger = logging.getLogger(__name__)


class Herald:
    """Looks at the pool at every turn of the master's loop, and says what is due."""

    def __init__(
        self,
        notifier: Notifier,
        table: SlotTable,
        scoreboard: Scoreboard,
        summary_interval: float,
        clock: Clock,
    ) -> None:
        """`summary_interval` is in seconds; 0 means that no summary is logged."""
        self._notifier = notifier
        self._table = table
        self._scoreboard = scoreboard
        self._interval = summary_interval
        self._clock = clock
        self._summed_at, self._jobs_then = clock.monotonic(), 0
        self._failures_then = 0

    def take(self, settings: Settings) -> None:
        """Sum up at this interval from now on."""
        self._interval = settings.summary_interval

    def patience(self) -> float:
        """Return how long the next turn may take to come, in seconds."""
        patience = self._notifier.patience()
        if self._interval:
            due = self._summed_at + self._interval
            patience = min(patience, max(0.0, due - self._clock.monotonic()))
        return patience

    def tell(self, state: PoolState, *, reloading: bool) -> None:
        """Say what is due now."""
        self._notifier.look(state, reloading=reloading)
        if self._notifier.wants_status:
            census = taken(self._table, self._scoreboard)
            there = census.up + census.states["stopping"]
            word = "reloading" if reloading else state_word(state)
            workers = f"{there} worker{'' if there == 1 else 's'}"
            self._notifier.describe(f"{workers}, {census.busy} busy; {word}")
        if self._interval and self._clock.monotonic() >= self._summed_at + self._interval:
            self._sum_up(state)

    def _sum_up(self, state: PoolState) -> None:
        """Log a line: for platforms on which nobody scrapes metrics."""
        census, now = taken(self._table, self._scoreboard), self._clock.monotonic()
        exits = self._scoreboard.header.exits
        failures = sum(exits[reason] for reason in ExitReason if reason.failed)
        jobs = census.jobs_total - self._jobs_then
        states = ", ".join(f"{count} {word}" for word, count in sorted(census.states.items()))
        logger.info(
            "summary: %s; workers: %s; %d jobs done, %.1f a second; %d workers failed; %s",
            state_word(state),
            states,
            jobs,
            jobs / (now - self._summed_at),
            failures - self._failures_then,
            self._longest(census, now),
        )
        self._summed_at, self._jobs_then, self._failures_then = now, census.jobs_total, failures

    def _longest(self, census: Census, now: float) -> str:
        row = census.longest and self._scoreboard.read_work(census.longest.index)
        if not row:
            return "no job runs"
        request_type = row.request_type.decode("utf-8", "replace")
        job_id = row.job_id.decode("utf-8", "replace")
        seconds = max(0.0, now - row.job_started)
        return f"{request_type} job {job_id} has run longest, for {seconds:.1f} s"
