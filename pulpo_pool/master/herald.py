"""Herald: what the master tells unasked, to the service manager and to the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpo_pool.master.census import taken
from pulpo_pool.master.status import state_word

if TYPE_CHECKING:
    from pulpo_pool.clock import Clock
    from pulpo_pool.master.notify import Notifier
    from pulpo_pool.master.slots import SlotTable
    from pulpo_pool.scoreboard import PoolState, Scoreboard


class Herald:
    """Looks at the pool at every turn of the master's loop, and says what is due."""

    def __init__(
        self, notifier: Notifier, table: SlotTable, scoreboard: Scoreboard, clock: Clock
    ) -> None:
        self._notifier = notifier
        self._table = table
        self._scoreboard = scoreboard
        self._clock = clock

    def patience(self) -> float:
        """Return how long the next turn may take to come, in seconds."""
        return self._notifier.patience()

    def tell(self, state: PoolState, *, reloading: bool) -> None:
        """Say what is due now."""
        self._notifier.look(state, reloading=reloading)
        if self._notifier.wants_status:
            census = taken(self._table, self._scoreboard)
            there = census.up + census.states["stopping"]
            word = "reloading" if reloading else state_word(state)
            workers = f"{there} worker{'' if there == 1 else 's'}"
            self._notifier.describe(f"{workers}, {census.busy} busy; {word}")
