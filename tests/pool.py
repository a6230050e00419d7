"""A real pool for tests: the installed program in a folder of its own, ended by its pid."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from pulpo_pool.clock import SystemClock
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.opening import file_url, open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pulpo_pool.queues.adapter import QueueAdapter, QueueStats

PATIENCE = 30.0  # seconds a condition may take on a busy machine before a test fails


def eventually(condition: Callable[[], Any], within: float = PATIENCE, what: str = "") -> Any:
    """Return the condition's first true value; fail with what it last said."""
    deadline = time.monotonic() + within
    value = None
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what or condition} did not come true in {within} s: {value!r}")


class PoolProcess:
    """`pulpo-pool run` as a child process; all its files lie in `folder`."""

    def __init__(self, folder: Path, *arguments: str, app: str | None = None, **env: str) -> None:
        self.folder = folder
        if app is not None:
            (folder / "shop.py").write_text(textwrap.dedent(app))
            arguments = (*arguments, "shop:pulpo")
        self.log_path = folder / "pool.log"
        command = [sys.executable, "-m", "pulpo_pool", "run", "--http", "127.0.0.1:0", *arguments]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PULPO_POOL")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=clean | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nobody behind, however the test went."""
        members = self._family()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _family(self) -> list[int]:
        import psutil

        try:
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        except psutil.Error:
            return []

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another pulpo-pool command in the same folder."""
        return subprocess.run(
            [sys.executable, "-m", "pulpo_pool", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """Ask over the control socket, without the price of starting a program."""
        import socket

        from pulpo_pool.master.rundir import socket_path

        path = socket_path(self.folder / ".pulpo" / "run" / "default" / "control.sock")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(b'{"command": "status"}\n')
            return json.loads(connection.makefile("rb").readline())

    def try_status(self) -> dict[str, Any] | None:
        try:
            return self.status()
        except (OSError, ValueError):
            assert self.process.poll() is None, f"the pool ended:\n{self.log}"
            return None

    def ready(self, workers: int | None = None) -> PoolProcess:
        """Wait until every worker, or this many, is up."""

        def up() -> bool:
            status = self.try_status()
            if status is None:
                return False
            wanted = workers or status["master"]["workers_wanted"]
            alive = [w for w in status["workers"] if w["state"] in ("idle", "busy")]
            return len(alive) >= wanted

        eventually(up, what="all workers are up")
        return self

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]

    def http(self, path: str) -> tuple[int, str]:
        address = self.status()["master"]["http"]
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, series: str) -> float:
        """Return a sample, named as in the exposition; 0 if there is none."""
        _, text = self.http("/metrics")
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def queue(self) -> QueueAdapter:
        return open_queue(file_url(str(self.folder / ".pulpo" / "queue.db")))

    def publish(self, request_type: str, bodies: Iterable[dict[str, Any]], **header: Any) -> None:
        with self.queue() as queue:
            messages = [Message(request_type=request_type, body=b, **header) for b in bodies]
            Publisher(queue, SystemClock()).publish_many(messages)

    def stats(self) -> QueueStats:
        from pulpo_pool.queues.adapter import QueueStats

        with self.queue() as queue:
            return sum(queue.stats().values(), QueueStats())

    def empty(self) -> bool:
        stats = self.stats()
        return stats.ready == stats.delayed == stats.reserved == 0

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, within: float = PATIENCE) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pool did not end in {within} s:\n{self.log}") from None
