"""Dramatiq on Redis: two processes of one thread, with its own prefetch and with 64."""

from __future__ import annotations

from benchmarks.contenders.peer import RedisPeer


class Dramatiq(RedisPeer):
    """As delivered: two jobs fetched ahead for each thread."""

    name = "dramatiq (redis), 2"
    app = """
import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))


@dramatiq.actor
def mark(n, to, subject):
    work(n)


publish = mark.send
"""
    command = ("dramatiq", "shop", "--processes", "2", "--threads", "1")
    enough = 2_000


class DramatiqAhead(Dramatiq):
    """64 jobs in each worker's memory: fast, and 64 jobs late when that worker dies."""

    name = "dramatiq (redis, prefetch 64), 2"
    enough = 20_000

    def open(self) -> None:
        super().open()
        self.environment["dramatiq_queue_prefetch"] = "64"
