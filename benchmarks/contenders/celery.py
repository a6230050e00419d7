"""Celery on Redis, at-least-once: prefork with late acknowledgement, prefetch 1 and its own 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from benchmarks.contenders.peer import RedisPeer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Celery(RedisPeer):
    """Late acknowledgement, prefetch 1: as Celery's guide advises for jobs not to be lost."""

    name = "celery (redis, prefetch 1), 2"
    app = """
from celery import Celery

app = Celery("shop", broker=os.environ["REDIS_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True)


@app.task
def mark(n, to, subject):
    work(n)


publish = mark.delay
"""
    command: ClassVar[Sequence[str]] = (
        *("celery", "-A", "shop", "worker", "--concurrency", "2", "--loglevel", "warning"),
        *("--prefetch-multiplier", "1"),
    )


class CeleryAhead(Celery):
    """The prefetch it is delivered with: faster, so the one to be compared with."""

    name = "celery (redis, prefetch 4), 2"
    command = Celery.command[:-2]
