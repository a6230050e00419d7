"""Census: the workers of a pool, counted at one moment, for all who tell of the pool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulpo_pool.states import Activity, SlotState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.scoreboard import Scoreboard

_SHOWN = {
    SlotState.EMPTY: "empty",
    SlotState.BOOTING: "booting",
    SlotState.STOPPING: "stopping",
    SlotState.KILLED: "stopping",
    SlotState.BACKOFF: "backoff",
    SlotState.RETIRED: "retired",
    SlotState.PARKED: "parked",
}


@dataclass(frozen=True, slots=True)
class Census:
    """How many workers are in each state, and what they have done."""

    states: Mapping[str, int]  # as people read them: idle, busy, booting, stopping, ...
    busy: int  # also among those that were told to leave
    jobs_total: int  # done since the pool started, over all lives
    longest: Slot | None  # whose job has run longest

    @property
    def up(self) -> int:
        """How many are there to work."""
        return self.states.get("idle", 0) + self.states.get("busy", 0)


def taken(table: SlotTable, scoreboard: Scoreboard) -> Census:
    """Count. Single fields are read, so that it costs a microsecond a worker."""
    states: Counter[str] = Counter()
    busy: list[Slot] = []
    jobs = scoreboard.header.jobs_of_the_dead
    for slot in table.workers:
        if slot.state is SlotState.RETIRED:
            continue
        row = scoreboard.work(slot.index)
        known = slot.alive and row.serial == slot.serial
        works = known and row.activity == Activity.BUSY
        states[state_of(slot, busy=works)] += 1
        if known:
            jobs += row.jobs_done
        if works:
            busy.append(slot)
    longest = min(busy, key=lambda slot: scoreboard.work(slot.index).job_started, default=None)
    return Census(states, len(busy), jobs, longest)


def state_of(slot: Slot, *, busy: bool) -> str:
    """Return a slot's state as people read it."""
    if slot.state is SlotState.UP:
        return "busy" if busy else "idle"
    return _SHOWN[slot.state]
