"""Seat: all that a newborn process is told of its place in the pool."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pulpo_pool.states import Role

if TYPE_CHECKING:
    from pulpo_pool.scoreboard import LifeRow, Scoreboard, WorkRow
    from pulpo_pool.stacks import StackFile


@dataclass(frozen=True, slots=True)
class Seat:
    """A process's place: a life, numbered `serial`, in a slot.

    The descriptors are this process's own: `lifeline` reads EOF once the master is gone,
    `wakeup` becomes readable with every signal, a byte into `doorbell` makes the master look.
    """

    role: Role
    slot: int
    serial: int
    generation: int
    pool: str  # the pool's lasting identity, kept in its run directory
    instance: str  # this start of the pool
    scoreboard: Scoreboard
    lifeline: int
    wakeup: int
    wakeup_end: int  # where signals write
    doorbell: int
    stacks: StackFile | None = None  # where this process shows its stacks

    @property
    def label(self) -> str:
        """The slot's name in logs, titles and metrics: a worker's number, a service's role."""
        return str(self.slot) if self.role is Role.WORKER else self.role.name.lower()

    @property
    def life(self) -> LifeRow:
        """The master's row about this process."""
        return self.scoreboard.life(self.slot)

    @property
    def work(self) -> WorkRow:
        """This process's own row."""
        return self.scoreboard.work(self.slot)

    def ring(self) -> None:
        """Make the master look at the scoreboard. A full pipe rings already."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self.doorbell, b"!")


Body: TypeAlias = Callable[[Seat], int]  # what a process does; returns its exit status
