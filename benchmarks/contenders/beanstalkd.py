"""A beanstalkd of its own for each run, and the way jobs get into it fast."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from servers import (  # the tests' own: one way to start a server
    Beanstalkd,
    found,
    free_port,
)

__all__ = ["Beanstalkd", "found", "free_port", "put_all"]

_BATCH = 1_000


def put_all(server: Beanstalkd, bodies: Iterable[bytes]) -> None:
    """Put bodies into the default tube, many in one write."""
    with socket.create_connection((server.host, server.port)) as line:
        replies = line.makefile("rb")
        batch: list[bytes] = []
        for body in bodies:
            batch.append(b"put 65536 0 60 %d\r\n%b\r\n" % (len(body), body))
            if len(batch) == _BATCH:
                _put(line, replies, batch)
        _put(line, replies, batch)


def _put(line: socket.socket, replies: BinaryIO, batch: list[bytes]) -> None:
    line.sendall(b"".join(batch))
    for _ in batch:
        assert replies.readline().startswith(b"INSERTED")
    batch.clear()
