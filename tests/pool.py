"""A real pool for tests: the installed program in a folder of its own, ended by its pid."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import psutil
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from pulpo_pool.clock import SystemClock
from pulpo_pool.master.rundir import socket_path
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import JobState, QueueStats
from pulpo_pool.queues.opening import file_url, open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from prometheus_client import Metric

    from pulpo_pool.queues.adapter import JobRecord, QueueAdapter

PATIENCE = 30.0  # seconds a condition may take on a busy machine before a test fails
INTERRUPTIBLE = [  # also where the tests themselves run in the background of a shell
    sys.executable,
    "-c",
    (
        "import signal as s; s.signal(s.SIGINT, s.default_int_handler)\n"
        "from pulpo_pool.cli.entry import main; main()"
    ),
]


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
    """`pulpo-pool run` as a child process; all its files lie in `folder`.

    `prefix` is a program, with its arguments, that runs it; `broker` is the queue's URL, unless
    it is the file below the folder.
    """

    broker: str | None = None

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        app: str | None = None,
        http: str | None = "127.0.0.1:0",
        prefix: tuple[str, ...] = (),
        broker: str | None = None,
        **env: str,
    ) -> None:
        self.folder = folder
        self.broker = broker
        if broker is not None:
            arguments = ("--broker", broker, *arguments)
        if app is not None:
            (folder / "shop.py").write_text(textwrap.dedent(app))
            arguments = (*arguments, "shop:pulpo")
        name = "default"
        if "--name" in arguments:
            name = arguments[arguments.index("--name") + 1]
        self.run_directory = folder / ".pulpo" / "run" / name
        self.log_path = folder / f"{name}.log"
        listening = [] if http is None else ["--http", http]
        command = [*prefix, sys.executable, "-m", "pulpo_pool", "run", *listening, *arguments]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PULPO_POOL")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                # A test changes an app within the second that compiled files are dated by.
                env=clean | {"PYTHONDONTWRITEBYTECODE": "1"} | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nobody behind, however the test went."""
        self.kill_all()
        self.process.wait()

    def members(self) -> list[int]:
        """Return the pids of all that live of the pool, its master first, orphans included."""
        found = []
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
                if os.getsid(pid) == self.pid and not zombie:
                    found.append(pid)
        return sorted(found, key=lambda pid: pid != self.pid)

    def kill_all(self) -> None:
        """Kill -9 the master first, then all others, before any of them can react."""
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

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

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start another pulpo-pool command in the same folder, and let it run."""
        return subprocess.Popen(
            [sys.executable, "-m", "pulpo_pool", *arguments],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, command: str, argument: str = "") -> dict[str, Any]:
        """Ask over the control socket, without the price of starting a program."""
        path = socket_path(self.run_directory / "control.sock")
        request = {"command": command, "argument": argument}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(connection.makefile("rb").readline())

    def status(self) -> dict[str, Any]:
        return self.ask("status")

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

    def workers_in(self, state: str) -> list[int]:
        """Return the slots whose worker is in this state."""
        return [w["slot"] for w in self.status()["workers"] if w["state"] == state]

    def pid_of(self, slot: int | str) -> int | None:
        """Return who sits in a worker's slot, or in a service's: "keeper", "web"."""
        status = self.status()
        if isinstance(slot, int):
            return next((w["pid"] for w in status["workers"] if w["slot"] == slot), None)
        return next((s["pid"] for s in status["services"] if s["role"] == slot), None)

    def replaced(self, slot: int | str, old: int) -> int:
        """Wait until a successor is up in this slot; return its pid."""

        def successor() -> int | None:
            status = self.status()
            for seat in (*status["workers"], *status["services"]):
                here = slot in (seat.get("slot"), seat.get("role"))
                if here and seat["state"] in ("idle", "busy", "up") and seat["pid"] != old:
                    return seat["pid"]
            return None

        return eventually(successor, what=f"a successor of pid {old} in {slot}")

    def titles(self) -> list[str]:
        """Return the workers' titles in `ps`, each without the pool's part."""
        titles = []
        for pid in self.worker_pids():
            with suppress(psutil.Error, IndexError):
                titles.append(psutil.Process(pid).cmdline()[0].partition(": ")[2])
        return titles

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

    def counted(self, name: str, **labels: str) -> float:
        """Return the sum of all samples with this name and these labels among theirs."""
        return _sum(text_string_to_metric_families(self.http("/metrics")[1]), name, labels)

    def counted_in_files(self, name: str, **labels: str) -> float:
        """Return what `counted` does, of a pool that has ended."""
        files = [str(path) for path in (self.run_directory / "metrics").glob("*.db")]
        return _sum(MultiProcessCollector.merge(files), name, labels)

    def queue(self) -> QueueAdapter:
        return open_queue(self.broker) if self.broker else queue_in(self.folder)

    def publish(self, request_type: str, bodies: Iterable[dict[str, Any]], **header: Any) -> None:
        with self.queue() as queue:
            publish_to(queue, request_type, bodies, **header)

    def stats(self) -> QueueStats:
        with self.queue() as queue:
            return sum(queue.stats().values(), QueueStats())

    def jobs(self, state: JobState) -> list[JobRecord]:
        with self.queue() as queue:
            return list(queue.list_jobs(state))

    def lines(self, file: str) -> list[list[str]]:
        """Return what handlers appended to a file in the folder, split into words."""
        try:
            return [line.split() for line in (self.folder / file).read_text().splitlines()]
        except FileNotFoundError:
            return []

    def numbers(self, file: str) -> list[int]:
        """Return the first word of each line, in order."""
        return sorted(int(words[0]) for words in self.lines(file))

    def let_go(self) -> None:
        """End the wait of every `hold` job."""
        (self.folder / "go").touch()

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


def queue_in(folder: Path) -> QueueAdapter:
    """Open the queue that a pool in this folder works on."""
    return open_queue(file_url(str(folder / ".pulpo" / "queue.db")))


def publish(
    folder: Path, request_type: str, bodies: Iterable[dict[str, Any]], **header: Any
) -> None:
    """Publish a job for each body, whether or not there is a pool yet."""
    with queue_in(folder) as queue:
        publish_to(queue, request_type, bodies, **header)


def publish_to(
    queue: QueueAdapter, request_type: str, bodies: Iterable[dict[str, Any]], /, **header: Any
) -> None:
    """Publish a job for each body to an open queue."""
    messages = [Message(request_type=request_type, body=b, **header) for b in bodies]
    Publisher(queue, SystemClock()).publish_many(messages)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _sum(families: Iterable[Metric], name: str, labels: dict[str, str]) -> float:
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
