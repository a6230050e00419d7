"""Commands: what a master can be asked, by signal or over the control socket."""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING

from pulpo_pool.master.control import Refused

if TYPE_CHECKING:
    from pulpo_pool.master.slots import Slot, SlotTable


class Command(enum.StrEnum):
    """Each verb, the same word in the control protocol and the command line."""

    STATUS = "status"
    SCALE = "scale"
    PAUSE = "pause"
    RESUME = "resume"
    QUIET = "quiet"
    DRAIN = "drain"
    STOP = "stop"
    RECYCLE = "recycle"
    RELOAD = "reload"
    DUMP = "dump"


COMMAND_FOR_SIGNAL = {
    signal.SIGTERM: (Command.DRAIN, ""),
    signal.SIGINT: (Command.DRAIN, ""),
    signal.SIGQUIT: (Command.STOP, ""),
    signal.SIGTSTP: (Command.QUIET, ""),
    signal.SIGHUP: (Command.RELOAD, ""),
    signal.SIGTTIN: (Command.SCALE, "+1"),
    signal.SIGTTOU: (Command.SCALE, "-1"),
    signal.SIGUSR1: (Command.STATUS, ""),
}


def wanted_workers(argument: str, wanted: int, most: int) -> int:
    """Read `8`, `+1` or `-1`; raise Refused for anything else and for what is out of range."""
    try:
        number = int(argument)
    except ValueError:
        raise Refused(f"scale: expected a number, +N or -N, got {argument!r}") from None
    workers = wanted + number if argument[:1] in "+-" else number
    if not 1 <= workers <= most:
        raise Refused(f"scale: a pool has 1 to {most} workers, not {workers}")
    return workers


def dumped_slots(argument: str, table: SlotTable) -> list[Slot]:
    """Read a worker's slot, a service's role, or nothing for all; raise Refused for others."""
    there = [slot for slot in table if slot.alive and slot.pid]
    if not argument:
        return there
    found = [slot for slot in there if argument in (str(slot.index), slot.role.name.lower())]
    if not found:
        roles = sorted({slot.role.name.lower() for slot in table.services})
        raise Refused(
            f"dump: expected a living worker's slot, {', '.join(roles)}; got {argument!r}"
        )
    return found


def recycled_slots(argument: str, table: SlotTable) -> set[int]:
    """Read a slot's number, or nothing for all; raise Refused for a slot that is not there."""
    slots = range(table.wanted)
    if not argument:
        return {slot.index for slot in table.present}
    if not argument.isdigit() or int(argument) not in slots:
        raise Refused(f"recycle: expected a slot from 0 to {table.wanted - 1}, got {argument!r}")
    if table.workers[int(argument)] not in table.present:
        raise Refused(f"recycle: slot {argument} is parked, so there is no worker to replace")
    return {int(argument)}
