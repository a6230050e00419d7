"""LoopLag: how late the master's loop comes round, the worst of late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pulpo_pool.scoreboard import Scoreboard

REMEMBERED: Final = 30.0  # seconds at least, twice that at most: longer than a scrape interval


class LoopLag:
    """Writes down by how much the worst turn of the last half minute came later than planned.

    A gauge of the last turn alone would show a scrape in fifteen seconds what one in thousands
    of turns was like.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._header = scoreboard.header
        self._planned_at: float | None = None
        self._worst = self._worst_before = 0.0
        self._began = 0.0

    def look(self, now: float, interval: float) -> None:
        """Note a turn; the next is planned `interval` seconds from now, which is monotonic."""
        if self._planned_at is not None:
            self._worst = max(self._worst, now - self._planned_at)
        self._planned_at = now + interval
        if now - self._began >= REMEMBERED:
            self._began = now
            self._worst_before, self._worst = self._worst, 0.0
        self._header.loop_lag = max(self._worst, self._worst_before)
