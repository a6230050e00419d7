"""Obituary: from a wait status and a scoreboard row to why a process left."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from pulpo_pool.scoreboard import JobInHand, WorkRow
from pulpo_pool.states import Activity, ExitReason, Order, Role, SlotState

if TYPE_CHECKING:
    from pulpo_pool.master.slots import Slot
    from pulpo_pool.master.spawner import Ended


def cause_of_death(slot: Slot, ended: Ended, row: WorkRow | None) -> ExitReason:
    """Return why a process left. An exit status of 0 is believed only with a note in its row."""
    if slot.condemned is not None:
        return slot.condemned
    if slot.cut_off:
        return ExitReason.CUT_OFF
    left_a_note = row is not None and row.activity == Activity.LEAVING
    clean = os.WIFEXITED(ended.status) and os.WEXITSTATUS(ended.status) == 0
    if clean and row is not None and left_a_note:
        return ExitReason(row.exit_reason)
    if _did_as_told(slot, clean=clean):
        return slot.leave_as
    if not slot.ever_up:
        return ExitReason.BOOT
    return ExitReason.SIGNAL if os.WIFSIGNALED(ended.status) else ExitReason.ERROR


def _did_as_told(slot: Slot, *, clean: bool) -> bool:
    """Tell whether it left because it was asked to; a template that imports is killed for it."""
    if slot.role is Role.TEMPLATE and not slot.ever_up:
        return slot.order is Order.LEAVE
    return clean and slot.state in (SlotState.STOPPING, SlotState.KILLED)


def job_in_hand(slot: Slot, row: WorkRow | None) -> JobInHand | None:
    """Return the job that a worker died with: it stays in the row until it is settled."""
    if row is None or row.activity != Activity.BUSY:
        return None
    texts = (row.queue, row.job_id, row.request_type)
    return JobInHand(slot.index, *(text.decode("utf-8", "replace") for text in texts))


def obituary(slot: Slot, ended: Ended, row: WorkRow | None) -> str:
    """Return a line for the log: who died, how, and with which job."""
    if os.WIFSIGNALED(ended.status):
        number = os.WTERMSIG(ended.status)
        with_name = f"{signal.Signals(number).name}" if number in signal.valid_signals() else number
        how = f"was killed by {with_name}"
    else:
        how = f"exited with status {os.waitstatus_to_exitcode(ended.status)}"
    job = ""
    if row is not None and row.activity == Activity.BUSY:
        request_type = row.request_type.decode("utf-8", "replace")
        job = f" while it handled {request_type} job {row.job_id.decode('utf-8', 'replace')}"
    return f"{slot.label} (pid {ended.pid}) {how}{job}"
