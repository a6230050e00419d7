"""Lineage: from what each process is forked, and so which version of the app it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pulpo_pool.master.birth import SpawnOrder
from pulpo_pool.master.template import TemplateSpawner
from pulpo_pool.states import Role, SlotState

if TYPE_CHECKING:
    import socket

    from pulpo_pool.master.slots import Slot
    from pulpo_pool.master.spawner import Newborn, Spawner


@dataclass(slots=True)
class Line:
    """A template and the workers that come from it: one generation of the app."""

    slot: Slot
    generation: int
    spawner: TemplateSpawner


@dataclass(slots=True)
class Lineage:
    """Forks services from the master, and workers from the template in use or the master.

    A generation is today's code: without a template each worker imports the app itself, so a
    generation is no more than the number of the last reload; with one, every new template is a
    new generation, also one that replaces a dead template.
    """

    direct: Spawner
    templates: list[Slot] = field(default_factory=list)  # two places: in use, and next
    generation: int = 1  # that new workers belong to
    newest: int = 0  # the last number given away
    on_trial: int | None = None  # the only worker slot that is forked from `candidate`
    candidate: int | None = None  # a generation that is being tried
    _lines: dict[int, Line] = field(default_factory=dict)  # by the template's slot

    def spawn(self, slot: Slot, serial: int) -> int:
        """Order a process for a slot; return its generation. Raises OSError."""
        if slot.role is Role.TEMPLATE:
            return self._spawn_template(slot, serial)
        generation = self._generation_for(slot)
        order = SpawnOrder(slot.role, slot.index, serial, generation)
        line = self._line_of(generation) if slot.role is Role.WORKER else None
        (line.spawner if line else self.direct).spawn(order)
        return generation

    def _spawn_template(self, slot: Slot, serial: int) -> int:
        self.newest += 1
        line = Line(slot, self.newest, TemplateSpawner())
        kept = (line.spawner.theirs.fileno(),)
        previous = self._lines.get(slot.index)
        self._lines[slot.index] = line
        try:
            self.direct.spawn(SpawnOrder(slot.role, slot.index, serial, line.generation, kept))
        except OSError:
            del self._lines[slot.index]
            line.spawner.close()
            raise
        if previous is not None:
            previous.spawner.close()
        if self.candidate is None:
            self.generation = line.generation
        return line.generation

    def can_fork(self, slot: Slot) -> bool:
        """Tell whether this slot's process can be ordered now."""
        if slot.role is not Role.WORKER or not self.templates:
            return True
        line = self._line_of(self._generation_for(slot))
        return line is not None and line.slot.state is SlotState.UP

    def orders_for(self, template: int) -> socket.socket:
        """Return, in a template's own process, where it hears what to fork."""
        return self._lines[template].spawner.theirs

    def births(self) -> list[Newborn]:
        """Return everybody who was born since the last call."""
        born = self.direct.births()
        for line in self._lines.values():
            born += line.spawner.births()
        return born

    def ended(self, template: Slot) -> set[int]:
        """Let go of a dead template; return the serials it still owed."""
        line = self._lines.pop(template.index, None)
        if line is None:
            return set()
        owed = line.spawner.outstanding()
        line.spawner.close()
        return owed

    def try_next(self) -> Slot | None:
        """Begin to try a new generation; return the place for its template, if there is one."""
        if not self.templates:
            self.newest = self.candidate = max(self.newest, self.generation) + 1
            return None
        in_use = self._line_of(self.generation)
        slot = next(s for s in self.templates if in_use is None or s is not in_use.slot)
        self.candidate = self.newest + 1
        return slot

    def adopt(self) -> list[Slot]:
        """Make the candidate the generation of all new workers; return the other templates."""
        assert self.candidate is not None, "nothing is being tried"
        self.generation, self.candidate, self.on_trial = self.candidate, None, None
        return [x.slot for x in self._lines.values() if x.generation != self.generation]

    def give_up_next(self) -> list[Slot]:
        """Stop trying the candidate; return its template, if it has one."""
        tried, self.candidate, self.on_trial = self.candidate, None, None
        others = [line for line in self._lines.values() if line.generation != tried]
        if others and self._line_of(self.generation) is None:
            self.generation = others[0].generation  # the one in use has died meanwhile
        return [line.slot for line in self._lines.values() if line.generation == tried]

    def _generation_for(self, slot: Slot) -> int:
        if self.candidate is not None and slot.index == self.on_trial:
            return self.candidate
        return self.generation

    def _line_of(self, generation: int | None) -> Line | None:
        return next((x for x in self._lines.values() if x.generation == generation), None)
