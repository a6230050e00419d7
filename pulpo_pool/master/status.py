"""What `pulpo-pool status` shows: one snapshot of the pool, read from table and scoreboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

from pulpo_pool.circuits import read_circuits
from pulpo_pool.master.census import state_of
from pulpo_pool.states import Activity, PoolState, QueueLink, SlotState

if TYPE_CHECKING:
    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.scoreboard import Scoreboard


def slot_status(slot: Slot, scoreboard: Scoreboard, now: float) -> dict[str, Any]:
    """Return what is known of one place; a job's fields are None unless there is a job."""
    row = scoreboard.read_work(slot.index) if slot.alive else None
    busy = row is not None and row.activity == Activity.BUSY
    life = scoreboard.life(slot.index)
    shown: dict[str, Any] = {
        "slot": slot.index,
        "pid": slot.pid if slot.alive else None,
        "state": state_of(slot, busy=busy),
        "serial": life.serial,
        "generation": life.generation,
        "jobs_done": row.jobs_done if row else 0,
        "request_type": None,
        "job_id": None,
        "job_seconds": None,
        "queue_up": row is not None and row.queue_up == QueueLink.UP,
        "rss_bytes": _resident(slot.pid) if slot.alive else None,
    }
    if busy and row is not None:
        shown["request_type"] = row.request_type.decode("utf-8", "replace")
        shown["job_id"] = row.job_id.decode("utf-8", "replace")
        shown["job_seconds"] = round(max(0.0, now - row.job_started), 3)
    return shown


def service_status(slot: Slot, scoreboard: Scoreboard) -> dict[str, Any]:
    """Return what is known of a service's process."""
    return {
        "role": slot.role.name.lower(),
        "pid": slot.pid if slot.alive else None,
        "state": "up" if slot.state is SlotState.UP else state_of(slot, busy=False),
        "generation": scoreboard.life(slot.index).generation,
        "rss_bytes": _resident(slot.pid) if slot.alive else None,
    }


def pool_status(table: SlotTable, scoreboard: Scoreboard, now: float) -> dict[str, Any]:
    """Return workers and services, in the order of their slots, and what is paused."""
    return {
        "workers": [
            slot_status(slot, scoreboard, now)
            for slot in table.workers
            if slot.state is not SlotState.RETIRED
        ],
        "services": [service_status(slot, scoreboard) for slot in table.services],
        "paused_request_types": paused_request_types(scoreboard, now),
    }


def paused_request_types(scoreboard: Scoreboard, now: float) -> list[dict[str, Any]]:
    """Return each request_type whose jobs wait; `probing` while one of them finds out."""
    return [
        {
            "request_type": circuit.request_type,
            "state": "probing" if circuit.probing else "paused",
            "seconds_left": round(max(0.0, circuit.paused_until - now), 3),
            "pause_seconds": circuit.pause,
            "pauses": circuit.pauses,
            "cause": circuit.cause,
        }
        for circuit in read_circuits(scoreboard)
        if circuit.paused_until
    ]


def state_word(state: PoolState) -> str:
    """Return the pool's state as people read it."""
    return state.name.lower()


def _resident(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
