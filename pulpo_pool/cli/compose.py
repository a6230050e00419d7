"""The composition root: from settings to a master with all that it hands to its children."""

from __future__ import annotations

import logging
import secrets
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from setproctitle import setproctitle

from pulpo_pool import __version__
from pulpo_pool.app.samples import sample_pulpo
from pulpo_pool.cli.bodies import Bodies
from pulpo_pool.cli.output import print_error
from pulpo_pool.clock import SystemClock
from pulpo_pool.errors import ConfigError
from pulpo_pool.log import count_lines_in, hold_standard_streams, set_up_logging
from pulpo_pool.master.birth import POOL_SIGNALS, Links
from pulpo_pool.master.crew import Crew
from pulpo_pool.master.ears import keep, shut
from pulpo_pool.master.evidence import Evidence
from pulpo_pool.master.herald import Herald
from pulpo_pool.master.lineage import Lineage
from pulpo_pool.master.listener import PORTS_TRIED, bind
from pulpo_pool.master.master import Master
from pulpo_pool.master.notify import Notifier
from pulpo_pool.master.resettings import Resettings
from pulpo_pool.master.rundir import RunDirectory
from pulpo_pool.master.slots import SlotTable
from pulpo_pool.master.spawner import DirectSpawner
from pulpo_pool.master.template import adopt_grandchildren, can_preload
from pulpo_pool.master.vigil import Vigil
from pulpo_pool.master.wires import Pipe, Wires
from pulpo_pool.memory import private_memory
from pulpo_pool.metrics.slot_files import prepare_metrics_directory
from pulpo_pool.queues.opening import check_url
from pulpo_pool.scoreboard import Scoreboard
from pulpo_pool.settings import MAX_WORKERS, read_environment
from pulpo_pool.states import Role

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from pulpo_pool.clock import Clock
    from pulpo_pool.errors import ExitCode
    from pulpo_pool.settings import Loaded, Settings

logger = logging.getLogger(__name__)

SERVICE_SLOTS: Final = 8  # rows of the scoreboard after the last possible worker's


def run_pool(read: Callable[[], Loaded], directory: Path, ears: Pipe | None = None) -> ExitCode:
    """Run a pool in this process until it is told to stop; return what to exit with.

    `read` reads the settings, now and at every reload; `ears` has the signals kept so far.
    Raises ConfigError, or AlreadyRunning if the name, the port or the socket is taken.
    """
    loaded = read()
    settings = loaded.settings
    address = check_url(settings.broker_url)
    if not address.shared:
        raise ConfigError(
            f"broker: {settings.broker_url} lives in one process, so no pool can work on it; "
            "use file:PATH"
        )
    setproctitle("pulpo-pool: master")
    hold_standard_streams()
    set_up_logging("master", level=settings.log_level, log_format=settings.log_format)
    run_directory = RunDirectory.claim(settings)
    listener = None
    try:
        listener = _listener(loaded)
        ears = ears or Pipe.laid()
        keep(ears, (*POOL_SIGNALS, signal.SIGCHLD))
        prepare_metrics_directory(run_directory.metrics)
        # Compiled files are dated by the second: of two saves in one, the first would be run.
        sys.dont_write_bytecode |= settings.watch
        wires = Wires.laid(ears)
        resettings = Resettings(settings, read)
        master = _composed(resettings, directory, run_directory, listener, wires)
        _announce(loaded, listener)
        code = master.run()
        shut(POOL_SIGNALS)
        if master.last_words:
            print_error(f"no worker boots: {master.last_words}")
        return code
    finally:
        if listener is not None:
            listener.close()
        run_directory.release()


def _composed(
    resettings: Resettings,
    directory: Path,
    run_directory: RunDirectory,
    listener: socket.socket | None,
    wires: Wires,
) -> Master:
    clock = SystemClock()
    settings = resettings.of_master
    scoreboard = _scoreboard(settings, clock)
    links = _links(scoreboard, run_directory, listener, wires)
    bodies = Bodies(resettings, directory, run_directory, wires.keeper_bell.reader, listener, links)
    table = SlotTable.planned(settings.workers, MAX_WORKERS, _services(settings, listener))
    bodies.lineage = _lineage(bodies, links, table)
    evidence = Evidence(run_directory.stacks, run_directory.crashes)
    crew = Crew(table, scoreboard, bodies.lineage, wires, settings, clock, evidence)
    notifier = Notifier.from_environment(read_environment(), clock)
    herald = Herald(notifier, table, scoreboard, settings.summary_interval, clock)
    about = _about(settings, links, listener)
    vigil = Vigil(table, scoreboard, settings.sleep_duration)
    return Master(crew, vigil, scoreboard, wires, run_directory, herald, clock, about, resettings)


