"""A Redis of its own for each run, without persistence."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.contenders.beanstalkd import found, free_port

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 20.0  # seconds it may take to come up


class Redis:
    """`redis-server` on a free port, in a folder that goes away."""

    def __init__(self, folder: Path) -> None:
        program = found("redis-server")
        if program is None:
            raise SystemExit("redis-server is not installed: apt-get install redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        command = [program, "--bind", "127.0.0.1", "--port", str(self.port),
                   "--save", "", "--appendonly", "no", "--dir", str(folder)]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(100).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.005)
        raise TimeoutError("redis-server does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
