"""A pool on the file queue: drain at two backlogs, start, replacement, idle.

    python -m benchmarks.pool                 # some two minutes
    python -m benchmarks.pool --workers 8 --jobs 20000

Work: a handler that appends one byte to a file. CPU per job is the kernel's accounting of all
worker processes between 10 % and 100 % done; it is steadier than jobs/s on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pulpo_pool.clock import SystemClock
from pulpo_pool.master.rundir import socket_path
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.opening import file_url, open_queue

APP = """
import os
from pulpo_pool import Pulpo
pulpo = Pulpo()
out = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@pulpo.job()
def mark(n: int) -> None:
    os.write(out, b".")
"""


class Pool:
    """`pulpo-pool -w N` in a folder of its own."""

    def __init__(self, workers: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pulpo-benchmark-"))
        (self.folder / "shop.py").write_text(APP)
        self.workers = workers

    def start(self) -> float:
        """Start; return the seconds until every worker is idle or busy."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pulpo_pool", "-w", str(self.workers), "--http", "127.0.0.1:0",
             "shop:pulpo"],
            cwd=self.folder, stderr=(self.folder / "log").open("ab"),
        )  # fmt: skip
        while len(self.up()) < self.workers:
            time.sleep(0.002)
        return time.monotonic() - began

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def up(self) -> dict[int, int]:
        """Return the pids of the workers that work, by slot."""
        path = socket_path(self.folder / ".pulpo" / "run" / "default" / "control.sock")
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
                connection.sendall(b'{"command": "status"}\n')
                workers = json.loads(connection.makefile("rb").readline())["workers"]
            except OSError:
                return {}
        return {w["slot"]: w["pid"] for w in workers if w["state"] in ("idle", "busy")}

    def publish(self, jobs: int) -> None:
        with open_queue(file_url(str(self.folder / ".pulpo" / "queue.db"))) as queue:
            publisher = Publisher(queue, SystemClock())
            for first in range(0, jobs, 1_000):
                count = min(1_000, jobs - first)
                publisher.publish_many(
                    [Message(request_type="mark", body={"n": n}) for n in range(count)]
                )

    def done(self) -> int:
        path = self.folder / "done"
        return path.stat().st_size if path.exists() else 0


def cpu(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


def drain(workers: int, backlog: int, jobs: int) -> tuple[float, float]:
    """Return jobs/s and CPU microseconds per job over `jobs`, beginning with this backlog."""
    pool = Pool(workers)
    (pool.folder / ".pulpo").mkdir(mode=0o700)
    pool.publish(backlog)
    pool.start()
    while pool.done() < jobs // 10:
        time.sleep(0.001)
    pids = list(pool.up().values())
    first, used, began = pool.done(), cpu(pids), time.monotonic()
    while pool.done() < jobs:
        time.sleep(0.001)
    count, seconds, used = pool.done() - first, time.monotonic() - began, cpu(pids) - used
    pool.process.kill()
    pool.process.wait()
    return count / seconds, used / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    options = parser.parse_args()
    for round_ in range(options.rounds):
        for backlog in (options.jobs, 5 * options.jobs):
            rate, price = drain(options.workers, backlog, options.jobs)
            print(f"round {round_}: backlog {backlog:>7,}: {rate:8,.0f} jobs/s {price:6.1f} us/job")
    pool = Pool(options.workers)
    print(f"start to {options.workers} idle workers: {pool.start():.3f} s")
    delays = []
    for slot in range(options.workers):
        pid = pool.up()[slot]
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while pool.up().get(slot, pid) == pid:
            time.sleep(0.0005)
        delays.append(time.monotonic() - began)
    print(f"from kill -9 to a replacement that is up: {sorted(delays)[len(delays) // 2]:.3f} s")
    master = psutil.Process(pool.process.pid)
    family = [master.pid, *(child.pid for child in master.children(recursive=True))]
    used = cpu(family)
    time.sleep(options.idle)
    print(
        f"CPU of all {len(family)} processes in {options.idle:g} idle s: {cpu(family) - used:.2f} s"
    )
    pool.stop()


if __name__ == "__main__":
    main()
