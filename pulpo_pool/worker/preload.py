"""Preload: import the app once for many workers, and name what a fork will not carry over."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pulpo_pool.app.retry import default_policy
from pulpo_pool.log import count_lines_in, set_up_logging
from pulpo_pool.metrics.jobs import JobMetrics
from pulpo_pool.metrics.slot_values import enter_scratch
from pulpo_pool.metrics.unexported import warn_of_unexported
from pulpo_pool.queues.opening import import_driver
from pulpo_pool.worker.boot import leave_boot_error
from pulpo_pool.worker.process import run_worker

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableSequence

    from pulpo_pool.seat import Body
    from pulpo_pool.worker.process import WorkerPlan

logger = logging.getLogger(__name__)


def preloaded(plan: WorkerPlan, log_lines: MutableSequence[int]) -> Body | None:
    """Import the app, in a template, and return what its workers run.

    `log_lines` is where the template's own are counted. Returns None, and leaves the reason for
    the master, if the app does not import.
    """
    settings = plan.settings
    set_up_logging("template", level=settings.log_level, log_format=settings.log_format)
    count_lines_in(log_lines)
    enter_scratch()  # metrics made at import are counted by workers, in files of their own
    try:
        metrics = JobMetrics()
        import_driver(settings.broker_url)
        before = Surroundings.seen()
        app = plan.load_app()
        app.use(settings)
        default_policy(settings.max_attempts)  # kept for the workers
        types = [handler.request_type for handler in app.registry]
        metrics.prepare(settings.queues, types, published_to=app.job_queues)
        metrics.foresee()
    except BaseException as error:  # noqa: BLE001 - an app may raise anything at import
        leave_boot_error(error, plan)
        return None
    for warning in before.changes(Surroundings.seen()):
        logger.warning("importing the app %s", warning)
    warn_of_unexported()
    ready = replace(plan, load_app=lambda: app, make_metrics=lambda: metrics)
    return partial(run_worker, plan=ready)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an import may change around it, and a fork cannot share."""

    threads: frozenset[str]
    sockets: Mapping[str, int]  # what the kernel calls it, and its descriptor
    handlers: Mapping[signal.Signals, object]
    children: frozenset[int]
    directory: str

    @classmethod
    def seen(cls) -> Surroundings:
        """Look around."""
        return cls(
            threads=frozenset(thread.name for thread in threading.enumerate()),
            sockets=_open_sockets(),
            handlers={
                number: signal.getsignal(number)
                for number in signal.Signals
                if number in signal.valid_signals()
            },
            children=_children(),
            directory=str(Path.cwd()),
        )

    def changes(self, after: Surroundings) -> list[str]:
        """Return a warning for each change, naming it and what to do instead."""
        hook = "do that in a function under @pulpo.on_worker_start"
        warnings = [
            f"started the thread {name!r}, which no worker will have; {hook}"
            for name in sorted(after.threads - self.threads)
        ]
        warnings += [
            f"opened {what} (descriptor {fd}), which all workers would share; {hook}"
            for what, fd in sorted(after.sockets.items())
            if what not in self.sockets
        ]
        warnings += [
            f"replaced the handler of {number.name}, which workers set themselves; {hook}"
            for number, handler in after.handlers.items()
            if handler != self.handlers[number]
        ]
        warnings += [
            f"started a process (pid {pid}), which outlives a reload; {hook}"
            for pid in sorted(after.children - self.children)
        ]
        if after.directory != self.directory:
            warnings.append(f"changed the working directory to {after.directory}")
        return warnings


def _open_sockets() -> dict[str, int]:
    found = {}
    with suppress(OSError):
        for entry in os.scandir("/proc/self/fd"):
            with suppress(OSError):
                what = os.readlink(entry.path)  # noqa: PTH115 - it is no path
                if what.startswith("socket:"):
                    found[what] = int(entry.name)
    return found


def _children() -> frozenset[int]:
    me = os.getpid()
    with suppress(OSError, ValueError):
        text = Path(f"/proc/{me}/task/{me}/children").read_text()
        return frozenset(int(pid) for pid in text.split())
    return frozenset()
