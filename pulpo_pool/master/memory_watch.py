"""MemoryWatch: which workers are too big to live, and whether the kernel thought so first."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Final

from pulpo_pool.cgroup import Cgroups
from pulpo_pool.memory import private_memory_over, size_text
from pulpo_pool.states import SlotState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.scoreboard import Scoreboard

logger = logging.getLogger(__name__)

LOOK: Final = 2.0  # seconds; a look costs 10 us for each worker that is far from the limit


class MemoryWatch:
    """Keeps the hard limit, and tells an out-of-memory kill from any other."""

    def __init__(
        self,
        table: SlotTable,
        scoreboard: Scoreboard,
        limit: int,
        cgroups: Cgroups | None = None,
    ) -> None:
        """`limit` is bytes of private memory, 0 for none."""
        self._table = table
        self._scoreboard = scoreboard
        self._limit = limit
        self._next_look = 0.0
        self._warned = False
        self._cgroups = cgroups or Cgroups()
        self._oom_kills = self._cgroups.oom_kills()

    def take(self, limit: int) -> None:
        """Keep this limit from now on: bytes of private memory, 0 for none."""
        self._warned = self._warned and limit == self._limit
        self._limit = limit

    def too_big(self, now: float) -> Iterator[tuple[Slot, int]]:
        """Yield the workers that are over the limit, with their size; `now` is monotonic."""
        if not self._limit or now < self._next_look:
            return
        self._next_look = now + LOOK
        for slot in self._table.workers:
            if slot.state in (SlotState.UP, SlotState.STOPPING) and slot.pid:
                size = private_memory_over(self._limit_of(slot), slot.pid)
                if size:
                    yield slot, size

    def _limit_of(self, slot: Slot) -> int:
        """A limit that every newborn is over would end all: it is named, and counts from there."""
        row = self._scoreboard.read_work(slot.index)
        fresh: int = row.fresh_memory if row is not None else 0
        if fresh <= self._limit:
            return self._limit
        if not self._warned:
            self._warned = True
            logger.warning(
                "max-memory-hard (%s) is below the %s that a fresh worker has of its own: it "
                "is taken for what may be added to that",
                size_text(self._limit),
                size_text(fresh),
            )
        return fresh + self._limit

    def was_oom_kill(self, slot: Slot, status: int) -> bool:
        """Tell whether a death by KILL that nobody here sent was for want of memory.

        The kernel counts such kills and does not say whose: each explains one death.
        """
        by_kill = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not by_kill or slot.state is SlotState.KILLED or self._oom_kills is None:
            return False
        if (self._cgroups.oom_kills() or 0) <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True
