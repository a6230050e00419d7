"""What runs in each child of a pool: the master forks these, and knows nothing of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pulpo_pool.app.loading import load_app
from pulpo_pool.app.samples import sample_pulpo
from pulpo_pool.circuits import CIRCUIT_LOCK
from pulpo_pool.clock import SystemClock
from pulpo_pool.codec import Codec
from pulpo_pool.keeper.process import run_keeper
from pulpo_pool.log import keep_logging
from pulpo_pool.master.birth import unmasked
from pulpo_pool.master.template import run_template
from pulpo_pool.queues.opening import open_queue
from pulpo_pool.states import Role
from pulpo_pool.watcher import run_watcher
from pulpo_pool.web.process import run_web
from pulpo_pool.worker.preload import preloaded
from pulpo_pool.worker.process import WorkerPlan, run_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from pulpo_pool.app.pulpo import Pulpo
    from pulpo_pool.master.birth import Links
    from pulpo_pool.master.lineage import Lineage
    from pulpo_pool.master.resettings import Resettings
    from pulpo_pool.master.rundir import RunDirectory
    from pulpo_pool.queues.adapter import Owner, QueueAdapter
    from pulpo_pool.seat import Body, Seat
    from pulpo_pool.settings import Settings


@dataclass(slots=True)
class Bodies:
    """Makes each child's work from the settings as they are when it is forked."""

    resettings: Resettings
    directory: Path
    run_directory: RunDirectory
    keeper_bell: int
    listener: socket.socket | None
    links: Links
    lineage: Lineage | None = None  # known once the spawner, which needs these, is made

    def by_role(self) -> dict[Role, Body]:
        """Return what to run in a child of each role."""
        return {
            Role.WORKER: lambda seat: run_worker(seat, self._plan(seat)),
            Role.TEMPLATE: unmasked(self._template),
            Role.KEEPER: unmasked(self._keeper),
            Role.WEB: unmasked(self._web),
            Role.WATCHER: unmasked(self._watcher),
        }

    def _settings_of(self, seat: Seat) -> Settings:
        return self.resettings.of(seat.generation)

    def _plan(self, seat: Seat) -> WorkerPlan:
        settings = self._settings_of(seat)
        return WorkerPlan(
            settings=settings,
            load_app=partial(app_of, settings, self.directory),
            open_queue=queue_opener(settings),
            metrics_directory=self.run_directory.metrics,
            crashes=self.run_directory.crashes,
            circuit_lock=self.run_directory.path / CIRCUIT_LOCK,
            leave_boot_error=self.run_directory.leave_boot_error,
            clock=SystemClock(),
        )

    def _template(self, seat: Seat) -> int:
        assert self.lineage is not None
        return run_template(
            seat,
            orders=self.lineage.orders_for(seat.slot),
            links=self.links,
            prepare=partial(preloaded, self._plan(seat), seat.work.log_lines),
            clock=SystemClock(),
        )

    def _keeper(self, seat: Seat) -> int:
        settings = self._settings_of(seat)
        return run_keeper(
            seat,
            bell=self.keeper_bell,
            settings=settings,
            metrics_directory=self.run_directory.metrics,
            open_queue=queue_opener(settings),
            crashes=self.run_directory.crashes,
        )

    def _web(self, seat: Seat) -> int:
        assert self.listener is not None
        return run_web(
            seat,
            listener=self.listener,
            settings=self._settings_of(seat),
            metrics_directory=self.run_directory.metrics,
        )

    def _watcher(self, seat: Seat) -> int:
        return run_watcher(
            seat,
            settings=self._settings_of(seat),
            directory=self.directory,
            clock=SystemClock(),
        )


def app_of(settings: Settings, directory: Path) -> Pulpo:
    """Return the app that the settings name, or the samples."""
    app = load_app(settings.app, directory) if settings.app else sample_pulpo(settings)
    keep_logging()
    return app


def queue_opener(settings: Settings) -> Callable[..., QueueAdapter]:
    """Return what opens the queue that the settings name, for an Owner if there is one.

    What can be made before is: in a template, for all of its workers. Each unshared 0.4 MB more.
    """
    codec = Codec(settings.serializer, settings.max_message_bytes)
    broker, evidence_file = settings.broker_url, settings.evidence_file.absolute()

    def open_it(owner: Owner | None = None) -> QueueAdapter:
        return open_queue(
            broker,
            queues=settings.queues,
            lease=settings.lease,
            owner=owner,
            codec=codec,
            evidence_file=evidence_file,
        )

    return open_it
