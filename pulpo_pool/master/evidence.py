"""Evidence: the stacks that processes show, and those kept of the ones that were ended."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.master.spawner import send
from pulpo_pool.stacks import STACK_SIGNAL, stack_name

if TYPE_CHECKING:
    from pathlib import Path

    from pulpo_pool.master.slots import Slot

MOST_KEPT: Final = 100  # the latest; each is a file of a few kilobytes


class Evidence:
    """Asks processes for their stacks, and keeps what the condemned wrote before their end.

    A slot's next process empties the slot's file, so that what is kept is moved, under the serial
    of the life that ended: there the keeper finds it for the job's error text.
    """

    def __init__(self, stacks: Path, crashes: Path) -> None:
        self._stacks = stacks
        self._crashes = crashes

    def ask(self, slot: Slot) -> dict[str, Any]:
        """Make a process write its stacks to its file, emptied before; return who and where."""
        path = self._stacks / stack_name(slot.role, slot.index)
        with suppress(OSError):
            os.truncate(path, 0)
        send(slot.pid, STACK_SIGNAL)
        return {"label": slot.label, "pid": slot.pid, "path": str(path)}

    def keep(self, slot: Slot) -> None:
        """Keep what a condemned process showed. Called before its place is filled again."""
        path = self._stacks / stack_name(slot.role, slot.index)
        with suppress(OSError):
            path.replace(self._crashes / f"{slot.serial}.txt")
            kept = sorted(self._crashes.glob("*.txt"), key=lambda found: found.stat().st_mtime)
            for old in kept[:-MOST_KEPT]:
                old.unlink()
