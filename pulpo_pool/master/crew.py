"""Crew: the children of one master; where policy's words become forks, signals and reaping."""

from __future__ import annotations

import logging
import random
import signal
from typing import TYPE_CHECKING, Final

from pulpo_pool.master import policy
from pulpo_pool.master.memory_watch import MemoryWatch
from pulpo_pool.master.obituary import cause_of_death, job_in_hand, obituary
from pulpo_pool.master.parking import Parking
from pulpo_pool.master.requests import Requests
from pulpo_pool.master.spawner import kill_group, reap, send
from pulpo_pool.memory import size_text
from pulpo_pool.scoreboard import Death, writing
from pulpo_pool.stacks import fault_of
from pulpo_pool.states import Activity, ExitReason, Order, PoolState, Role, SlotState

if TYPE_CHECKING:
    from pulpo_pool.clock import Clock
    from pulpo_pool.master.evidence import Evidence
    from pulpo_pool.master.lineage import Lineage
    from pulpo_pool.master.policy import Action
    from pulpo_pool.master.slots import Slot, SlotTable
    from pulpo_pool.master.spawner import Ended
    from pulpo_pool.master.wires import Wires
    from pulpo_pool.scoreboard import Scoreboard, WorkRow
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

EVIDENCE_TIME: Final = 1.0  # seconds a condemned process gets to write down its stack
FORK_FAILED_PAUSE: Final = 1.0  # seconds until a fork that the system refused is tried again


