"""Policy: what should be done now. Pure functions of the table, the settings and the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pulpo_pool.states import ExitReason, ForkReason, Order, PoolState, Role, SlotState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.settings import Settings

SHORTEST_BACKOFF: Final = 1.0  # seconds
LONGEST_BACKOFF: Final = 60.0
HEALTHY_AFTER: Final = 60.0  # seconds up, after which earlier failures are forgotten
CRASH_LOOP: Final = 3  # failures in a row of one slot
SERVICE_GRACE: Final = 5.0  # seconds a service gets to leave
SLOWEST_FORKS: Final = 10.0  # a second, for the smallest pools
RECYCLED_AT_ONCE: Final = 4  # a quarter

_FORK_AFTER: Final = {
    reason: ForkReason.RELOAD if reason is ExitReason.RELOAD else ForkReason.RECYCLE
    for reason in ExitReason
    if not reason.failed
}


@dataclass(frozen=True, slots=True)
class Fork:
    """Start a process in a slot."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class TellToLeave:
    """Ask a process to finish what it holds and go."""

    slot: Slot
    reason: ExitReason
    deadline: float  # monotonic seconds


@dataclass(frozen=True, slots=True)
class Kill:
    """End a process that has outlived its deadline, and everything it started."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Retire:
    """Leave a free place empty until the pool grows."""

    slot: Slot


Action: TypeAlias = Fork | TellToLeave | Kill | Retire


class ForkBudget:
    """A pool-wide limit on forks: a token bucket that holds, and refills in a second, one pool."""

    def __init__(self, workers: int, now: float) -> None:
        self._rate = max(SLOWEST_FORKS, float(workers))
        self._tokens = self._rate
        self._filled_at = now

    def take(self, now: float) -> bool:
        """Take one fork, if there is one to take."""
        self._tokens = min(self._rate, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def decide(
    table: SlotTable,
    state: PoolState,
    settings: Settings,
    budget: ForkBudget,
    now: float,
    can_fork: Callable[[Slot], bool] = lambda _slot: True,
) -> list[Action]:
    """Return what to do now, in the order in which to do it.

    `can_fork` tells whether there is something to fork this slot's process from.
    """
    actions: list[Action] = [Kill(slot) for slot in table if _is_overdue(slot, now)]
    if state >= PoolState.DRAINING:
        actions += _stop_in_order(table, settings, now)
        return actions
    actions += _leavers(table, settings, now)
    any_up = any(slot.ever_up for slot in table.workers) or state > PoolState.STARTING
    for slot in table:
        if slot.state is SlotState.BACKOFF and slot.deadline is not None and slot.deadline <= now:
            may_start = True
        else:
            may_start = slot.state is SlotState.EMPTY and (any_up or not slot.boot_failures)
        may_start = may_start and not table.is_surplus(slot) and can_fork(slot)
        if may_start and (_is_planned(slot) or budget.take(now)):
            actions.append(Fork(slot))
    return actions


def _is_planned(slot: Slot) -> bool:
    """Tell whether a fork is paced already, by the quarter rule or by the growth of parking."""
    if slot.state is not SlotState.EMPTY:
        return False
    renewed = slot.next_fork in (ForkReason.RECYCLE, ForkReason.RELOAD)
    return slot.next_fork is ForkReason.RETURN or (renewed and slot.order is Order.LEAVE)


def _is_overdue(slot: Slot, now: float) -> bool:
    timed = slot.state in (SlotState.BOOTING, SlotState.STOPPING)
    return timed and slot.deadline is not None and slot.deadline <= now


def _leavers(table: SlotTable, settings: Settings, now: float) -> Iterator[Action]:
    deadline = now + settings.drain_timeout
    for slot in table.workers[table.wanted :]:
        if slot.state in (SlotState.BOOTING, SlotState.UP):
            yield TellToLeave(slot, ExitReason.SCALED_DOWN, deadline)
        elif slot.state in (SlotState.EMPTY, SlotState.BACKOFF):
            yield Retire(slot)
    present = table.present
    down = sum(slot.state is not SlotState.UP for slot in present)
    allowed = max(1, len(present) // RECYCLED_AT_ONCE) - down
    for slot in present:
        if allowed > 0 and slot.index in table.to_recycle and slot.state is SlotState.UP:
            allowed -= 1
            yield TellToLeave(slot, table.to_recycle[slot.index], deadline)


def _stop_in_order(table: SlotTable, settings: Settings, now: float) -> Iterator[Action]:
    """Workers first, so that the keeper hands back what they leave; web shows it all, last."""
    ranks = (
        (table.workers, settings.drain_timeout),
        (table.of_role(Role.KEEPER), SERVICE_GRACE),
        (table.of_role(Role.WATCHER), SERVICE_GRACE),
        (table.of_role(Role.WEB), SERVICE_GRACE),
        (table.of_role(Role.TEMPLATE), SERVICE_GRACE),
    )
    for slots, grace in ranks:
        living = [slot for slot in slots if slot.alive]
        for slot in living:
            if slot.state in (SlotState.BOOTING, SlotState.UP):
                yield TellToLeave(slot, ExitReason.SHUTDOWN, now + grace)
        if living:
            return


def is_stopped(table: SlotTable) -> bool:
    """Tell whether nobody is left."""
    return not any(slot.alive for slot in table)


def nobody_boots(table: SlotTable) -> bool:
    """Tell whether the template, or each worker, of a pool that never had one failed to boot."""
    wanted = table.workers[: table.wanted]
    templates = table.of_role(Role.TEMPLATE)
    return any(_failed_to_boot(slot) for slot in templates) or all(map(_failed_to_boot, wanted))


def any_boot_fails(table: SlotTable) -> bool:
    """Tell whether somebody who is wanted could not boot the last time."""
    wanted = table.workers[: table.wanted]
    return any(slot.boot_failures for slot in (*wanted, *table.of_role(Role.TEMPLATE)))


def _failed_to_boot(slot: Slot) -> bool:
    return slot.boot_failures > 0 and not slot.alive


def is_crash_looping(table: SlotTable) -> bool:
    """Tell whether half of the workers, or more, fail again and again."""
    present = table.present
    looping = sum(slot.failures >= CRASH_LOOP for slot in present)
    return bool(looping) and looping * 2 >= len(present)


def has_proved_healthy(slot: Slot, jobs_done: int, now: float) -> bool:
    """Tell whether this life makes up for earlier failures: a job ended, or a minute passed."""
    return jobs_done > 0 or (slot.ever_up and now - slot.up_since >= HEALTHY_AFTER)


def after_death(
    slot: Slot,
    reason: ExitReason,
    now: float,
    *,
    proved_healthy: bool,
    had_a_job: bool,
    jitter: Callable[[float, float], float],
) -> None:
    """Say what becomes of a place whose process ended.

    The first replacement is immediate, and so is one after a death with a job: that job's own
    crash count ends the series. Deaths while booting or idle back off exponentially with full
    jitter (Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015).
    """
    if proved_healthy:
        slot.failures = 0
    if not slot.ever_up and reason.failed:
        slot.boot_failures += 1
    slot.emptied(_FORK_AFTER.get(reason, ForkReason.REPLACE))
    if not reason.failed:
        slot.failures = 0
        return
    if had_a_job:
        return
    slot.failures += 1
    if slot.failures > 1:
        longest = min(LONGEST_BACKOFF, 2.0 ** (slot.failures - 1))
        slot.backs_off(now + jitter(SHORTEST_BACKOFF, longest))


def nearest_deadline(table: SlotTable) -> float | None:
    """Return when the next slot's time is over, in monotonic seconds."""
    return min((slot.deadline for slot in table if slot.deadline is not None), default=None)
