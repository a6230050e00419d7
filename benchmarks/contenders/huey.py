"""Huey on SQLite: two worker processes. It deletes a job before it runs it: at most once."""

from __future__ import annotations

from benchmarks.contenders.peer import Peer


class Huey(Peer):
    """`huey_consumer` as delivered, but for the number and kind of its workers."""

    name = "huey (sqlite), 2"
    baseline = "raw-sqlite, 2"
    app = """
from huey import SqliteHuey

huey = SqliteHuey(filename="huey.db")


@huey.task()
def mark(n, to, subject):
    work(n)


publish = mark
"""
    command = (
        "huey_consumer",
        "shop.huey",
        "--workers",
        "2",
        "--worker-type",
        "process",
        "--quiet",
    )
    enough = 5_000
