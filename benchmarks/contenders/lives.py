"""Pools whose life is measured: any number of workers, an app that may be heavy, held jobs.

All run with the peers' interpreter, so that all import the very same packages.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import psutil

from benchmarks.contenders.beanstalkd import Beanstalkd, put_all
from benchmarks.contenders.celery import CeleryAhead
from benchmarks.contenders.dramatiq import Dramatiq
from benchmarks.contenders.environment import programs
from benchmarks.contenders.peer import RedisPeer
from benchmarks.contenders.pulpo import Pool, PulpoContender, family
from benchmarks.contenders.raw import OnBeanstalkd
from benchmarks.contenders.rq import Rq
from benchmarks.harness import LINE, Contender
from pulpo_pool.queues.opening import file_url

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAVY = "import pandas, requests, sqlalchemy"
LIGHT = ""  # nothing but what the queue needs itself
HEAD = """
{imports}
import os, time

out = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def work(n):
    try:
        held = os.readlink("hold")  # before the line: who is counted already is held no more
    except OSError:
        held = ""
    os.write(out, b"%020d\\n" % time.monotonic_ns())
    while held and os.path.exists(held):
        time.sleep(0.02)

"""
LOG = "log"
AHEAD = 8  # jobs for each worker: some peers fetch several before they run one
HERE = Path(__file__).parents[2]


class Life(Contender):
    """A pool of `count` workers; `imports` is the statement its app begins with.

    While it is held, a job that begins does not end: so many lines, so many workers in a job.
    """

    def __init__(self, count: int, imports: str) -> None:
        Contender.__init__(self)
        self.count = count
        self.imports = imports
        self._holds = 0

    def write_app(self, app: str) -> None:
        (self.folder / "shop.py").write_text(HEAD.replace("{imports}", self.imports) + app)

    def hold(self) -> None:
        # Each by a file of its own: who naps while it is let go must not be caught by the next.
        self._holds += 1
        name = f"hold-{self._holds}"
        (self.folder / name).touch()
        (self.folder / "hold").symlink_to(name)

    def let_go(self) -> None:
        (self.folder / "hold").unlink()
        (self.folder / f"hold-{self._holds}").unlink()

    def family(self) -> list[int]:
        """The pids of all processes but the server's."""
        raise NotImplementedError

    def workers(self) -> Sequence[int]:
        return self.family()


