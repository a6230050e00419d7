"""What a worker does from its first breath to its exit status."""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tenacity import Retrying, retry_if_exception, stop_never, wait_random_exponential

from pulpo_pool.circuits import CIRCUIT_LOCK, Circuits
from pulpo_pool.errors import (
    ConfigError,
    ExitCode,
    QueueCorrupt,
    QueueError,
    QueueUnavailable,
)
from pulpo_pool.log import count_lines_in, keep_logging, set_up_logging
from pulpo_pool.metrics.catalogue import JobMetrics, enter_multiprocess
from pulpo_pool.metrics.slot_values import tell_losses_to
from pulpo_pool.metrics.unexported import warn_of_unexported
from pulpo_pool.queues.adapter import Owner
from pulpo_pool.scoreboard import Activity, ExitReason, Order, QueueLink, writing
from pulpo_pool.worker.boot import leave_boot_error
from pulpo_pool.worker.crashes import CrashCheck
from pulpo_pool.worker.hygiene import Hygiene
from pulpo_pool.worker.lease import LeaseKeeper
from pulpo_pool.worker.lifespan import Lifespan
from pulpo_pool.worker.loop import LoopLimits, WorkerLoop
from pulpo_pool.worker.report import WorkerReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from tenacity import RetryCallState

    from pulpo_pool.app.pulpo import Pulpo
    from pulpo_pool.clock import Clock
    from pulpo_pool.queues.adapter import QueueAdapter
    from pulpo_pool.seat import Seat
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

