"""Master: one thread, one loop; it keeps the slots filled."""

from __future__ import annotations

import logging
import os
import selectors
import signal
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.errors import ExitCode
from pulpo_pool.heap import ready_to_fork
from pulpo_pool.log import set_level
from pulpo_pool.master import policy
from pulpo_pool.master.census import taken
from pulpo_pool.master.commands import (
    COMMAND_FOR_SIGNAL,
    Command,
    dumped_slots,
    recycled_slots,
    wanted_workers,
)
from pulpo_pool.master.control import ControlSocket, Refused
from pulpo_pool.master.lag import LoopLag
from pulpo_pool.master.reload import Reload
from pulpo_pool.master.status import pool_status, state_word
from pulpo_pool.states import ExitReason, ForkReason, Order, PoolState, SlotState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pulpo_pool.clock import Clock
    from pulpo_pool.master.control import Request
    from pulpo_pool.master.crew import Crew
    from pulpo_pool.master.herald import Herald
    from pulpo_pool.master.resettings import Resettings
    from pulpo_pool.master.rundir import RunDirectory
    from pulpo_pool.master.vigil import Vigil
    from pulpo_pool.master.wires import Wires
    from pulpo_pool.scoreboard import Scoreboard
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

HEARTBEAT: Final = 2.0  # seconds between two beats of a master that has nothing to do
SHORTEST_NAP: Final = 0.05  # seconds; what is due waits at most this long for the fork budget
STOP_GRACE: Final = 2.0  # seconds that jobs get when the pool is stopped now


