"""RQ on Redis: its default worker, which forks a process for each job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders.peer import RedisPeer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Rq(RedisPeer):
    """`rq worker`, twice."""

    name = "rq (redis), 2"
    app = """
from redis import Redis
from rq import Queue

queue = Queue(connection=Redis.from_url(os.environ["REDIS_URL"]))


def mark(n, to, subject):
    work(n)


def publish(**body):
    queue.enqueue("shop.mark", kwargs=body, result_ttl=0)
"""
    command = ("rq", "worker", "--logging_level", "WARNING")
    times = 2
    enough = 600

    def workers(self) -> Sequence[int]:
        """Without the children, of which each lives for one job: the kernel adds up the ended."""
        return [process.pid for process in self._running]
