"""pulpo-pool as its users run it: metrics, leases, heartbeats and titles on, log level info."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.contenders.beanstalkd import Beanstalkd
from benchmarks.harness import LOOK, PATIENCE, Contender, body_of
from pulpo_pool.clock import SystemClock
from pulpo_pool.master.rundir import socket_path
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.opening import file_url, open_queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pulpo_pool.queues.adapter import QueueAdapter

APP = """
import os
import time

from pulpo_pool import Pulpo

pulpo = Pulpo()
out = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@pulpo.job()
def mark(n: int, to: str, subject: str) -> None:
    os.write(out, b"%020d\\n" % (time.monotonic_ns() - n))


publish = mark.publish
"""
_BATCH = 1_000
_TOLD = 100_000  # jobs between two words about a long backlog


def _messages(numbers: Iterable[int]) -> list[Message]:
    return [Message(request_type="mark", body=body_of(number)) for number in numbers]


class Pool:
    """`pulpo-pool -w N` in a folder of its own."""

    def __init__(self, folder: Path, workers: int, broker: str) -> None:
        self.folder = folder
        self.workers = workers
        self.broker = broker
        (folder / "shop.py").write_text(APP)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "pulpo_pool", "-w", str(self.workers), "--broker",
                   self.broker, "--http", "127.0.0.1:0", "shop:pulpo"]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stderr=log)

    def status(self) -> dict[str, Any]:
        """Ask over the control socket; nothing while it is not up."""
        path = socket_path(self.folder / ".pulpo" / "run" / "default" / "control.sock")
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
                connection.sendall(b'{"command": "status"}\n')
                answer: dict[str, Any] = json.loads(connection.makefile("rb").readline())
            except OSError:
                return {"workers": []}
        return answer

    def up(self) -> dict[int, int]:
        """Return the pids of the workers that work, by slot."""
        workers = self.status()["workers"]
        return {w["slot"]: w["pid"] for w in workers if w["state"] in ("idle", "busy")}

    def publish(self, jobs: int) -> None:
        with open_queue(self.broker) as queue:
            publisher = Publisher(queue, SystemClock())
            for first in range(0, jobs, _BATCH):
                publisher.publish_many(_messages(range(first, min(first + _BATCH, jobs))))
                if first and first % _TOLD == 0:
                    print(f"{first:,} of {jobs:,} jobs are published", file=sys.stderr)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()


class PulpoContender(Contender):
    """A pool on some engine."""

    engine: str

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.count = workers
        self.name = f"pulpo-pool on {self.engine}, {workers}"
        self.pool: Pool | None = None
        self._queue: QueueAdapter | None = None
        self._publisher: Publisher | None = None

    def prepare(self, jobs: int) -> None:
        assert self.pool is not None
        self.pool.publish(jobs)

    def _opened(self) -> Publisher:
        assert self.pool is not None
        if self._publisher is None:
            self._queue = open_queue(self.pool.broker)
            self._publisher = Publisher(self._queue, SystemClock())
        return self._publisher

    def send_many(self, numbers: Iterable[int]) -> None:
        """Publish some jobs in one call, by the connection that `send` uses."""
        self._opened().publish_many(_messages(numbers))

    def send(self, number: int) -> int:
        publisher = self._opened()
        message = Message(request_type="mark", body=body_of(number))
        began = time.monotonic_ns()
        publisher.publish(message)
        return began

    def producer(self) -> tuple[str, Mapping[str, str]]:
        assert self.pool is not None
        return sys.executable, {**os.environ, "PULPO_POOL_BROKER": self.pool.broker}

    def start(self) -> None:
        assert self.pool is not None
        self.pool.start()

    def workers(self) -> Sequence[int]:
        """Wait for all of them: the CPU of one that comes up late would not be counted."""
        assert self.pool is not None
        deadline = time.monotonic() + PATIENCE
        while len(up := self.pool.up()) < self.count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {len(up)} workers are up")
            time.sleep(LOOK)
        return list(up.values())

    def close(self) -> None:
        if self._queue is not None:
            self._queue.close()
            self._queue = self._publisher = None
        if self.pool is not None:
            self.pool.stop()
            self.pool = None


class PulpoOnBeanstalkd(PulpoContender):
    """`--broker beanstalkd://`."""

    engine = "beanstalkd"

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.baseline = f"raw-greenstalk, {workers}"

    def open(self) -> None:
        self._server = Beanstalkd().start()
        self.pool = Pool(self.folder, self.count, self._server.url)

    def servers(self) -> Sequence[int]:
        return [self._server.process.pid]

    def close(self) -> None:
        super().close()
        self._server.kill()


class PulpoOnFile(PulpoContender):
    """The embedded queue."""

    engine = "file"

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.baseline = f"raw-sqlite, {workers}"

    def open(self) -> None:
        (self.folder / ".pulpo").mkdir(mode=0o700)
        broker = file_url(str(self.folder / ".pulpo" / "queue.db"))
        self.pool = Pool(self.folder, self.count, broker)


def family(contender: PulpoContender) -> list[int]:
    """Return the pids of the pool's master and of all below it."""
    assert contender.pool is not None
    assert contender.pool.process is not None
    master = psutil.Process(contender.pool.process.pid)
    return [master.pid, *(child.pid for child in master.children(recursive=True))]
