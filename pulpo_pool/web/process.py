"""The web process: a small HTTP server that clients cannot keep for themselves."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from waitress import create_server
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from pulpo_pool.clock import SystemClock
from pulpo_pool.log import count_lines_in, set_up_logging
from pulpo_pool.service import Service
from pulpo_pool.web.app import build_app, only_local_names
from pulpo_pool.web.collector import ScoreboardCollector
from pulpo_pool.web.file_collector import FileCollector
from pulpo_pool.web.slots import MemoryLooks, SlotCollector

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path
    from wsgiref.types import WSGIApplication

    from pulpo_pool.clock import Clock
    from pulpo_pool.seat import Seat
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

LONGEST_CONNECTION: Final = 5.0  # seconds; a client that sends or reads slower is cut off
BEAT: Final = 1.0  # seconds between looks at slow clients and at workers' memory
# Seconds between two beats while nobody is connected and nobody scrapes: an order whose signal was
# lost is still seen before the master's patience with a service (5 s) ends.
REST: Final = 4.0
_LAST_REQUESTS: Final = 1  # seconds that requests in progress have when the process leaves
_LIMITS: Final = {
    "threads": 4,
    "connection_limit": 128,
    "channel_timeout": 5,
    "cleanup_interval": 1,
    "max_request_header_size": 8_192,
    "max_request_body_size": 1_024,
    "backlog": 64,
    "asyncore_use_poll": True,
    "asyncore_loop_timeout": 60,  # its own beat; ours wakes it while clients are there
    "log_socket_errors": False,
    "ident": None,
}


def run_web(
    seat: Seat,
    *,
    listener: socket.socket,
    settings: Settings,
    metrics_directory: Path,
    clock: Clock | None = None,
) -> int:
    """Serve metrics and health until told to leave; return the exit status."""
    clock = clock or SystemClock()
    set_up_logging("web", level=settings.log_level, log_format=settings.log_format)
    count_lines_in(seat.work.log_lines)
    logging.getLogger("waitress").setLevel(logging.CRITICAL)  # clients shall not fill the log
    service = Service(seat, clock)
    looks = MemoryLooks(seat.scoreboard, clock)
    broker = settings.broker_url.partition(":")[0]
    app = build_app(
        seat.scoreboard,
        (
            ScoreboardCollector(seat.scoreboard, settings.queues, clock, broker),
            SlotCollector(seat.scoreboard, looks, clock),
        ),
        FileCollector(metrics_directory, seat.scoreboard, clock),
        clock,
    )
    app = only_local_names(app) if _is_loopback(listener) else app
    server = _Server(app, listener, service.wake)
    server.start()
    service.report_ready()
    while not service.leaving and server.is_running:
        looks.look()
        service.wait(BEAT if server.has_clients or looks.are_wanted else REST)
        if server.has_clients:
            server.cut_off_slow_clients()
    if not service.leaving:
        logger.error("the HTTP server stopped by itself; its master starts another")
        return 1
    server.stop()
    service.report_leaving()
    return 0


class _WordlessError(ErrorTask):  # type: ignore[misc]
    """Answers a request that is no HTTP without repeating any of it."""

    def execute(self) -> None:
        self.request.error.body = "This is no request that can be answered."
        super().execute()


class _Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = _WordlessError

    def __init__(self, server: Any, *rest: Any, **named: Any) -> None:
        super().__init__(server, *rest, **named)
        server.wake()


class _Server:
    """waitress in a thread of its own, so that the main thread can wait for the master."""

    def __init__(
        self, app: WSGIApplication, listener: socket.socket, wake: Callable[[], None]
    ) -> None:
        """`wake` is called, in the server's own thread, for each client that connects."""
        self._wake = wake
        self.is_running = True
        limits: dict[str, Any] = {**_LIMITS, "sockets": [listener]}
        self._server = create_server(app, **limits)
        self._server.channel_class = _Channel
        self._server.wake = wake
        self._thread = threading.Thread(target=self._run, name="pulpo-http", daemon=True)

    @property
    def has_clients(self) -> bool:
        return bool(self._server.active_channels)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests in progress."""
        self._server.task_dispatcher.shutdown(timeout=_LAST_REQUESTS)

    def cut_off_slow_clients(self) -> None:
        """Close connections that are old and not being answered.

        waitress forgives a client that sends a byte now and then, or never reads its answer;
        128 of those would lock everybody else out.
        """
        self._server.trigger.pull_trigger(self._cut_off)

    def _cut_off(self) -> None:
        """Runs in the server's own thread."""
        oldest = time.time() - LONGEST_CONNECTION  # waitress stamps with this clock
        for channel in list(self._server.active_channels.values()):
            if not channel.requests and channel.creation_time < oldest:
                channel.handle_close()

    def _run(self) -> None:
        try:
            self._server.run()
        except Exception:
            logger.exception("the HTTP server failed")
        self.is_running = False
        self._wake()


def _is_loopback(listener: socket.socket) -> bool:
    host = listener.getsockname()[0]
    return isinstance(host, str) and ipaddress.ip_address(host.partition("%")[0]).is_loopback
