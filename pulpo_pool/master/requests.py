"""Requests: workers that ask to be replaced are noted down, and let go in turn by policy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from pulpo_pool.memory import size_text
from pulpo_pool.states import ExitReason, SlotState

if TYPE_CHECKING:
    from pulpo_pool.master.slots import SlotTable
    from pulpo_pool.scoreboard import Scoreboard, WorkRow

logger = logging.getLogger(__name__)

SHORTEST_PATIENCE: Final = 10.0  # seconds
LONGEST_PATIENCE: Final = 600.0
EARLY: Final = 1  # jobs; a worker that is too big by then was so from the start


class Requests:
    """Hears what workers ask for.

    A limit below what a worker needs would have each one replaced as soon as it is up: those
    that are over it from the start are kept ever longer, and the limit is named once.
    """

    def __init__(self, table: SlotTable, scoreboard: Scoreboard, max_memory: int) -> None:
        self._table = table
        self._scoreboard = scoreboard
        self._max_memory = max_memory  # bytes
        self._warned = False

    def take(self, max_memory: int) -> None:
        """Warn of this limit, in bytes, from now on."""
        self._warned = self._warned and max_memory == self._max_memory
        self._max_memory = max_memory

    def hear(self, now: float) -> None:
        """Note down who asks; a reason that is there already stays. `now` is monotonic."""
        for slot in self._table.workers[: self._table.wanted]:
            if slot.state is not SlotState.UP or not self._scoreboard.work(slot.index).asks:
                continue
            row = self._scoreboard.read_work(slot.index)
            if row is None or not row.asks or slot.index in self._table.to_recycle:
                continue
            early = row.asks == ExitReason.MAX_MEMORY and row.asked_after <= EARLY
            if early:
                self._warn(row)
                if now - slot.up_since < patience(slot.early_lives):
                    continue
            slot.early_lives = slot.early_lives + 1 if early else 0
            self._table.to_recycle[slot.index] = ExitReason(row.asks)

    def _warn(self, row: WorkRow) -> None:
        if self._warned:
            return
        self._warned = True
        when = "before its first job" if row.asked_after == 0 else "after its first job"
        logger.warning(
            "max-memory (%s) is below what a worker needs: %s are its own already %s; such "
            "workers are replaced ever more seldom, so set a higher limit",
            size_text(self._max_memory),
            size_text(row.memory),
            when,
        )


def patience(early_lives: int) -> float:
    """Return the seconds that a worker stays which was too big from the start."""
    return min(LONGEST_PATIENCE, SHORTEST_PATIENCE * 2.0 ** min(early_lives, 16))
