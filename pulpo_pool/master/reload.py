"""Reload: a new generation beside the old one, first one worker, then a quarter at a time."""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Any

from pulpo_pool.errors import ConfigError
from pulpo_pool.master.control import Refused
from pulpo_pool.master.policy import SERVICE_GRACE
from pulpo_pool.master.resettings import services_using
from pulpo_pool.states import ExitReason, SlotState

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.clock import Clock
    from pulpo_pool.master.crew import Crew
    from pulpo_pool.master.resettings import Resettings
    from pulpo_pool.master.slots import Slot
    from pulpo_pool.scoreboard import Scoreboard
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)


class Phase(enum.StrEnum):
    """How far a reload is."""

    NONE = "none"  # there was none yet
    LOADING = "loading"  # the next template imports the app
    TRYING = "trying"  # one worker of the new generation boots
    ROLLING = "rolling"  # the others follow, a quarter at a time
    DONE = "done"
    FAILED = "failed"  # the old generation goes on


_UNDER_WAY = frozenset({Phase.LOADING, Phase.TRYING, Phase.ROLLING})


class Reload:
    """Takes the pool from one generation of the app to the next, or leaves it where it was.

    Stepped by the master's loop; it decides, and the crew acts.
    """

    def __init__(
        self,
        crew: Crew,
        scoreboard: Scoreboard,
        clock: Clock,
        why_no_boot: Callable[[], str],
        resettings: Resettings,
        take: Callable[[Settings], None],
    ) -> None:
        """`take` makes the master go by these settings from now on."""
        self._crew = crew
        self._table = crew.table
        self._lineage = crew.lineage
        self._header = scoreboard.header
        self._clock = clock
        self._why_no_boot = why_no_boot
        self._resettings = resettings
        self._take = take
        self._template: Slot | None = None
        self._canary: Slot | None = None
        self._target = 0
        self.phase = Phase.NONE
        self.error = ""

    @property
    def under_way(self) -> bool:
        """Whether the pool is between two generations."""
        return self.phase in _UNDER_WAY

    def status(self) -> dict[str, Any]:
        """Return what `status` and `reload` show."""
        return {
            "phase": self.phase.value,
            "generation": self._target,
            "error": self.error,
            "unchanged": list(self._resettings.unchanged),
        }

    def begin(self) -> None:
        """Start, unless the settings are wrong; raise Refused if one is under way."""
        if self.under_way:
            raise Refused(f"reload: generation {self._target} is on its way already")
        self.error = ""
        try:
            self._resettings.read()
        except ConfigError as mistakes:
            self._note_failure(str(mistakes))
            return
        self._template = self._lineage.try_next()
        assert self._lineage.candidate is not None
        self._target = self._lineage.candidate
        self._take(self._resettings.try_in(self._target))
        logger.info("reloading: generation %d is on its way", self._target)
        if self._template is None:
            self._try_one()
        else:
            self._template.returns()
            self.phase = Phase.LOADING

    def step(self) -> None:
        """Look how it goes, and take the next step if it is time."""
        match self.phase:
            case Phase.LOADING:
                self._watch_template()
            case Phase.TRYING:
                self._watch_canary()
            case Phase.ROLLING:
                self._watch_others()

    def abandon(self) -> None:
        """Forget it: the pool drains."""
        if self.under_way:
            self._fail("the pool drains")

    def _watch_template(self) -> None:
        template = self._template
        assert template is not None
        if template.state is SlotState.UP:
            self._try_one()
        elif template.boot_failures:
            self._fail(self._why_no_boot())

    def _try_one(self) -> None:
        self._canary = next(
            (slot for slot in self._wanted() if slot.state is SlotState.UP), None
        ) or next(iter(self._wanted()))
        self._canary.boot_failures = 0
        self._lineage.on_trial = self._canary.index
        if self._canary.alive:
            self._table.to_recycle[self._canary.index] = ExitReason.RELOAD
        self.phase = Phase.TRYING

    def _watch_canary(self) -> None:
        canary = self._canary
        assert canary is not None
        if canary.generation == self._target and canary.state is SlotState.UP:
            self._roll()
        elif canary.boot_failures or self._table.is_surplus(canary):
            self._fail(self._why_no_boot())

    def _roll(self) -> None:
        self._resettings.adopt()
        for template in self._lineage.adopt():
            self._dismiss(template)
        for slot in self._wanted():
            if slot.alive and slot.generation != self._target:
                self._table.to_recycle[slot.index] = ExitReason.RELOAD
            elif slot.state is SlotState.BACKOFF:  # it failed with other code
                slot.emptied(slot.next_fork)
        self.phase = Phase.ROLLING

    def _watch_others(self) -> None:
        if any(slot.generation < self._target or not slot.ever_up for slot in self._wanted()):
            return
        self._finish_settings()
        self.phase = Phase.DONE
        self._header.reloads_done += 1
        self._header.last_reload_ok = 1
        self._header.last_reload_at = self._clock.now()
        logger.info("reloaded: every worker runs generation %d", self._target)

    def _finish_settings(self) -> None:
        """Go by the new settings, and replace the services that work by one that changed."""
        changed = self._resettings.finish(self._table.wanted)
        self._take(self._resettings.of_master)
        if "workers" in changed:
            self._crew.scale(self._resettings.of_master.workers)
        concerned = services_using(changed)
        for slot in self._table.services:
            if slot.role in concerned and slot.state in (SlotState.BOOTING, SlotState.UP):
                self._dismiss(slot)

    def _fail(self, why: str) -> None:
        self._take(self._resettings.drop())
        for template in self._lineage.give_up_next():
            self._dismiss(template)
        if self._template is not None and not self._template.alive:
            self._template.retires()
        if self._canary is not None:
            self._table.to_recycle.pop(self._canary.index, None)
            if self._canary.state is SlotState.BACKOFF:
                self._canary.emptied(self._canary.next_fork)
            self._canary.boot_failures = self._canary.failures = 0
        self._template = self._canary = None
        self._note_failure(why)

    def _note_failure(self, why: str) -> None:
        self.phase, self.error = Phase.FAILED, why
        self._header.reloads_failed += 1
        self._header.last_reload_ok = 0
        logger.error("the reload failed, and the old generation goes on: %s", why)

    def _dismiss(self, service: Slot) -> None:
        deadline = self._clock.monotonic() + SERVICE_GRACE
        self._crew.tell_to_leave(service, ExitReason.RELOAD, deadline)

    def _wanted(self) -> list[Slot]:
        return self._table.present
