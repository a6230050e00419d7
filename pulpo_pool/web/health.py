"""Whether the pool is alive and whether it takes jobs, as the scoreboard shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulpo_pool.metrics.catalogue import WorkerState
from pulpo_pool.settings import MAX_WORKERS
from pulpo_pool.states import Activity, PoolState, QueueLink, SlotState

if TYPE_CHECKING:
    from pulpo_pool.scoreboard import Scoreboard

MASTER_SILENCE: Final = 15.0  # seconds without a heartbeat after which the master counts as stuck
QUEUE_SILENCE: Final = 30.0  # seconds after which an unseen queue counts as away
SERVICES: Final = 2  # rows after the last worker's, at least: keeper and web

_SETTLED_STATES: Final = {
    SlotState.EMPTY: WorkerState.EMPTY,
    SlotState.BOOTING: WorkerState.BOOTING,
    SlotState.STOPPING: WorkerState.STOPPING,
    SlotState.KILLED: WorkerState.STOPPING,
    SlotState.BACKOFF: WorkerState.BACKOFF,
    SlotState.RETIRED: WorkerState.RETIRED,
    SlotState.PARKED: WorkerState.PARKED,
}


def worker_slots(scoreboard: Scoreboard) -> range:
    """Return the slots of workers; those of the services come after them, keeper first."""
    return range(min(MAX_WORKERS, scoreboard.slots - SERVICES))


def worker_state(scoreboard: Scoreboard, slot: int) -> WorkerState:
    """Return what a worker's slot looks like to people."""
    state = SlotState(scoreboard.life(slot).state)
    if state is not SlotState.UP:
        return _SETTLED_STATES[state]
    row = scoreboard.read_work(slot)
    if row is None or row.activity == Activity.BOOTING:
        return WorkerState.BOOTING
    if row.activity == Activity.LEAVING:
        return WorkerState.STOPPING
    return WorkerState.BUSY if row.activity == Activity.BUSY else WorkerState.IDLE


def is_healthy(scoreboard: Scoreboard, now: float) -> bool:
    """Tell whether the master goes round its loop. `now` is monotonic seconds.

    Never asks for the queue: restarting a pool does not heal its queue.
    """
    heartbeat: float = scoreboard.header.heartbeat
    return now - heartbeat < MASTER_SILENCE


def reasons_not_ready(scoreboard: Scoreboard, now: float) -> list[str]:
    """Return why the pool takes no jobs; nothing if it does. `now` is monotonic seconds."""
    header = scoreboard.header
    state = PoolState(header.pool_state)
    reasons = []
    if not is_healthy(scoreboard, now):
        reasons.append("the master is stuck or gone")
    if state not in (PoolState.RUNNING, PoolState.PAUSED):
        reasons.append(f"the pool is {state.name.lower()}")
    working = (WorkerState.IDLE, WorkerState.BUSY)
    slots = worker_slots(scoreboard)
    if not any(worker_state(scoreboard, slot) in working for slot in slots):
        reasons.append("no worker is up")
    if header.crash_looping:
        reasons.append("workers crash as fast as they start")
    if not queue_is_seen(scoreboard, now):
        reasons.append(f"the queue was not reached for {QUEUE_SILENCE:.0f} seconds")
    elif _no_worker_has_a_queue(scoreboard):
        # The keeper only reads: on a full disk it sees a queue that takes nothing.
        reasons.append("the queue is away: each worker failed to use it; their log lines say why")
    return reasons


def _no_worker_has_a_queue(scoreboard: Scoreboard) -> bool:
    up = [slot for slot in worker_slots(scoreboard) if _is_up(scoreboard, slot)]
    rows = [scoreboard.read_work(slot) for slot in up]
    return bool(rows) and all(row is not None and row.queue_up == QueueLink.AWAY for row in rows)


def _is_up(scoreboard: Scoreboard, slot: int) -> bool:
    return bool(scoreboard.life(slot).state == SlotState.UP)


def queue_is_seen(scoreboard: Scoreboard, now: float) -> bool:
    """Tell whether a worker holds a connection to the queue, or the keeper lately used one."""
    seen_at = scoreboard.header.queue_seen_at
    if seen_at and now - seen_at < QUEUE_SILENCE:
        return True
    for slot in worker_slots(scoreboard):
        if _is_up(scoreboard, slot):
            row = scoreboard.read_work(slot)
            if row is not None and row.queue_up == QueueLink.UP:
                return True
    return False