class Crew:
    """Knows every child, and is the only one to start, signal and reap them."""

    def __init__(
        self,
        table: SlotTable,
        scoreboard: Scoreboard,
        lineage: Lineage,
        wires: Wires,
        settings: Settings,
        clock: Clock,
        evidence: Evidence,
    ) -> None:
        self.table = table
        self.evidence = evidence
        self.lineage = lineage
        self._scoreboard = scoreboard
        self._wires = wires
        self._settings = settings
        self._clock = clock
        self._budget = policy.ForkBudget(table.wanted, clock.monotonic())
        self._serial = 0
        self._order = Order.WORK
        self._jitter = random.Random().uniform  # noqa: S311 - spreads restarts
        self._requests = Requests(table, scoreboard, settings.max_memory)
        self._memory = MemoryWatch(table, scoreboard, settings.max_memory_hard)
        self._parking = Parking(table, scoreboard, settings.min_workers)
        self.jobs_cut_off = 0

    def take(self, settings: Settings) -> None:
        """Go by these settings from now on; how many workers there are is `scale`'s."""
        self._settings = settings
        self._requests.take(settings.max_memory)
        self._memory.take(settings.max_memory_hard)
        self._parking.take(settings.min_workers)

    def act(self, state: PoolState) -> None:
        """Do what policy says, now."""
        now = self._clock.monotonic()
        for action in policy.decide(
            self.table, state, self._settings, self._budget, now, self.lineage.can_fork
        ):
            self._carry_out(action)
        self.welcome()

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
        now = self._clock.monotonic()
        try:
            generation = self.lineage.spawn(slot, self._serial)
        except OSError as error:
            logger.error("cannot fork %s: %s; trying again soon", slot.label, error)  # noqa: TRY400
            slot.backs_off(now + FORK_FAILED_PAUSE)
            return
        slot.ordered(self._serial, generation, now + self._settings.boot_timeout)
        if slot.role is Role.WORKER:
            slot.order = self._order
            self._scoreboard.header.forks[slot.next_fork] += 1
        # At once: what the previous life wrote about itself must not be taken for this one's.
        self._write_life(slot)

    def _write_life(self, slot: Slot) -> None:
        life = self._scoreboard.life(slot.index)
        with writing(life):
            life.pid, life.serial, life.generation = slot.pid, slot.serial, slot.generation
            life.born = self._clock.monotonic()
            life.leave_as, life.order, life.state = slot.leave_as, slot.order, slot.state

    def welcome(self) -> None:
        """Write down who was born, and let them live; nobody else may."""
        for newborn in self.lineage.births():
            slot = self.table.by_serial(newborn.serial)
            if slot is None or slot.state is not SlotState.BOOTING:
                newborn.refuse()
                continue
            slot.born(newborn.pid)
            self._write_life(slot)
            newborn.go()

    def tell_to_leave(self, slot: Slot, reason: ExitReason, deadline: float) -> None:
        """Ask a child to finish and go; it is told once, by its row and one signal."""
        imports = slot.role is Role.TEMPLATE and slot.state is SlotState.BOOTING
        slot.told_to_leave(reason, deadline)
        self._write_order(slot)
        if not slot.pid:
            self._forget(slot)
        elif imports:
            # It would hear of it when the import is over, and has forked nobody yet.
            slot.killed()
            self._write_order(slot)
            kill_group(slot.pid)
        else:
            send(slot.pid, signal.SIGTERM)

    def give_orders(self, order: Order) -> None:
        """Tell every worker that is not leaving, now and from now on, to work or to rest."""
        self._order = order
        for slot in self.table.workers:
            if slot.alive and slot.order is not Order.LEAVE and slot.order is not order:
                slot.order = order
                self._write_order(slot)
                if slot.pid:
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

    def _forget(self, slot: Slot) -> None:
        """Give up a life that was ordered and never born: whoever comes late is refused."""
        slot.emptied(slot.next_fork)
        self._write_order(slot)

    def scale(self, workers: int) -> None:
        """Want this many workers."""
        self.table.scale(workers)
        self._scoreboard.header.wanted_workers = workers
        self._parking.count()
        for slot in self.table.workers[workers:]:
            if not slot.alive:
                self._write_order(slot)

    def _kill(self, slot: Slot) -> None:
        if not slot.pid:
            logger.error("%s was not born within the boot timeout", slot.label)
            self._forget(slot)
            return
        if slot.condemned is not None:
            logger.error("%s (pid %d): killing it", slot.label, slot.pid)
        elif slot.state is SlotState.STOPPING:
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

    def condemn(self, slot: Slot, reason: ExitReason, why: str) -> None:
        """End a process that does not end by itself; first it is asked to show its stack."""
        logger.error("%s (pid %d) %s", slot.label, slot.pid, why)
        slot.condemn(reason, self._clock.monotonic() + EVIDENCE_TIME)
        self._write_order(slot)
        self.evidence.ask(slot)

    def look(self) -> None:
        """Read the rows: who reported ready is up; who asks to be replaced will be in its turn."""
        now = self._clock.monotonic()
        self._see_who_is_up(now)
        self._requests.hear(now)
        self._parking.fill()
        for slot, size in self._memory.too_big(now):
            logger.error(
                "%s (pid %d) has %s of its own, over max-memory-hard (%s): killing it",
                slot.label,
                slot.pid,
                size_text(size),
                size_text(self._settings.max_memory_hard),
            )
            slot.condemned = ExitReason.OOM
            slot.killed()
            self._write_order(slot)
            kill_group(slot.pid)

    def _see_who_is_up(self, now: float) -> None:
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
        for ended in reap(self._is_ours):
            slot = self.table.by_pid(ended.pid)
            if slot is None:
                logger.debug("reaped pid %d, no child of ours", ended.pid)
                continue
            self._write_off(slot, ended)
            rang = True
        if rang:
            self._wires.keeper_bell.ring()

    def _is_ours(self, pid: int) -> bool:
        if self.table.by_pid(pid) is None:
            self.welcome()  # one that died so young that we have not heard of its birth
        return self.table.by_pid(pid) is not None

    def _write_off(self, slot: Slot, ended: Ended) -> None:
        now = self._clock.monotonic()
        row = self._scoreboard.read_work(slot.index)
        if _was_up(slot, row):
            slot.came_up(now)  # and died before anybody looked: no boot failed here
        if self._memory.was_oom_kill(slot, ended.status):
            slot.condemned = ExitReason.OOM
        reason = cause_of_death(slot, ended, row)
        if slot.condemned is not None or fault_of(ended.status) is not None:
            self.evidence.keep(slot)
        had_a_job = row is not None and row.activity == Activity.BUSY
        if slot.role is Role.WORKER:
            self._keep_accounts_of(slot, ended.cpu, now)
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
        if slot.role is Role.TEMPLATE:
            self._end_line(slot)
        leaves_for_good = slot.role is Role.TEMPLATE and slot.order is Order.LEAVE
        if leaves_for_good:
            slot.retires()
        self._parking.park(slot, reason)
        self.table.to_recycle.pop(slot.index, None)  # its successor is new
        life = self._scoreboard.life(slot.index)
        with writing(life):
            life.state, life.pid = slot.state, 0

    def _keep_accounts_of(self, dead: Slot, cpu: float, now: float) -> None:
        """Add up what a life leaves to its slot, which nobody else writes to any more."""
        with writing(self._scoreboard.life(dead.index)) as life:
            life.cpu_before += cpu
        # Read from the row itself: of a row that is torn there is no copy.
        row = self._scoreboard.work(dead.index)
        if row.serial != dead.serial:
            return
        self._scoreboard.header.jobs_of_the_dead += row.jobs_done
        if row.busy_since:
            with writing(row):
                row.busy += max(0.0, now - row.busy_since)
                row.busy_since = 0.0

    def _end_line(self, template: Slot) -> None:
        """Forget what a dead template still owed us."""
        self.welcome()
        for serial in self.lineage.ended(template):
            slot = self.table.by_serial(serial)
            if slot is not None:
                self._forget(slot)

    def _log(self, slot: Slot, ended: Ended, reason: ExitReason, line: str) -> None:
        if reason is ExitReason.CUT_OFF:
            logger.warning("%s; its job goes back to the queue", line)
        elif reason.failed and slot.state is not SlotState.KILLED:
            logger.error("%s (%s)", line, reason.name.lower())
        else:
            logger.info("%s (pid %d) left: %s", slot.label, ended.pid, reason.name.lower())


def _was_up(slot: Slot, row: WorkRow | None) -> bool:
    """Tell whether a life that counts as booting has got further, by its own word."""
    boots = slot.state is SlotState.BOOTING
    return boots and row is not None and row.activity in (Activity.IDLE, Activity.BUSY)
