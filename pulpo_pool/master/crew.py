"""Crew: the children of one master; where policy's words become forks, signals and reaping."""

from __future__ import annotations

import logging
import random
import signal
from typing import TYPE_CHECKING, Final

from pulpo_pool.master import policy
from pulpo_pool.master.birth import SpawnOrder
from pulpo_pool.master.obituary import cause_of_death, job_in_hand, obituary
from pulpo_pool.master.spawner import kill_group, reap, send
from pulpo_pool.scoreboard import (
    Activity,
    Death,
    ExitReason,
    Order,
    PoolState,
    Role,
    SlotState,
    writing,
)

if TYPE_CHECKING:
    from pulpo_pool.clock import Clock
    from pulpo_pool.master.policy import Action
    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.master.spawner import Ended, Spawner
    from pulpo_pool.master.wires import Wires
    from pulpo_pool.scoreboard import Scoreboard
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

GENERATION: Final = 1  # of the app; reloading will raise it
FORK_FAILED_PAUSE: Final = 1.0  # seconds until a fork that the system refused is tried again


class Crew:
    """Knows every child, and is the only one to start, signal and reap them."""

    def __init__(
        self,
        table: SlotTable,
        scoreboard: Scoreboard,
        spawner: Spawner,
        wires: Wires,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self.table = table
        self._scoreboard = scoreboard
        self._spawner = spawner
        self._wires = wires
        self._settings = settings
        self._clock = clock
        self._budget = policy.ForkBudget(table.wanted, clock.monotonic())
        self._serial = 0
        self._order = Order.WORK
        self._jitter = random.Random().uniform  # noqa: S311 - spreads restarts
        self.jobs_cut_off = 0

    def act(self, state: PoolState) -> None:
        """Do what policy says, now."""
        now = self._clock.monotonic()
        for action in policy.decide(self.table, state, self._settings, self._budget, now):
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case policy.Fork(slot):
                self._fork(slot)
            case policy.TellToLeave(slot, reason, deadline):
                self.tell_to_leave(slot, reason, deadline)
            case policy.Kill(slot):
                self._kill(slot)
            case policy.Retire(slot):
                slot.retires()
                self._write_order(slot)

    def _fork(self, slot: Slot) -> None:
        self._serial += 1
        order = SpawnOrder(slot.role, slot.index, self._serial, GENERATION)
        now = self._clock.monotonic()
        try:
            newborn = self._spawner.spawn(order)
        except OSError as error:
            logger.error("cannot fork %s: %s; trying again soon", slot.label, error)  # noqa: TRY400
            slot.backs_off(now + FORK_FAILED_PAUSE)
            return
        reason = slot.next_fork
        slot.born(newborn.pid, self._serial, now + self._settings.boot_timeout)
        if slot.role is Role.WORKER:
            slot.order = self._order
        life = self._scoreboard.life(slot.index)
        with writing(life):
            life.pid, life.serial, life.generation = newborn.pid, self._serial, GENERATION
            life.state, life.born = SlotState.BOOTING, now
        self._write_order(slot)
        if slot.role is Role.WORKER:
            self._scoreboard.header.forks[reason] += 1
        newborn.go()

    def tell_to_leave(self, slot: Slot, reason: ExitReason, deadline: float) -> None:
        """Ask a child to finish and go; it is told once, by its row and one signal."""
        slot.told_to_leave(reason, deadline)
        self._write_order(slot)
        send(slot.pid, signal.SIGTERM)

    def give_orders(self, order: Order) -> None:
        """Tell every worker that is not leaving, now and from now on, to work or to rest."""
        self._order = order
        for slot in self.table.workers:
            if slot.alive and slot.order is not Order.LEAVE and slot.order is not order:
                slot.order = order
                self._write_order(slot)
                send(slot.pid, signal.SIGUSR1)

    def hurry(self, grace: float) -> None:
        """Shorten the time of everybody who was told to leave."""
        deadline = self._clock.monotonic() + grace
        for slot in self.table:
            if slot.state is SlotState.STOPPING and slot.deadline is not None:
                slot.deadline = min(slot.deadline, deadline)

    def _write_order(self, slot: Slot) -> None:
        life = self._scoreboard.life(slot.index)
        with writing(life):
            life.leave_as = slot.leave_as
            life.order = slot.order
            life.state = slot.state

    def _kill(self, slot: Slot) -> None:
        if slot.state is SlotState.STOPPING:
            slot.cut_off = slot.role is Role.WORKER
            logger.warning("%s (pid %d) did not leave in time: killing it", slot.label, slot.pid)
        else:
            logger.error(
                "%s (pid %d) did not report ready within the boot timeout of %g s: killing it",
                slot.label,
                slot.pid,
                self._settings.boot_timeout,
            )
        slot.killed()
        self._write_order(slot)
        kill_group(slot.pid)

    def look(self) -> None:
        """Read the rows that matter: who reported ready is up, who does well is forgiven."""
        now = self._clock.monotonic()
        for slot in self.table:
            boots = slot.state is SlotState.BOOTING
            if not boots and not (slot.failures and slot.state is SlotState.UP):
                continue
            row = self._scoreboard.read_work(slot.index)
            if row is None:
                continue
            if boots and row.activity != Activity.BOOTING:
                slot.came_up(now)
                self._write_order(slot)
            elif not boots and policy.has_proved_healthy(slot, row.jobs_done, now):
                slot.failures = 0

    def bury_the_dead(self) -> None:
        """Reap every child that ended, and ring the keeper for the jobs they held."""
        rang = False
        for ended in reap(lambda pid: self.table.by_pid(pid) is not None):
            slot = self.table.by_pid(ended.pid)
            if slot is None:
                logger.debug("reaped pid %d, no child of ours", ended.pid)
                continue
            self._write_off(slot, ended)
            rang = True
        if rang:
            self._wires.keeper_bell.ring()

    def _write_off(self, slot: Slot, ended: Ended) -> None:
        now = self._clock.monotonic()
        row = self._scoreboard.read_work(slot.index)
        reason = cause_of_death(slot, ended, row)
        had_a_job = row is not None and row.activity == Activity.BUSY
        if slot.role is Role.WORKER:
            self._scoreboard.record_death(
                Death(
                    slot.serial,
                    reason,
                    ended.status,
                    self._clock.now(),
                    ended.max_rss,
                    ended.cpu,
                    job_in_hand(slot, row),
                )
            )
        self._log(slot, ended, reason, obituary(slot, ended, row))
        if reason is ExitReason.CUT_OFF and had_a_job:
            self.jobs_cut_off += 1
        policy.after_death(
            slot,
            reason,
            now,
            proved_healthy=policy.has_proved_healthy(slot, row.jobs_done if row else 0, now),
            had_a_job=had_a_job,
            jitter=self._jitter,
        )
        self.table.to_recycle.discard(slot.index)  # its next life is a new one anyway
        life = self._scoreboard.life(slot.index)
        with writing(life):
            life.state, life.pid = slot.state, 0

    def _log(self, slot: Slot, ended: Ended, reason: ExitReason, line: str) -> None:
        if reason is ExitReason.CUT_OFF:
            logger.warning("%s; its job goes back to the queue", line)
        elif reason.failed and slot.state is not SlotState.KILLED:
            logger.error("%s (%s)", line, reason.name.lower())
        else:
            logger.info("%s (pid %d) left: %s", slot.label, ended.pid, reason.name.lower())
