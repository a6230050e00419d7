"""What the peers share: an app in a folder, its own programs, the family of its processes."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import psutil

from benchmarks.contenders.environment import programs
from benchmarks.contenders.redis import Redis
from benchmarks.harness import Contender, body_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HANDLER = """
import os, time

out = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def work(n):
    os.write(out, b"%020d\\n" % (time.monotonic_ns() - n))

"""  # what every app begins with
PUBLISH = """
import json, sys, time
from shop import publish

for line in sys.stdin:
    body, began = json.loads(line), time.monotonic_ns()
    publish(**body)
    print(began, flush=True)
"""
GRACE = 15.0  # seconds its processes have to leave when told


class Peer(Contender):
    """Two worker processes that take one job at a time, as the peer's users run them.

    Log level is warning everywhere: what some of them log for each job is not held against them.
    `app` defines `publish(n, to, subject)`; `command` starts the workers, `times` times.
    """

    app: ClassVar[str]
    command: ClassVar[Sequence[str]]
    times: ClassVar[int] = 1
    baseline = "raw-greenstalk, 2"
    enough = 3_000

    def open(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._publisher: subprocess.Popen[bytes] | None = None
        (self.folder / "shop.py").write_text(HANDLER + self.app)
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.folder)}

    def prepare(self, jobs: int) -> None:
        bodies = "\n".join(json.dumps(body_of(n)) for n in range(jobs))
        subprocess.run(
            [str(programs() / "python"), "-c", PUBLISH], cwd=self.folder, env=self.environment,
            input=bodies.encode(), stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    def send(self, number: int) -> int:
        if self._publisher is None:
            self._publisher = subprocess.Popen(
                [str(programs() / "python"), "-c", PUBLISH], cwd=self.folder, env=self.environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        sender = self._publisher
        assert sender.stdin is not None
        assert sender.stdout is not None
        sender.stdin.write(json.dumps(body_of(number)).encode() + b"\n")
        sender.stdin.flush()
        return int(sender.stdout.readline())

    def producer(self) -> tuple[str, Mapping[str, str]]:
        return str(programs() / "python"), self.environment

    def start(self) -> None:
        program, *arguments = self.command
        with (self.folder / "log").open("ab") as log:
            self._running = [
                subprocess.Popen([str(programs() / program), *arguments], cwd=self.folder,
                                 env=self.environment, stdout=log, stderr=log)
                for _ in range(self.times)
            ]  # fmt: skip

    def workers(self) -> Sequence[int]:
        """All processes of the peer: its masters and helpers work for the job as well."""
        return [each.pid for each in self._family()]

    def _family(self) -> list[psutil.Process]:
        masters = [psutil.Process(each.pid) for each in self._running if each.poll() is None]
        return [one for each in masters for one in (each, *each.children(recursive=True))]

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.communicate()  # the end of its input ends it
        family = self._family()
        for process in self._running:
            process.terminate()
        _, left = psutil.wait_procs(family, timeout=GRACE)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        for process in self._running:
            process.wait()


class RedisPeer(Peer):
    """A peer on a Redis of its own."""

    def open(self) -> None:
        super().open()
        self._server = Redis(self.folder)
        self.environment |= {"REDIS_URL": self._server.url, "RQ_REDIS_URL": self._server.url}

    def servers(self) -> Sequence[int]:
        return [self._server.process.pid]

    def close(self) -> None:
        super().close()
        self._server.kill()