EXIT_LEFT: Final = 0  # as planned; the scoreboard says why
EXIT_FAILED: Final = 1
EXIT_BOOT_FAILED: Final = 3
LONGEST_SILENCE: Final = 5.0  # seconds between two heartbeats of a worker without a job
LONGEST_RECONNECT_WAIT: Final = 30.0  # seconds
LAST_RECONNECT_WAIT: Final = 1.0  # the same, once told to leave with a job unsettled
_ONLY_WAKE: Final = (signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT,
                     signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker is to run; handed to it by whoever composes the pool."""

    settings: Settings
    load_app: Callable[[], Pulpo]
    open_queue: Callable[[Owner], QueueAdapter]
    metrics_directory: Path
    leave_boot_error: Callable[[ExitCode, str], None]
    clock: Clock
    make_metrics: Callable[[], JobMetrics] = JobMetrics


def run_worker(seat: Seat, plan: WorkerPlan) -> int:
    """Boot, work until told to leave, and return the exit status."""
    return Worker(seat, plan).run()


class _Leave(Exception):
    """The worker was told to leave while it waited for its queue."""


class Worker:
    """One life in a slot.

    1. boot: metrics, app, queue, hooks; then report ready
    2. take turns until the pool drains, the slot is recycled or the master is gone
    3. stay alive while the queue is away
    """

    def __init__(self, seat: Seat, plan: WorkerPlan) -> None:
        self._seat = seat
        self._life = seat.life  # looked at twice a job
        self._plan = plan
        self._settings = plan.settings
        self._told_to_stop = False
        self._loop: WorkerLoop | None = None
        self._patience = _jittered(plan.settings.max_empty_iterations)

    def run(self) -> int:
        """Live; return the exit status. Nothing a handler or a queue does escapes."""
        self._install_signals()
        self._fields = set_up_logging(
            f"worker {self._seat.label}",
            level=self._settings.log_level,
            log_format=self._settings.log_format,
            slot=self._seat.slot,
        )
        count_lines_in(self._seat.work.log_lines)
        try:
            self._loop = self._boot()
        except _Leave:
            return self._left(ExitReason.SHUTDOWN)
        except BaseException as error:  # noqa: BLE001 - an app may raise anything at import
            leave_boot_error(error, self._plan)
            return EXIT_BOOT_FAILED
        try:
            reason = self._work(self._loop)
        except Exception:
            logger.exception("the worker fails; its master replaces it")
            return EXIT_FAILED
        self._stop_app()
        return self._left(reason)

    # -- boot ---------------------------------------------------------------------------------

    def _boot(self) -> WorkerLoop:
        seat, settings = self._seat, self._settings
        with writing(seat.work):
            row = seat.work
            row.serial = seat.serial
            row.activity = Activity.BOOTING
            row.heartbeat = self._plan.clock.monotonic()
            row.jobs_done = row.queue_up = 0
            row.busy_since = 0.0
            row.asks = row.asked_after = row.fresh_memory = row.memory = 0
        enter_multiprocess(self._plan.metrics_directory, seat.label)
        # First: a name that an app's metric takes as well then fails in the app's own line.
        self._metrics = self._plan.make_metrics()
        tell_losses_to(self._metrics.lost)
        self._app = self._plan.load_app()
        keep_logging()
        self._app.use(settings)
        if seat.serial == 1:  # the pool's first process: there is no template to say it
            warn_of_unexported()
        self._metrics.prepare(settings.queues, [h.request_type for h in self._app.registry])
        if seat.slot == 0:
            self._metrics.export_zeros()  # of one slot: all slots' zeros would cost each scrape
        self._hygiene = Hygiene(self._signals, seat.wakeup_end, seat.stacks)
        for hook in self._app.worker_start_hooks:
            hook()
        self._crashes = CrashCheck(
            seat,
            self._plan.metrics_directory.parent,
            self._plan.clock,
            max_crashes=settings.max_crashes,
        )
        queue: QueueAdapter = self._until_it_works()(self._open)
        self._lease = LeaseKeeper(queue, seat.lifeline, self._note_orphaned)
        self._report = WorkerReport(
            seat,
            self._metrics,
            self._fields,
            self._lease,
            self._plan.clock,
            redacts=bool(self._app.redactors),
        )
        loop = WorkerLoop(
            queue,
            self._app,
            self._report,
            LoopLimits(
                sleep_duration=settings.sleep_duration,
                max_attempts=settings.max_attempts,
                on_expired=settings.on_expired,
            ),
            self._plan.clock,
            stopping=self._is_stopping,
            crash_verdict=self._crashes.verdict,
            circuits=self._circuits(),
        )
        self._lifespan = Lifespan(settings, seat.work, self._plan.clock.monotonic())
        self._lease.start()
        self._report.show(Activity.IDLE, "idle")
        seat.ring()
        return loop

    def _circuits(self) -> Circuits:
        lock = self._plan.metrics_directory.parent.absolute() / CIRCUIT_LOCK
        return Circuits(self._seat.scoreboard, self._seat.serial, lock, self._plan.clock)

    # -- work ---------------------------------------------------------------------------------

    def _work(self, loop: WorkerLoop) -> ExitReason:
        empty_turns = 0
        while True:
            if self._is_stopping():
                self._while_queue_is_up(loop, loop.finish)
                return self._leaving_reason()
            if self._life.order == Order.REST:
                self._rest(loop)
            elif self._while_queue_is_up(loop, loop.turn):
                empty_turns = 0
                if not loop.has_put_back and self._lifespan.reached_by_job(
                    self._plan.clock.monotonic()
                ):
                    self._seat.ring()
                self._hygiene.tidy_up()
            elif not self._woken():
                empty_turns += 1
                if self._patience and empty_turns >= self._patience:
                    return ExitReason.IDLE

    def _while_queue_is_up(self, loop: WorkerLoop, step: Callable[[], bool | None]) -> bool:
        """Take a step; while the queue is away, reconnect and take it again."""
        try:
            return bool(step())
        except QueueUnavailable as error:
            self._say_queue_is_away(error)
        try:
            return bool(self._until_it_works()(self._reconnect_and_take, loop, step))
        except _Leave:
            return False

    def _rest(self, loop: WorkerLoop) -> None:
        """Reserve nothing until the master says otherwise."""
        self._while_queue_is_up(loop, loop.finish)
        self._report.show(Activity.IDLE, "resting")
        self._hygiene.tidy_signals()
        if self._life.order == Order.REST:
            self._nap(self._settings.sleep_duration)
        self._woken()

    def _before_wait(self) -> None:
        self._hygiene.tidy_signals()
        self._report.idle()
        if self._told_to_stop or self._life.order != Order.WORK:
            # The signal that said so may have come while a handler kept signals from us.
            with suppress(BlockingIOError):
                os.write(self._seat.wakeup_end, b"!")
        if self._lifespan.reached_by_now(self._plan.clock.monotonic()):
            self._seat.ring()

    # -- the queue ----------------------------------------------------------------------------

    def _open(self) -> QueueAdapter:
        owner = Owner(self._seat.pool, self._seat.instance, self._seat.slot, self._seat.serial)
        queue = self._plan.open_queue(owner)
        queue.interrupts = (self._seat.wakeup, self._seat.lifeline)
        queue.before_wait = self._before_wait
        self._crashes.open_for(queue)
        self._seat.work.queue_up = QueueLink.UP
        return queue

    def _reconnect_and_take(self, loop: WorkerLoop, step: Callable[[], bool | None]) -> bool:
        with suppress(QueueError):
            loop.queue.close()
        loop.queue = self._lease.queue = self._open()
        self._metrics.reconnected()
        return bool(step())

    def _until_it_works(self) -> Retrying:
        """Return what calls again and again, ever more slowly, while the queue is away.

        What follows an opening is tried inside too: a full disk can be opened.
        """
        return Retrying(
            retry=retry_if_exception(self._is_worth_waiting),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_RECONNECT_WAIT),
            stop=stop_never,
            sleep=self._nap_unless_leaving,
            before_sleep=self._note_failed_try,
            reraise=True,
        )

    def _is_worth_waiting(self, error: BaseException) -> bool:
        """A queue may come back; what was wrong from the first is a mistake to report."""
        if isinstance(error, QueueCorrupt | ConfigError):
            return self._loop is not None
        return isinstance(error, QueueUnavailable)

    def _note_failed_try(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._say_queue_is_away(error)
        self._seat.work.heartbeat = self._plan.clock.monotonic()
        if self._loop is None:
            # Booted, but without a queue: /readyz says so, and nothing is restarted for it.
            self._seat.work.activity = Activity.IDLE
            self._seat.ring()

    def _say_queue_is_away(self, error: BaseException | None) -> None:
        self._seat.work.queue_up = QueueLink.AWAY
        self._metrics.queue_failed(error)
        if isinstance(error, QueueCorrupt):
            logger.error("the queue is unusable: %s", error)
        else:
            logger.warning("the queue is unavailable: %s", error)

    def _nap_unless_leaving(self, seconds: float) -> None:
        """Wait, and give up only when there is nothing left to settle.

        A job that is done but not acknowledged is worth the rest of the drain timeout.
        """
        self._hygiene.tidy_signals()
        self._leave_if_told()
        self._nap(min(seconds, LAST_RECONNECT_WAIT) if self._is_stopping() else seconds)
        self._woken()
        self._leave_if_told()

    def _leave_if_told(self) -> None:
        if self._is_stopping() and not (self._loop and self._loop.has_unsettled):
            raise _Leave

    def _nap(self, seconds: float) -> None:
        """Wait for a signal, the master's end or the time, with a heartbeat now and then."""
        # A lifeline that has ended would end every nap at once.
        watched = [self._seat.wakeup, *([] if self._told_to_stop else [self._seat.lifeline])]
        while seconds > 0:
            self._seat.work.heartbeat = self._plan.clock.monotonic()
            if select.select(watched, [], [], min(seconds, LONGEST_SILENCE))[0]:
                return
            seconds -= LONGEST_SILENCE

    # -- signals and leaving ------------------------------------------------------------------

    def _install_signals(self) -> None:
        """Note, never act: a handler that raised could tear a reply in two."""
        look, leave = self._on_look, self._on_leave
        self._signals = {
            **dict.fromkeys((signal.SIGTERM, signal.SIGINT), leave),
            **dict.fromkeys(_ONLY_WAKE, look),
        }
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_leave(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_stop = True

    def _on_look(self, _number: int, _frame: FrameType | None) -> None:
        """The wake-up descriptor has ended a wait already; the next turn reads the order."""

    def _woken(self) -> bool:
        """Empty the wake-up pipe; tell whether anything was in it."""
        try:
            return bool(os.read(self._seat.wakeup, 4_096))
        except BlockingIOError:
            return False

    def _note_orphaned(self) -> None:
        """Called from the lease thread: the master is gone, so nobody else keeps the deadline."""
        self._told_to_stop = True
        last = threading.Timer(self._settings.drain_timeout, os._exit, (EXIT_FAILED,))
        last.daemon = True
        last.start()

    def _is_stopping(self) -> bool:
        return self._told_to_stop or self._life.order == Order.LEAVE

    def _leaving_reason(self) -> ExitReason:
        life = self._life
        return ExitReason(life.leave_as) if life.order == Order.LEAVE else ExitReason.OPERATOR

    def _stop_app(self) -> None:
        self._lease.stop()
        for hook in self._app.worker_stop_hooks:
            try:
                hook()
            except BaseException:  # sys.exit() in a hook must not look like a failed worker
                logger.exception("a worker-stop hook failed")
        with suppress(Exception):
            self._app.close()

    def _left(self, reason: ExitReason) -> int:
        with writing(self._seat.work):
            self._seat.work.serial = self._seat.serial
            self._seat.work.activity = Activity.LEAVING
            self._seat.work.exit_reason = reason
        return EXIT_LEFT


def _jittered(iterations: int) -> int:
    """Spread idle recycling over a tenth, so that workers born together do not leave together."""
    return iterations + random.randint(0, iterations // 10)  # noqa: S311 - not a secret