class LivePeer(Life, RedisPeer):
    """A peer with a number of workers; `{count}` in its command is how many."""

    kind: ClassVar[str]

    def __init__(self, count: int, imports: str, *arguments: str) -> None:
        super().__init__(count, imports)
        self.name = f"{self.kind}, {count}"
        self.arguments = arguments

    def open(self) -> None:
        super().open()
        self.write_app(self.app)

    def start(self) -> None:
        program, *given = self.command
        command = [each.replace("{count}", str(self.count)) for each in (*given, *self.arguments)]
        with (self.folder / LOG).open("ab") as log:
            started = subprocess.Popen(
                [str(programs() / program), *command],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip
        self._running = [started]

    def family(self) -> list[int]:
        return [each.pid for each in self._family()]


class LiveCelery(LivePeer):
    """Late acknowledgement, the prefetch it is delivered with."""

    kind = "celery (redis)"
    app = CeleryAhead.app
    command = (
        *("celery", "-A", "shop", "worker", "--concurrency", "{count}", "--loglevel", "warning"),
    )


class LiveDramatiq(LivePeer):
    """Processes of one thread."""

    kind = "dramatiq (redis)"
    app = Dramatiq.app
    command = ("dramatiq", "shop", "--processes", "{count}", "--threads", "1")


class LiveRq(LivePeer):
    """`rq worker-pool`: each worker forks a process for each job, and that one imports the app."""

    kind = "rq (redis)"
    app = Rq.app
    command = ("rq", "worker-pool", "--num-workers", "{count}", "--logging-level", "WARNING")
    enough = 100


class LiveHuey(LivePeer):
    """`huey_consumer` with worker processes, on Redis; it deletes a job before it runs it."""

    kind = "huey (redis)"
    app = """
from huey import RedisHuey

huey = RedisHuey("shop", url=os.environ["REDIS_URL"])


@huey.task()
def mark(n, to, subject):
    work(n)


publish = mark
"""
    command = ("huey_consumer", "shop.huey", "--worker-type", "process", "--workers", "{count}",
               "--quiet")  # fmt: skip


class PreforkLoop(Life, OnBeanstalkd):
    """The bare loop over greenstalk, forked from a process that has imported the app.

    The argument is after how many jobs each child leaves, and is forked anew: 0 is never.
    """

    loop = "raw-greenstalk"
    program = """
import gc, json, os, sys
import greenstalk
from shop import work

host, port, count, most = sys.argv[1], *map(int, sys.argv[2:])


def child():
    client = greenstalk.Client((host, port), encoding=None)
    done = 0
    while done < most or not most:
        job = client.reserve()
        work(**json.loads(job.body))
        client.delete(job)
        done += 1
    os._exit(0)


gc.freeze()
for _ in range(count):
    os.fork() or child()
while True:
    os.wait()
    os.fork() or child()
"""

    def __init__(self, count: int, imports: str, most: int = 0) -> None:
        Life.__init__(self, count, imports)
        self.name = f"raw prefork of greenstalk, {count}"
        self.most = most
        self._running = []

    def start(self) -> None:
        self.write_app("")
        command = [str(programs() / "python"), "-c", self.program, *self.arguments()]
        self._running = [
            subprocess.Popen([*command, str(self.count), str(self.most)], cwd=self.folder)
        ]

    def prepare(self, jobs: int) -> None:
        put_all(self._server, (b'{"n":%d}' % n for n in range(jobs)))

    def family(self) -> list[int]:
        first = psutil.Process(self._running[0].pid)
        return [first.pid, *(child.pid for child in first.children())]

    def close(self) -> None:
        for process in self._running:
            children = psutil.Process(process.pid).children()
            process.kill()
            for child in children:
                child.kill()
        super().close()


class LivePulpo(Life, PulpoContender):
    """`pulpo-pool -w COUNT`, with what else it is started with."""

    app = """
from pulpo_pool import Pulpo

pulpo = Pulpo()


@pulpo.job()
def mark(n: int, to: str, subject: str) -> None:
    work(n)
"""

    def __init__(self, count: int, imports: str, *arguments: str) -> None:
        Life.__init__(self, count, imports)
        self.name = f"pulpo-pool on {self.engine}, {count}"
        self.arguments = arguments
        self.pool = self._queue = None

    def made(self, broker: str) -> Pool:
        pool = PoolOfPeers(self.folder, self.count, broker, self.arguments)
        self.write_app(self.app)
        return pool

    def family(self) -> list[int]:
        return family(self)

    def workers(self) -> Sequence[int]:
        return self.family()


class PoolOfPeers(Pool):
    """A pool that runs with the peers' interpreter, and this checkout."""

    def __init__(self, folder: Path, workers: int, broker: str, arguments: Sequence[str]) -> None:
        super().__init__(folder, workers, broker)
        self.arguments = arguments

    def start(self) -> None:
        command = [str(programs() / "python"), "-m", "pulpo_pool", "-w", str(self.workers),
                   "--broker", self.broker, "--http", "127.0.0.1:0", *self.arguments,
                   "shop:pulpo"]  # fmt: skip
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE)}
        with (self.folder / LOG).open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stderr=log, env=environment)


class LivePulpoOnBeanstalkd(LivePulpo):
    engine = "beanstalkd"

    def open(self) -> None:
        self._server = Beanstalkd().start()
        self.pool = self.made(self._server.url)

    def servers(self) -> Sequence[int]:
        return [self._server.process.pid]

    def close(self) -> None:
        super().close()
        self._server.kill()


class LivePulpoOnFile(LivePulpo):
    engine = "file"

    def open(self) -> None:
        (self.folder / ".pulpo").mkdir(mode=0o700)
        self.pool = self.made(file_url(str(self.folder / ".pulpo" / "queue.db")))


class BareImport(Life):
    """`python -c "import ..."`, from its start to its end: what every start is compared with."""

    def __init__(self, imports: str) -> None:
        super().__init__(1, imports)
        self.name = "bare import"

    def open(self) -> None:
        pass

    def prepare(self, jobs: int) -> None:
        pass

    def start(self) -> None:
        subprocess.run([str(programs() / "python"), "-c", self.imports], check=True)
        self.done.write_bytes(LINE % time.monotonic_ns())

    def send(self, number: int) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass


# All that may have any number of workers, in the order of their turns.
KINDS: Final = (
    *(PreforkLoop, LivePulpoOnBeanstalkd, LivePulpoOnFile),
    *(LiveHuey, LiveCelery, LiveRq, LiveDramatiq),
)
