"""Lifespan: a worker looks at itself between jobs, and asks to be replaced.

It never leaves for these: it goes on working until its master, who lets at most a quarter of the
pool go at once, says so.
"""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Final

from pulpo_pool.memory import private_memory, private_memory_over
from pulpo_pool.scoreboard import writing
from pulpo_pool.states import ExitReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.scoreboard import WorkRow
    from pulpo_pool.settings import Settings

MEMORY_LOOK: Final = 5.0  # seconds; a look may cost milliseconds, so never one for each job
WITHIN_A_TENTH: Final = (0.9, 1.1)


class Lifespan:
    """How many jobs, how long and how big one life may be.

    Each life draws its own limits within a tenth of what is set, so that workers born together
    do not go together. Costs a job two comparisons.
    """

    def __init__(
        self,
        settings: Settings,
        row: WorkRow,
        born: float,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`born`, and every `now`, is monotonic seconds."""
        self._row = row
        self._jobs = 0
        self._most_jobs: float = max(1, round(settings.max_jobs * jitter(*WITHIN_A_TENTH)))
        self._oldest = born + settings.max_age * jitter(*WITHIN_A_TENTH)
        self._step = settings.max_memory * jitter(*WITHIN_A_TENTH)
        if settings.max_memory_hard:
            self._step = min(self._step, settings.max_memory_hard)  # the soft limit comes first
        self._biggest = self._step
        # The first look is taken after the first job: who is too big by then was so all along.
        self._next_look = born
        self._switch_off(settings)
        self._due = min(self._oldest, self._next_look)
        if settings.max_memory or settings.max_memory_hard:
            row.fresh_memory = private_memory() or 0
            if settings.max_memory:
                self._is_too_big(row.fresh_memory)

    def _switch_off(self, settings: Settings) -> None:
        if not settings.max_jobs:
            self._most_jobs = inf
        if not settings.max_age:
            self._oldest = inf
        if not settings.max_memory:
            self._next_look = inf

    def reached_by_job(self, now: float) -> bool:
        """Count a job; tell whether, since this moment, the worker asks to be replaced."""
        self._jobs += 1
        if self._jobs < self._most_jobs and now < self._due:
            return False
        if self._jobs >= self._most_jobs:
            self._ask_for_good(ExitReason.MAX_JOBS)
            return True
        return self._examine(now)

    def reached_by_now(self, now: float) -> bool:
        """Tell the same of a worker that is about to wait."""
        due = self._due if self._jobs else self._oldest
        return now >= due and self._examine(now)

    def _examine(self, now: float) -> bool:
        if now >= self._oldest:
            self._ask_for_good(ExitReason.MAX_AGE)
            return True
        self._next_look = now + MEMORY_LOOK
        self._due = min(self._oldest, self._next_look)
        return self._is_too_big(private_memory_over(self._biggest))

    def _is_too_big(self, size: int) -> bool:
        if size <= self._biggest:
            return False
        # It may have to wait, but not for ever: it asks again once it has grown as much again.
        self._biggest = size + self._step
        self._ask(ExitReason.MAX_MEMORY, size)
        return True

    def _ask_for_good(self, reason: ExitReason) -> None:
        """Ask for what cannot be refused, and so look no more."""
        self._most_jobs = self._oldest = self._next_look = self._due = inf
        self._ask(reason)

    def _ask(self, reason: ExitReason, memory: int = 0) -> None:
        with writing(self._row) as row:
            row.asks, row.asked_after = reason, self._jobs
            row.memory = memory or row.memory
