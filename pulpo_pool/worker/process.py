"""What a worker does from its first breath to its exit status."""

from __future__ import annotations

import logging
import os
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pulpo_pool.circuits import Circuits
from pulpo_pool.errors import (
    ExitCode,
    QueueError,
    QueueUnavailable,
)
from pulpo_pool.log import count_lines_in, set_up_logging
from pulpo_pool.metrics.jobs import JobMetrics
from pulpo_pool.metrics.slot_values import enter_multiprocess, tell_losses_to
from pulpo_pool.metrics.unexported import warn_of_unexported
from pulpo_pool.queues.adapter import Owner
from pulpo_pool.scoreboard import writing
from pulpo_pool.states import Activity, ExitReason, QueueLink
from pulpo_pool.worker.boot import leave_boot_error
from pulpo_pool.worker.crashes import CrashCheck
from pulpo_pool.worker.hygiene import Hygiene
from pulpo_pool.worker.lease import LeaseKeeper
from pulpo_pool.worker.lifespan import Lifespan
from pulpo_pool.worker.loop import LoopLimits, WorkerLoop
from pulpo_pool.worker.orders import EXIT_FAILED, Orders
from pulpo_pool.worker.patience import Leave, Patience
from pulpo_pool.worker.report import WorkerReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pulpo_pool.app.pulpo import Pulpo
    from pulpo_pool.clock import Clock
    from pulpo_pool.queues.adapter import QueueAdapter
    from pulpo_pool.seat import Seat
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

