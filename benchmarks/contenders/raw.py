"""The loops that people write by hand: what each engine can do at most, without any promise."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import greenstalk

from benchmarks.contenders.beanstalkd import Beanstalkd, put_all
from benchmarks.contenders.loops import SQLITE_SCHEMA
from benchmarks.harness import Contender, body_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INSERT = "INSERT INTO jobs (state, body) VALUES (0, ?)"
PUT_SHOP = """
import json

import greenstalk

client = greenstalk.Client(("{host}", {port}))


def publish(**body):
    client.put(json.dumps(body))
"""
INSERT_SHOP = """
import json
import sqlite3

database = sqlite3.connect("{path}", timeout=60, isolation_level=None)
database.execute("PRAGMA synchronous=NORMAL")


def publish(**body):
    database.execute("{insert}", (json.dumps(body),))
"""


class RawLoop(Contender):
    """Processes that each run one of the functions in `loops.py`."""

    loop: ClassVar[str]

    def __init__(self, processes: int) -> None:
        super().__init__()
        self.processes = processes
        self.name = f"{self.loop}, {processes}"
        self._running: list[subprocess.Popen[bytes]] = []

    def arguments(self) -> list[str]:
        """What the loop's function is called with."""
        raise NotImplementedError

    def start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("loops.py")), self.loop]
        self._running = [
            subprocess.Popen([*command, str(self.done), *self.arguments()])
            for _ in range(self.processes)
        ]  # fmt: skip

    def producer(self) -> tuple[str, Mapping[str, str]]:
        return sys.executable, os.environ

    def workers(self) -> Sequence[int]:
        return [process.pid for process in self._running]

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self._running = []


class OnBeanstalkd(RawLoop):
    """A loop on a beanstalkd of its own."""

    def __init__(self, processes: int) -> None:
        super().__init__(processes)
        self.baseline = f"raw-greenstalk, {processes}"

    def open(self) -> None:
        self._server = Beanstalkd().start()
        self._client = greenstalk.Client((self._server.host, self._server.port))
        shop = PUT_SHOP.format(host=self._server.host, port=self._server.port)
        (self.folder / "shop.py").write_text(shop)

    def prepare(self, jobs: int) -> None:
        put_all(self._server, (json.dumps(body_of(n)).encode() for n in range(jobs)))

    def arguments(self) -> list[str]:
        return [self._server.host, str(self._server.port)]

    def send(self, number: int) -> int:
        body = json.dumps(body_of(number))
        began = time.monotonic_ns()
        self._client.put(body)
        return began

    def servers(self) -> Sequence[int]:
        return [self._server.process.pid]

    def close(self) -> None:
        super().close()
        self._client.close()
        self._server.kill()


class RawGreenstalk(OnBeanstalkd):
    """reserve, handle, delete: two round trips."""

    loop = "raw-greenstalk"


class RawPipelined(OnBeanstalkd):
    """delete and the next reserve in one write, on a bare socket."""

    loop = "raw-pipelined"


class RawSqlite(RawLoop):
    """Acknowledge and claim in one transaction; WAL, synchronous=NORMAL."""

    loop = "raw-sqlite"

    def __init__(self, processes: int) -> None:
        super().__init__(processes)
        self.baseline = self.name

    def open(self) -> None:
        self._path = self.folder / "raw.db"
        shop = INSERT_SHOP.format(path=self._path, insert=INSERT)
        (self.folder / "shop.py").write_text(shop)
        self._database = sqlite3.connect(self._path, timeout=60)
        self._database.executescript(SQLITE_SCHEMA)

    def prepare(self, jobs: int) -> None:
        with self._database as database:
            database.executemany(INSERT, ((json.dumps(body_of(n)),) for n in range(jobs)))

    def send(self, number: int) -> int:
        body = json.dumps(body_of(number))
        began = time.monotonic_ns()
        with self._database as database:
            database.execute(INSERT, (body,))
        return began

    def close(self) -> None:
        super().close()
        self._database.close()

    def arguments(self) -> list[str]:
        return [str(self._path)]
