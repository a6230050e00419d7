"""The bodies of the raw loops, run as `python loops.py NAME DONE ...`."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

import greenstalk

if TYPE_CHECKING:
    from collections.abc import Callable

SQLITE_SCHEMA = """
PRAGMA journal_mode=WAL;
CREATE TABLE jobs (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX next ON jobs (state, id);
"""


def marker(path: str) -> Callable[..., None]:
    """Return the handler: one append."""
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def mark(n: int, to: str, subject: str) -> None:  # noqa: ARG001 - as a handler would have them
        os.write(out, b"%020d\n" % (time.monotonic_ns() - n))

    return mark


def raw_greenstalk(done: str, host: str, port: str) -> None:
    mark = marker(done)
    client = greenstalk.Client((host, int(port)), encoding=None)
    while True:
        job = client.reserve()
        mark(**json.loads(job.body))
        client.delete(job)


def raw_pipelined(done: str, host: str, port: str) -> None:
    mark = marker(done)
    line = socket.create_connection((host, int(port)))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    replies = line.makefile("rb")
    line.sendall(b"reserve\r\n")
    while True:
        _, number, size = replies.readline().split()
        body = replies.read(int(size) + 2)
        mark(**json.loads(body))
        line.sendall(b"delete %b\r\nreserve\r\n" % number)
        assert replies.readline() == b"DELETED\r\n"


def raw_sqlite(done: str, path: str) -> None:
    mark = marker(done)
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute("PRAGMA synchronous=NORMAL")
    claim = (
        "UPDATE jobs SET state = 1 WHERE id = "
        "(SELECT id FROM jobs WHERE state = 0 ORDER BY id LIMIT 1) RETURNING id, body"
    )
    last = 0
    while True:
        database.execute("BEGIN IMMEDIATE")
        if last:
            database.execute("DELETE FROM jobs WHERE id = ?", (last,))
        row = database.execute(claim).fetchone()
        database.execute("COMMIT")
        if row is None:
            last = 0
            time.sleep(0.001)
            continue
        last, body = row
        mark(**json.loads(body))


LOOPS: dict[str, Callable[..., None]] = {
    "raw-greenstalk": raw_greenstalk,
    "raw-pipelined": raw_pipelined,
    "raw-sqlite": raw_sqlite,
}

if __name__ == "__main__":
    LOOPS[sys.argv[1]](*sys.argv[2:])