EXIT_LEFT: Final = 0  # as planned; the scoreboard says why
EXIT_BOOT_FAILED: Final = 3


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker is to run; handed to it by whoever composes the pool."""

    settings: Settings
    load_app: Callable[[], Pulpo]
    open_queue: Callable[[Owner], QueueAdapter]
    metrics_directory: Path
    crashes: Path  # where the master keeps what the ended showed
    circuit_lock: Path
    leave_boot_error: Callable[[ExitCode, str], None]
    clock: Clock
    make_metrics: Callable[[], JobMetrics] = JobMetrics


def run_worker(seat: Seat, plan: WorkerPlan) -> int:
    """Boot, work until told to leave, and return the exit status."""
    return Worker(seat, plan).run()


class Worker:
    """One life in a slot.

    1. boot: metrics, app, queue, hooks; then report ready
    2. take turns until the pool drains, the slot is recycled or the master is gone
    3. stay alive while the queue is away
    """

    def __init__(self, seat: Seat, plan: WorkerPlan) -> None:
        self._seat = seat
        self._plan = plan
        self._settings = plan.settings
        self._orders = Orders(seat, plan.clock, plan.settings.drain_timeout)
        self._most_empty_turns = _jittered(plan.settings.max_empty_iterations)

    def run(self) -> int:
        """Live; return the exit status. Nothing a handler or a queue does escapes."""
        self._orders.listen()
        self._fields = set_up_logging(
            f"worker {self._seat.label}",
            level=self._settings.log_level,
            log_format=self._settings.log_format,
            slot=self._seat.slot,
        )
        count_lines_in(self._seat.work.log_lines)
        try:
            loop = self._boot()
        except Leave:
            return self._left(ExitReason.SHUTDOWN)
        except BaseException as error:  # noqa: BLE001 - an app may raise anything at import
            leave_boot_error(error, self._plan)
            return EXIT_BOOT_FAILED
        try:
            reason = self._work(loop)
        except Exception:
            logger.exception("the worker fails; its master replaces it")
            return EXIT_FAILED
        self._stop_app()
        return self._left(reason)

    # -- boot ---------------------------------------------------------------------------------

    def _boot(self) -> WorkerLoop:
        seat, settings = self._seat, self._settings
        self._show_booting()
        enter_multiprocess(self._plan.metrics_directory, seat.label)
        # First: a name that an app's metric takes as well then fails in the app's own line.
        self._metrics = self._plan.make_metrics()
        tell_losses_to(self._metrics.lost)
        self._app = self._plan.load_app()
        self._app.use(settings)
        if seat.serial == 1:  # the pool's first process: there is no template to say it
            warn_of_unexported()
        types = [handler.request_type for handler in self._app.registry]
        self._metrics.prepare(settings.queues, types, published_to=self._app.job_queues)
        self._app.count_published = self._metrics.jobs_published
        if seat.slot == 0:
            self._metrics.export_zeros()  # of one slot: all slots' zeros would cost each scrape
        self._hygiene = Hygiene(self._orders.signals, seat.wakeup_end, seat.stacks)
        for hook in self._app.worker_start_hooks:
            hook()
        self._crashes = CrashCheck(
            seat,
            self._plan.crashes,
            self._plan.clock,
            max_crashes=settings.max_crashes,
        )
        self._patience = Patience(
            seat, self._orders, self._hygiene, self._metrics, self._plan.clock
        )
        queue: QueueAdapter = self._patience.until_it_works(self._open)
        self._lease = LeaseKeeper(queue, seat.lifeline, self._orders.note_orphaned)
        self._report = WorkerReport(
            seat,
            self._metrics,
            self._fields,
            self._lease,
            self._plan.clock,
            redacts=bool(self._app.redactors),
        )
        loop = self._loop_over(queue)
        self._lifespan = Lifespan(settings, seat.work, self._plan.clock.monotonic())
        self._lease.start()
        self._report.show(Activity.IDLE, "idle")
        seat.ring()
        self._patience.loop = loop
        return loop

    def _show_booting(self) -> None:
        """Begin this life's row: what the one before wrote is not this one's."""
        with writing(self._seat.work) as row:
            row.serial = self._seat.serial
            row.activity = Activity.BOOTING
            row.heartbeat = self._plan.clock.monotonic()
            row.jobs_done = row.queue_up = 0
            row.busy_since = 0.0
            row.asks = row.asked_after = row.fresh_memory = row.memory = 0

    def _loop_over(self, queue: QueueAdapter) -> WorkerLoop:
        return WorkerLoop(
            queue,
            self._app,
            self._report,
            LoopLimits(
                sleep_duration=self._settings.sleep_duration,
                max_attempts=self._settings.max_attempts,
                on_expired=self._settings.on_expired,
            ),
            self._plan.clock,
            stopping=self._orders.is_stopping,
            crash_verdict=self._crashes.verdict,
            circuits=self._circuits(),
        )

    def _circuits(self) -> Circuits:
        plan = self._plan
        return Circuits(self._seat.scoreboard, self._seat.serial, plan.circuit_lock, plan.clock)

    # -- work ---------------------------------------------------------------------------------

    def _work(self, loop: WorkerLoop) -> ExitReason:
        empty_turns = 0
        orders, monotonic = self._orders, self._plan.clock.monotonic
        while True:
            if not orders.is_working():
                if orders.is_stopping():
                    self._while_queue_is_up(loop, loop.finish)
                    return orders.leaving_reason()
                self._rest(loop)
            elif self._while_queue_is_up(loop, loop.turn):
                empty_turns = 0
                if not loop.has_put_back and self._lifespan.reached_by_job(monotonic()):
                    self._seat.ring()
                self._hygiene.tidy_up()
            elif not self._orders.woken():
                empty_turns += 1
                if self._most_empty_turns and empty_turns >= self._most_empty_turns:
                    self._while_queue_is_up(loop, loop.finish)
                    return ExitReason.IDLE

    def _while_queue_is_up(self, loop: WorkerLoop, step: Callable[[], bool | None]) -> bool:
        """Take a step; while the queue is away, reconnect and take it again."""
        try:
            return bool(step())
        except QueueUnavailable as error:
            self._patience.say_queue_is_away(error)
        try:
            return bool(self._patience.until_it_works(self._reconnect_and_take, loop, step))
        except Leave:
            return False

    def _rest(self, loop: WorkerLoop) -> None:
        """Reserve nothing until the master says otherwise."""
        self._while_queue_is_up(loop, loop.finish)
        self._report.show(Activity.IDLE, "resting")
        self._hygiene.tidy_signals()
        if self._orders.is_resting():
            self._orders.nap(self._settings.sleep_duration)
        self._orders.woken()

    def _before_wait(self) -> None:
        self._hygiene.tidy_signals()
        self._report.idle()
        if not self._orders.is_working():
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

    # -- leaving ------------------------------------------------------------------------------

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
    return iterations + int(random.random() * (iterations // 10 + 1))  # noqa: S311 - not a secret
