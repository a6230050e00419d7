"""Who publishes: each a program that defines `publish`, for one body or for a list of them.

All are run alike, in a process of their own; see `publish.py`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders.beanstalkd import Beanstalkd
from benchmarks.contenders.celery import CeleryAhead
from benchmarks.contenders.dramatiq import Dramatiq
from benchmarks.contenders.environment import programs
from benchmarks.contenders.huey import Huey
from benchmarks.contenders.peer import HANDLER
from benchmarks.contenders.redis import Redis
from benchmarks.contenders.rq import Rq

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MANY = 1_000

PULPO = """
import os
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.opening import open_queue

publisher = Publisher(open_queue(os.environ["QUEUE"]))
"""
PULPO_ONE = f"""{PULPO}

def publish(body):
    publisher.publish(Message(request_type="mark", body=body))
"""
PULPO_MANY = f"""{PULPO}

def publish(bodies):
    publisher.publish_many([Message(request_type="mark", body=body) for body in bodies])
"""
PULPO_JOB = """
import os
from pulpo_pool import Pulpo
from pulpo_pool.queues.opening import open_queue

pulpo = Pulpo(queue_adapter=open_queue(os.environ["QUEUE"]))


@pulpo.job()
def mark(n: int, to: str, subject: str) -> None:
    pass


def publish(body):
    mark.publish(**body)
"""
SQLITE = """
import json, sqlite3

database = sqlite3.connect("raw.db", isolation_level=None)
database.executescript('''
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
CREATE TABLE jobs (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX next ON jobs (state, id);
''')
INSERT = "INSERT INTO jobs (state, body) VALUES (0, ?)"
"""
SQLITE_ONE = f"""{SQLITE}

def publish(body):
    database.execute("BEGIN IMMEDIATE")
    database.execute(INSERT, (json.dumps(body),))
    database.execute("COMMIT")
"""
SQLITE_ALONE = f"""{SQLITE}

def publish(body):
    database.execute(INSERT, (json.dumps(body),))
"""
SQLITE_MANY = f"""{SQLITE}

def publish(bodies):
    database.execute("BEGIN IMMEDIATE")
    database.executemany(INSERT, [(json.dumps(body),) for body in bodies])
    database.execute("COMMIT")
"""
GREENSTALK = """
import json, os
import greenstalk

host, port = os.environ["QUEUE"].removeprefix("beanstalkd://").split(":")
client = greenstalk.Client((host, int(port)))


def publish(body):
    client.put(json.dumps(body))
"""
PIPELINED = """
import json, os, socket

host, port = os.environ["QUEUE"].removeprefix("beanstalkd://").split(":")
line = socket.create_connection((host, int(port)))
replies = line.makefile("rb")


def publish(bodies):
    raw = [json.dumps(body).encode() for body in bodies]
    line.sendall(b"".join(b"put 65536 0 60 %d\\r\\n%b\\r\\n" % (len(each), each) for each in raw))
    for _ in raw:
        assert replies.readline().startswith(b"INSERTED")
"""
PEER_ONE = """
import shop


def publish(body):
    shop.publish(**body)
"""
RQ_MANY = """
from shop import queue
from rq import Queue


def publish(bodies):
    queue.enqueue_many([
        Queue.prepare_data("shop.mark", kwargs=body, result_ttl=0) for body in bodies
    ])
"""


@dataclass
class Publishing:
    """A program that publishes, and the server it publishes to, if it needs one."""

    name: str
    baseline: str
    sender: str  # the program
    many: int = 1  # jobs in one call
    enough: int = sys.maxsize  # jobs that suffice to measure a slow one
    shop: str = ""  # the peer's app
    url: str = ""  # of the queue
    server: Callable[[Path], Beanstalkd | Redis] | None = None
    python: str = sys.executable
    folder: Path = field(default_factory=Path)
    environment: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> None:
        """Start the server; `folder` is new for each run."""
        self._server = self.server(self.folder) if self.server else None
        url = self._server.url if self._server else self.url
        if self.shop:
            (self.folder / "shop.py").write_text(HANDLER + self.shop)
            self.python = str(programs() / "python")
        self.environment = {
            "PATH": os.environ["PATH"], "QUEUE": url, "REDIS_URL": url,
            "PYTHONPATH": os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip

    def servers(self) -> Sequence[int]:
        """The pids of the server."""
        return [self._server.process.pid] if self._server else []

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.kill()


def publishers_for(broker: str) -> list[Publishing]:
    """Return who takes part, in the order of their turns: the peers on Redis beside beanstalkd."""
    by_broker = {"beanstalkd": _on_servers(), "file": _on_files()}
    return [each for name, some in by_broker.items() if broker in (name, "all") for each in some]


def _on_files() -> list[Publishing]:
    raw, bulk = "raw-sqlite, INSERT + commit", "raw-sqlite, executemany"
    full, normal = "file:queue.db", "file:queue.db?durability=normal"
    return [
        Publishing(raw, raw, SQLITE_ONE),
        Publishing("raw-sqlite, INSERT alone", raw, SQLITE_ALONE),
        Publishing("pulpo-pool on file, normal, one", raw, PULPO_ONE, url=normal),
        Publishing("pulpo-pool on file, normal, job.publish", raw, PULPO_JOB, url=normal),
        Publishing("pulpo-pool on file, full, one", raw, PULPO_ONE, enough=2_000, url=full),
        Publishing("huey (sqlite), one", raw, PEER_ONE, enough=5_000, shop=Huey.app),
        Publishing(bulk, bulk, SQLITE_MANY, many=MANY),
        Publishing("pulpo-pool on file, normal, many", bulk, PULPO_MANY, many=MANY, url=normal),
        Publishing("pulpo-pool on file, full, many", bulk, PULPO_MANY, many=MANY, url=full),
    ]


def _on_servers() -> list[Publishing]:
    raw, bulk = "raw-greenstalk, put", "raw-pipelined, puts"
    return [
        Publishing(raw, raw, GREENSTALK, server=_beanstalkd),
        Publishing("pulpo-pool on beanstalkd, one", raw, PULPO_ONE, server=_beanstalkd),
        *(
            Publishing(f"{name} (redis), one", raw, PEER_ONE, 1, 3_000, peer.app, server=Redis)
            for name, peer in (("celery", CeleryAhead), ("dramatiq", Dramatiq), ("rq", Rq))
        ),
        Publishing(bulk, bulk, PIPELINED, many=MANY, server=_beanstalkd),
        Publishing("pulpo-pool on beanstalkd, many", bulk, PULPO_MANY, MANY, server=_beanstalkd),
        Publishing("rq (redis), enqueue_many", bulk, RQ_MANY, MANY, 10_000, Rq.app, server=Redis),
    ]


def _beanstalkd(_folder: Path) -> Beanstalkd:
    return Beanstalkd().start()