class Master:
    """Keeps every slot filled until told to stop.

    1. hear: signals, doorbell and control socket, which all mean commands
    2. reap the dead, and have their jobs handed back
    3. do what policy says: fork, ask to leave, kill
    4. beat, so that others can tell that it lives
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts it is composed of
        self,
        crew: Crew,
        vigil: Vigil,
        scoreboard: Scoreboard,
        wires: Wires,
        run_directory: RunDirectory,
        herald: Herald,
        clock: Clock,
        about: Mapping[str, Any],
        resettings: Resettings,
    ) -> None:
        self._crew = crew
        self._vigil = vigil
        self._table = crew.table
        self._scoreboard = scoreboard
        self._wires = wires
        self._run_directory = run_directory
        self._herald = herald
        self._clock = clock
        self._about = dict(about)  # what status shows of the settings
        self._reload = Reload(crew, scoreboard, clock, self._why_no_boot, resettings, self._take)
        self._lag = LoopLag(scoreboard)
        self._state = PoolState.STARTING
        self._interrupts = 0
        self._changes_taken = 0  # of those that the watcher saw
        self._failed: ExitCode | None = None
        self._boot_error_told = ""
        self.last_words = ""  # why the pool gave up, for a person to read whole
        self._selector = selectors.DefaultSelector()
        self._verbs: dict[Command, Callable[[str], dict[str, Any]]] = {
            Command.STATUS: lambda _: self._status(),
            Command.SCALE: self._scale,
            Command.RECYCLE: self._recycle,
            Command.RELOAD: lambda _: self._begin_reload(),
            Command.DUMP: self._dump,
            Command.PAUSE: lambda _: self._rest(PoolState.PAUSED),
            Command.QUIET: lambda _: self._rest(PoolState.QUIET),
            Command.RESUME: lambda _: self._resume(),
            Command.DRAIN: lambda _: self._drain(),
            Command.STOP: lambda _: self._stop(),
        }

    def run(self) -> ExitCode:
        """Supervise until the pool is empty; return what the program exits with."""
        self._advance(PoolState.STARTING)
        ready_to_fork()  # before the first
        self._selector.register(self._wires.signals.reader, selectors.EVENT_READ, self._hear)
        self._selector.register(
            self._wires.doorbell.reader,
            selectors.EVENT_READ,
            lambda _mask: self._wires.doorbell.drain(),
        )
        control = ControlSocket(self._run_directory.control, self._selector, self._answer)
        try:
            self._hear()  # told to stop before it began, a pool forks nobody
            while not self._is_over():
                self._turn()
        finally:
            control.close()
            self._selector.close()
        if self._failed is not None:
            return self._failed
        return ExitCode.JOBS_CUT_OFF if self._crew.jobs_cut_off else ExitCode.CLEAN

    def _turn(self) -> None:
        self._crew.act(self._state)
        for key, mask in self._selector.select(self._patience()):
            key.data(mask)
        self._crew.look()
        self._crew.bury_the_dead()
        self._assess()
        now = self._clock.monotonic()
        patience = self._patience()
        self._lag.look(now, patience)
        for sentence in self._vigil.look(now, patience):
            self._crew.condemn(sentence.slot, sentence.reason, sentence.why)
        self._scoreboard.header.heartbeat = now
        self._herald.tell(self._state, reloading=self._reload.under_way)

    def _patience(self) -> float:
        """Return how long the loop may sleep, in seconds."""
        return min(self._time_to_the_next_deed(), self._herald.patience())

    def _time_to_the_next_deed(self) -> float:
        deadline = policy.nearest_deadline(self._table)
        if any(slot.state is SlotState.EMPTY for slot in self._table):
            return SHORTEST_NAP  # a place waits for the fork budget
        if deadline is None:
            return HEARTBEAT
        return min(HEARTBEAT, max(SHORTEST_NAP, deadline - self._clock.monotonic()))

    def _assess(self) -> None:
        """Draw the conclusions that concern the pool as a whole."""
        header = self._scoreboard.header
        if self._state is PoolState.STARTING:
            if any(slot.ever_up for slot in self._table.workers):
                self._advance(PoolState.RUNNING)
                logger.info("the first worker is ready")
            elif policy.nobody_boots(self._table):
                self._give_up()
        header.generation = self._crew.lineage.generation
        header.crash_looping = policy.is_crash_looping(self._table)
        if header.out_of_work and self._state < PoolState.DRAINING:
            logger.info("nothing is ready and nothing is held: the burst is over")
            self._drain()
        if self._state is not PoolState.STARTING:
            self._reload.step()  # first: if it fails, it is the one to say why
            self._reload_what_changed()
            self._tell_boot_error()

    def _reload_what_changed(self) -> None:
        """Begin what the watcher asks for; changes during a reload are for the next one."""
        seen = self._scoreboard.header.changes_seen
        if seen != self._changes_taken and self._state < PoolState.DRAINING:
            if self._reload.under_way:
                return
            self._changes_taken = seen
            self._begin_reload()

    def _tell_boot_error(self) -> None:
        """Log why workers cannot boot: once, however often they try, until all can again."""
        if not policy.any_boot_fails(self._table):
            self._boot_error_told = ""
            return
        error = self._run_directory.take_boot_error()
        if error is not None and error.text != self._boot_error_told:
            self._boot_error_told = error.text
            logger.error("a worker could not boot, and is tried again:\n%s", error.text)

    def _give_up(self) -> None:
        error = self._run_directory.take_boot_error()
        self._failed = ExitCode(error.code) if error else ExitCode.APP_DOES_NOT_BOOT
        self.last_words = error.text if error else "no worker lived long enough to say why"
        logger.error("no worker boots, so the pool stops")
        self._drain()

    def _is_over(self) -> bool:
        return self._state is PoolState.DRAINING and policy.is_stopped(self._table)

    def _advance(self, state: PoolState) -> None:
        self._state = state
        self._scoreboard.header.pool_state = state

    # -- commands -----------------------------------------------------------------------------

    def _hear(self, _mask: int = selectors.EVENT_READ) -> None:
        for number in self._wires.signals.drain():
            if number == signal.SIGINT:
                self._interrupts += 1
            asked = COMMAND_FOR_SIGNAL.get(signal.Signals(number))
            if asked is None:
                continue
            command, argument = asked
            # A platform may send TERM many times: only a second Ctrl-C is a person in a hurry.
            if number == signal.SIGINT and self._interrupts > 1:
                command = Command.STOP
            try:
                answer = self.obey(command, argument)
            except Refused as refusal:
                logger.warning("%s: %s", signal.Signals(number).name, refusal)
            else:
                if command is Command.STATUS:
                    logger.info("status: %s", answer)

    def _answer(self, request: Request) -> dict[str, Any]:
        try:
            command = Command(request.command)
        except ValueError:
            raise Refused(f"no such command: {request.command!r}") from None
        return self.obey(command, request.argument)

    def obey(self, command: Command, argument: str = "") -> dict[str, Any]:
        """Carry out one command; return what its sender is told. Raises Refused."""
        if self._state >= PoolState.DRAINING and command not in (
            Command.STATUS,
            Command.DUMP,
            Command.DRAIN,
            Command.STOP,
        ):
            raise Refused(f"{command}: the pool is draining")
        return self._verbs[command](argument)

    def _scale(self, argument: str) -> dict[str, Any]:
        wanted = wanted_workers(argument, self._table.wanted, self._about["max_workers"])
        self._crew.scale(wanted)
        return {"workers": wanted}

    def _recycle(self, argument: str) -> dict[str, Any]:
        slots = recycled_slots(argument, self._table)
        self._table.to_recycle |= dict.fromkeys(slots, ExitReason.OPERATOR)
        return {"slots": sorted(slots)}

    def _dump(self, argument: str) -> dict[str, Any]:
        """Ask processes for their stacks, and return where they write them."""
        slots = dumped_slots(argument, self._table)
        return {"stacks": [self._crew.evidence.ask(slot) for slot in slots]}

    def _begin_reload(self) -> dict[str, Any]:
        if self._state is PoolState.STARTING:
            raise Refused("reload: the pool is still starting")
        self._run_directory.take_boot_error()
        self._reload.begin()
        return self._reload.status()

    def _take(self, settings: Settings) -> None:
        """Go by these settings from now on, as far as they are the master's own."""
        set_level(settings.log_level)
        self._crew.take(settings)
        self._vigil.take(settings)
        self._herald.take(settings)
        self._about |= {"app": settings.app, "queues": list(settings.queues)}

    def _why_no_boot(self) -> str:
        error = self._run_directory.take_boot_error()
        return error.text if error else "it died, or did not report ready, before it said why"

    def _stop(self) -> dict[str, Any]:
        answer = self._drain()
        self._crew.act(self._state)
        self._crew.hurry(STOP_GRACE)
        return answer

    def _status(self) -> dict[str, Any]:
        header = self._scoreboard.header
        master = {
            "pid": os.getpid(),
            "state": state_word(self._state),
            "generation": header.generation,
            "workers_wanted": self._table.wanted,
            "crash_looping": bool(header.crash_looping),
            "jobs_total": taken(self._table, self._scoreboard).jobs_total,
            "forks": {reason.name.lower(): header.forks[reason] for reason in ForkReason},
            "exits": {reason.name.lower(): header.exits[reason] for reason in ExitReason},
            "reload": self._reload.status(),
            "uptime_seconds": round(self._clock.now() - header.started_at, 1),
            **self._about,
        }
        return {
            "master": master,
            **pool_status(self._table, self._scoreboard, self._clock.monotonic()),
        }

    def _rest(self, state: PoolState) -> dict[str, Any]:
        if self._state is PoolState.STARTING:
            raise Refused("the pool is still starting")
        self._advance(max(state, self._state))
        self._crew.give_orders(Order.REST)
        return {"state": state_word(self._state)}

    def _resume(self) -> dict[str, Any]:
        if self._state in (PoolState.PAUSED, PoolState.QUIET):
            self._advance(PoolState.RUNNING)
            self._crew.give_orders(Order.WORK)
        return {"state": state_word(self._state)}

    def _drain(self) -> dict[str, Any]:
        if self._state < PoolState.DRAINING:
            logger.info("draining: workers finish what they hold")
            self._reload.abandon()
            self._advance(PoolState.DRAINING)
            self._crew.act(self._state)  # whoever hears of it may count on nobody reserving more
        return {"state": state_word(self._state)}
