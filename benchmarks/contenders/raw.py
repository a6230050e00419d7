"""The loops that people write by hand: what each engine can do at most, without any promise."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.beanstalkd import Beanstalkd, put_all
from benchmarks.contenders.loops import SQLITE_SCHEMA
from benchmarks.harness import Contender, body_of

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    def prepare(self, jobs: int) -> None:
        put_all(self._server, (json.dumps(body_of(n)).encode() for n in range(jobs)))

    def arguments(self) -> list[str]:
        return [self._server.host, str(self._server.port)]

    def servers(self) -> Sequence[int]:
        return [self._server.process.pid]

    def close(self) -> None:
        super().close()
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

    def prepare(self, jobs: int) -> None:
        with sqlite3.connect(self._path) as database:
            database.executescript(SQLITE_SCHEMA)
            database.executemany(
                "INSERT INTO jobs (state, body) VALUES (0, ?)",
                ((json.dumps(body_of(n)),) for n in range(jobs)),
            )
        database.close()

    def arguments(self) -> list[str]:
        return [str(self._path)]
