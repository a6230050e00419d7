"""A service manager hears from the master, and from nobody else, how the pool is."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time

import pytest
from pool import PATIENCE, PoolProcess, eventually
from shops import SHOP

from pulpo_pool.clock import ManualClock
from pulpo_pool.master.notify import Notifier
from pulpo_pool.states import PoolState

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


class Manager:
    """The manager's end: a datagram socket that knows who sent what."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[tuple[int, str]] = []  # the sender's pid, and a line
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        self._socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def listen(self) -> list[str]:
        """Return every line that was ever sent."""
        while True:
            try:
                text, extra, _, _ = self._socket.recvmsg(4_096, 1_024)
            except BlockingIOError:
                return [line for _, line in self.heard]
            pid, _, _ = _CREDENTIALS.unpack(extra[0][2])
            self.heard += [(pid, line) for line in text.decode().splitlines()]

    def hears(self, line: str, times: int = 1, within: float = PATIENCE) -> list[str]:
        """Wait until this was said so often; return all that was said."""
        eventually(lambda: self.listen().count(line) >= times, within, f"{line} x {times}")
        return self.listen()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    abstract = f"@pulpo-pool-test-{os.getpid()}-{time.monotonic_ns()}"
    address = str(tmp_path / "notify") if request.param == "path" else abstract
    with Manager(address) as manager:
        yield manager


def told(lines: list[str]) -> list[str]:
    """Return what was said of the pool's life, in order."""
    return [line for line in lines if line in ("READY=1", "RELOADING=1", "STOPPING=1")]


def test_the_life_of_a_pool_as_its_manager_hears_it(manager, tmp_path):
    with PoolProcess(tmp_path, "-w", "2", app=SHOP, NOTIFY_SOCKET=manager.address) as pool:
        manager.hears("READY=1")
        pool.ready()
        manager.hears("STATUS=2 workers, 0 busy; running")
        pool.publish("hold", [{"n": 1}])
        manager.hears("STATUS=2 workers, 1 busy; running")
        before = time.monotonic()
        pool.ask("reload")
        said = manager.hears("RELOADING=1")
        stamp = next(line for line in said if line.startswith("MONOTONIC_USEC="))
        pool.let_go()
        manager.hears("READY=1", times=2)
        after = time.monotonic()
        pool.signal(signal.SIGTERM)
        code = pool.wait()
        said = manager.listen()
        speakers = {pid for pid, _ in manager.heard}

    assert code == 0
    assert told(said) == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert before <= int(stamp.partition("=")[2]) / 1e6 <= after
    assert speakers == {pool.pid}


def test_a_failed_reload_ends_with_ready_too(manager, tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=SHOP, NOTIFY_SOCKET=manager.address) as pool:
        pool.ready()
        (tmp_path / "shop.py").write_text("raise OSError\n")
        pool.command("reload")
        said = manager.hears("READY=1", times=2)

    assert told(said) == ["READY=1", "RELOADING=1", "READY=1"]


def test_a_pool_that_never_had_a_worker_is_never_ready(manager, tmp_path):
    broken = "raise OSError"
    with PoolProcess(tmp_path, "-w", "1", app=broken, NOTIFY_SOCKET=manager.address) as pool:
        code = pool.wait()
        said = manager.listen()

    assert code == 3
    assert "READY=1" not in said


def test_a_drain_asks_for_time_until_its_last_job_is_done(manager, tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=SHOP, NOTIFY_SOCKET=manager.address) as pool:
        pool.ready()
        pool.publish("hold", [{"n": 1}])
        eventually(lambda: pool.lines("started"), what="the job runs")
        pool.signal(signal.SIGTERM)
        said = manager.hears("EXTEND_TIMEOUT_USEC=15000000", times=3)
        pool.let_go()
        code = pool.wait()

    assert code == 0
    assert said.index("STOPPING=1") < said.index("EXTEND_TIMEOUT_USEC=15000000")
    assert "STATUS=1 worker, 1 busy; draining" in said


def test_the_watchdog_is_fed_by_an_idle_loop(manager, tmp_path):
    """By itself the loop would sleep for two seconds each time, 40 in all."""
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    with PoolProcess(tmp_path, "-w", "1", app=SHOP, **env) as pool:
        pool.ready()
        fed = manager.hears("WATCHDOG=1").count("WATCHDOG=1")

        manager.hears("WATCHDOG=1", times=fed + 20, within=20)


def test_handlers_do_not_find_the_managers_socket(manager, tmp_path):
    app = """
        import os
        from pathlib import Path
        from pulpo_pool import Pulpo
        pulpo = Pulpo()
        @pulpo.job()
        def look():
            Path("found").write_text(str("NOTIFY_SOCKET" in os.environ))
    """
    with PoolProcess(tmp_path, "-w", "1", app=app, NOTIFY_SOCKET=manager.address) as pool:
        pool.ready()
        pool.publish("look", [{}])
        eventually(pool.empty, what="the job is done")

    assert (tmp_path / "found").read_text() == "False"


def test_a_manager_that_is_gone_harms_nobody(tmp_path):
    nobody = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "50000"}
    with PoolProcess(tmp_path, "-w", "1", app=SHOP, **nobody) as pool:
        pool.ready()
        pool.publish("note", [{"n": 1}])
        eventually(pool.empty, what="the job is done")
        pool.signal(signal.SIGTERM)

        assert pool.wait() == 0


class TestNotifier:
    @pytest.mark.parametrize(
        ("environ", "patience"),
        [
            ({"WATCHDOG_USEC": "3000000"}, 1.5),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, float("inf")),
            ({"WATCHDOG_USEC": "soon"}, float("inf")),
            ({"WATCHDOG_USEC": "0"}, float("inf")),
            ({}, float("inf")),
        ],
    )
    def test_the_watchdog_is_ours_or_nobodys(self, manager, environ, patience):
        notifier = Notifier.from_environment(
            environ | {"NOTIFY_SOCKET": manager.address}, ManualClock()
        )
        notifier.look(PoolState.STARTING, reloading=False)

        assert notifier.patience() == patience
        assert manager.listen() == ["WATCHDOG=1"] * (patience < 2)

    @pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234", "@" + "x" * 200])
    def test_an_address_that_is_none_is_left_alone(self, address):
        notifier = Notifier(address, 1.0, ManualClock())
        notifier.look(PoolState.RUNNING, reloading=False)
        notifier.describe("here")

    def test_the_status_changes_at_most_once_a_second(self, manager):
        clock = ManualClock()
        notifier = Notifier(manager.address, None, clock)
        notifier.look(PoolState.RUNNING, reloading=False)
        wanted = []
        for n in range(5):
            wanted.append(notifier.wants_status)
            if wanted[-1]:
                notifier.describe(f"{n // 4}")
            clock.advance(0.5)

        assert wanted == [True, False, True, False, True]
        assert [line for line in manager.listen() if re.match("STATUS", line)] == [
            "STATUS=0",
            "STATUS=1",
        ]
