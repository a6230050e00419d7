"""Parking: which places stay empty while there is little to do, and when they fill again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpo_pool.states import Activity, ExitReason, ForkReason, Order, Role, SlotState

if TYPE_CHECKING:
    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.scoreboard import Scoreboard

_FREE_SOON = (SlotState.EMPTY, SlotState.BOOTING)


class Parking:
    """Keeps `min_workers`, and one that waits, at least.

    While a place is parked, each worker that has waited and turns busy rings the master: the
    last one finds nobody else waiting, and as many places return as there are busy workers. So
    a pool doubles for each time that a worker takes to boot, and nobody polls.
    """

    def __init__(self, table: SlotTable, scoreboard: Scoreboard, min_workers: int) -> None:
        self._table = table
        self._scoreboard = scoreboard
        self._min_workers = min_workers  # 0: nobody is parked

    def take(self, min_workers: int) -> None:
        """Park down to this number from now on; places that may not be parked any more return."""
        self._min_workers = min_workers
        for slot in self._table.workers:
            parked = slot.state is SlotState.PARKED
            if parked and not 0 < min_workers <= slot.index:
                slot.returns(ForkReason.RETURN)
        self.count()

    def count(self) -> None:
        """Tell the workers, by a word of the header, how many places are parked."""
        parked = sum(slot.state is SlotState.PARKED for slot in self._table.workers)
        self._scoreboard.header.parked_workers = parked

    def park(self, slot: Slot, reason: ExitReason) -> None:
        """Leave a place empty whose worker found nothing to do, unless it is needed by now."""
        if (
            slot.role is not Role.WORKER
            or reason is not ExitReason.IDLE
            or not 0 < self._min_workers <= slot.index < self._table.wanted
        ):
            return
        if slot.order is Order.LEAVE or slot.index in self._table.to_recycle:
            return  # somebody, such as a reload, waits for its successor
        slot.parks()
        # First counted, then looked: a worker that turns busy now rings, or is seen here.
        self.count()
        self.fill()

    def fill(self) -> list[Slot]:
        """Let as many parked places return as workers are busy, if nobody waits for a job."""
        parked = [slot for slot in self._table.workers if slot.state is SlotState.PARKED]
        if not parked:
            return []
        busy = 0
        for slot in self._table.workers[: self._table.wanted]:
            works = self._works(slot)
            if slot.state in _FREE_SOON or (slot.state is SlotState.UP and not works):
                return []
            busy += works
        returning = parked[:busy]
        for slot in returning:
            slot.returns(ForkReason.RETURN)
        if returning:
            self.count()
        return returning

    def _works(self, slot: Slot) -> bool:
        """Tell whether this worker, which may be on its way out, has a job."""
        if slot.state not in (SlotState.UP, SlotState.STOPPING):
            return False
        row = self._scoreboard.read_work(slot.index)
        return row is not None and row.activity == Activity.BUSY
