"""The Procfile under honcho, which signals whole process groups and names what it starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from manifests import ROOT
from pool import PATIENCE, PoolProcess, eventually
from shops import SHOP

from pulpo_pool.cli.compose import _listener
from pulpo_pool.errors import AlreadyRunning
from pulpo_pool.master.listener import PORTS_TRIED
from pulpo_pool.queues.adapter import QueueStats
from pulpo_pool.queues.opening import file_url
from pulpo_pool.settings import load_settings

HINTS = ("PULPO_POOL", "WEB_CONCURRENCY", "PORT", "PS", "DYNO", "HONCHO")


class Honcho(PoolProcess):
    """`honcho start` with our Procfile in a folder with an app."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.log_path = folder, folder / "honcho.log"
        self.broker = file_url(str(folder / ".pulpo" / "queue.db"))
        (folder / "shop.py").write_text(SHOP)
        (folder / "pulpo-pool.toml").write_text('app = "shop:pulpo"\nworkers = 2\n')
        (folder / "Procfile").write_text((ROOT / "Procfile").read_text())
        clean = {k: v for k, v in os.environ.items() if not k.startswith(HINTS)}
        path = f"{Path(sys.executable).parent}:{clean['PATH']}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "honcho", "start", *arguments],
                cwd=folder,
                env=clean | {"PATH": path, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def members(self) -> list[int]:
        """Return honcho and all below it, which are groups and sessions of their own."""
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.pid).children(recursive=True)
            return [self.pid, *(child.pid for child in below)]
        return []

    def pool(self, name: str) -> Started:
        return Started(self, name).ready()


class Started(PoolProcess):
    """A pool that honcho has started."""

    def __init__(self, honcho: Honcho, name: str) -> None:
        self.folder, self.log_path, self.process = honcho.folder, honcho.log_path, honcho.process
        self.broker = honcho.broker
        self.run_directory = honcho.folder / ".pulpo" / "run" / name

    def try_status(self):
        """Return nothing while it is not there yet, too."""
        with suppress(FileNotFoundError):
            return super().try_status()
        return None

    def is_draining(self) -> bool:
        return self.status()["master"]["state"] == "draining"


def numbered(count, *, first=0):
    return [{"n": n} for n in range(first, first + count)]


def test_term_lets_it_finish_what_it_holds_and_loses_nothing(tmp_path):
    with Honcho(tmp_path) as honcho:
        pool = honcho.pool("worker.1")
        pool.publish("note", numbered(20))
        eventually(lambda: pool.numbers("done") == list(range(20)), what="the jobs are done")
        pool.publish("hold", numbered(2, first=20))
        eventually(lambda: len(pool.lines("started")) == 2, what="both workers have a job")
        pool.publish("note", numbered(5, first=22))
        health = pool.http("/healthz")
        honcho.signal(signal.SIGTERM)
        eventually(pool.is_draining, what="the pool drains")
        pool.let_go()
        honcho.wait(PATIENCE)
        log, stats = honcho.log, pool.stats()

    assert health == (200, "ok\n")
    assert "worker.1 stopped (rc=0)" in log
    assert pool.numbers("done") == list(range(22))
    assert stats == QueueStats(ready=5)


def test_a_platforms_port_that_is_taken_is_no_reason_to_stay_away(tmp_path):
    """macOS has a service of its own on honcho's 5000. A port that was chosen is another matter."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {"PORT": str(port)}
        with _listener(load_settings({}, directory=tmp_path, environ=environ)) as listener:
            found = listener.getsockname()[1]
        chosen = load_settings({"http": f"127.0.0.1:{port}"}, directory=tmp_path, environ=environ)
        with pytest.raises(AlreadyRunning):
            _listener(chosen)

    assert port < found <= port + PORTS_TRIED


def test_two_of_them_work_on_one_machine(tmp_path):
    """Each under its name and on its port, on one queue."""
    with Honcho(tmp_path, "-c", "worker=2") as honcho:
        pools = [honcho.pool("worker.1"), honcho.pool("worker.2")]
        addresses = {pool.status()["master"]["http"] for pool in pools}
        pools[0].publish("hold", numbered(4))
        eventually(lambda: len(honcho.lines("started")) == 4, what="all four workers have a job")
        busy = [pool.workers_in("busy") for pool in pools]
        honcho.signal(signal.SIGTERM)
        eventually(lambda: all(pool.is_draining() for pool in pools), what="both drain")
        honcho.let_go()
        honcho.wait(PATIENCE)
        stats = honcho.stats()

    assert len(addresses) == 2
    assert busy == [[0, 1], [0, 1]]
    assert honcho.numbers("done") == [0, 1, 2, 3]
    assert stats == QueueStats()