def _scoreboard(settings: Settings, clock: Clock) -> Scoreboard:
    scoreboard = Scoreboard(MAX_WORKERS + SERVICE_SLOTS)
    header = scoreboard.header
    header.started_at, header.heartbeat = clock.now(), clock.monotonic()
    header.wanted_workers = settings.workers
    count_lines_in(header.log_lines)
    header.last_reload_ok, header.last_reload_at = 1, header.started_at
    return scoreboard


def _links(
    scoreboard: Scoreboard,
    run_directory: RunDirectory,
    listener: socket.socket | None,
    wires: Wires,
) -> Links:
    """Return what every child is born with, and which descriptors each role keeps besides."""
    return Links(
        scoreboard=scoreboard,
        pool=run_directory.identity,
        instance=secrets.token_hex(8),
        lifeline=wires.lifeline.reader,
        doorbell=wires.doorbell.writer,
        kept={
            Role.WORKER: (),
            Role.TEMPLATE: (),
            Role.WATCHER: (),
            Role.KEEPER: (wires.keeper_bell.reader,),
            Role.WEB: (listener.fileno(),) if listener is not None else (),
        },
        stacks=run_directory.stacks,
    )


def _lineage(bodies: Bodies, links: Links, table: SlotTable) -> Lineage:
    """Return who forks the workers; only the first of the templates is wanted before a reload."""
    lineage = Lineage(DirectSpawner(bodies.by_role(), links), table.of_role(Role.TEMPLATE))
    for spare in lineage.templates[1:]:
        spare.retires()
    if lineage.templates:
        adopt_grandchildren()
    return lineage


def _about(settings: Settings, links: Links, listener: socket.socket | None) -> dict[str, Any]:
    """Return what `status` says of the pool and never changes."""
    return {
        "version": __version__,
        "name": settings.name,
        "identity": links.pool,
        "instance": links.instance,
        "app": settings.app,
        "broker": settings.broker_url,
        "queues": list(settings.queues),
        "http": _address(listener) if listener is not None else None,
        "max_workers": MAX_WORKERS,
    }


def _services(settings: Settings, listener: socket.socket | None) -> tuple[Role, ...]:
    """Return the services in the order of their rows; templates need two places, for reloads."""
    web = (Role.WEB,) if listener is not None else ()
    templates = (Role.TEMPLATE, Role.TEMPLATE) if settings.preload and can_preload() else ()
    watcher = (Role.WATCHER,) if settings.watch else ()
    return (Role.KEEPER, *web, *templates, *watcher)


def _listener(loaded: Loaded) -> socket.socket | None:
    address = loaded.settings.http_address
    if address is None:
        return None
    host, port = address
    return bind(host, port, ports_tried=1 if loaded.is_given("http") else PORTS_TRIED)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _announce(loaded: Loaded, listener: socket.socket | None) -> None:
    settings = loaded.settings
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    if (settings.max_memory or settings.max_memory_hard) and private_memory() is None:
        logger.warning(
            "max-memory: this system does not tell which memory is a process's own, so no limit "
            "of it is kept"
        )
    logger.info(
        "pulpo-pool %s starts %d workers of %s on %s, queues %s%s",
        __version__,
        settings.workers,
        settings.app or "the sample handlers",
        settings.broker_url,
        ", ".join(settings.queues),
        f"; metrics on http://{_address(listener)}/metrics" if listener is not None else "",
    )
    if settings.app is None:
        names: Any = sorted(handler.request_type for handler in sample_pulpo(settings).registry)
        logger.info(
            "no app is named, so the sample handlers run: %s. Try `pulpo-pool publish echo "
            "--payload hello`; name your own app with `pulpo-pool -w %d MODULE:NAME`",
            ", ".join(names),
            settings.workers,
        )
