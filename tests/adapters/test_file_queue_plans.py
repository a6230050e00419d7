"""The file queue's work for a job does not grow with the backlog: SQLite's own word for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from pulpo_pool.message import Message
from pulpo_pool.queues.file import FileQueueAdapter
from pulpo_pool.queues.file_session import SQL

HOT = [
    "insert_ready",
    "insert_delayed",
    "next_due",
    "claim",
    "has_ready",
    "commit",
    "rollback",
    "bury",
    "touch",
    "rescue",
    "history",
    "keep",
]
INDEXED = ["promote", "reservations", "peek", "stats", "newest_id", "kick", "delete"]
OF_THE_DONE = ["peek_done", "page_done", "is_over", "last_kept", "forget", "forget_some"]
OF_A_STATE = [
    *((name, state) for name in ("queues", "kick_some", "purge_some") for state in range(4)),
    ("page_standing", 0),
    ("page_standing", 3),
    ("page_timed", 1),
    ("page_timed", 2),
]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("plans") / "queue.db")
    with FileQueueAdapter(path) as queue:
        queue.enqueue_many([Message(request_type="say") for _ in range(100)])
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def plan(database, sql):
    """Return the steps in which SQLite would run a statement."""
    count = 2 if "?2" in sql else 1 if "?1" in sql else sql.count("?")
    rows = database.execute("EXPLAIN QUERY PLAN " + sql, [1] * count)
    return [row[3] for row in rows]


def scans(steps):
    return [step for step in steps if step.startswith("SCAN jobs") or "TEMP B-TREE" in step]


@pytest.mark.parametrize("name", HOT)
def test_hot_statements_neither_scan_nor_sort(database, name):
    assert scans(plan(database, SQL[name])) == []


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_claim_takes_the_head_of_each_queue(database, tmp_path, count):
    with FileQueueAdapter(str(tmp_path / "q.db"), queues=[f"q{n}" for n in range(count)]) as queue:
        steps = plan(database, queue._turns._next_ready)

    assert scans(steps) == []
    heads = [step for step in steps if "jobs_standing (state=? AND queue=?)" in step]
    assert len(heads) == count


@pytest.mark.parametrize("name", INDEXED)
def test_housekeeping_reads_indexes_only(database, name):
    steps = plan(database, SQL[name])

    assert [step for step in steps if step.startswith("SCAN jobs")] == []


@pytest.mark.parametrize("name", OF_THE_DONE)
def test_done_jobs_are_found_by_when_they_go(database, name):
    steps = plan(database, SQL[name])

    assert [step for step in steps if step.startswith("SCAN done") or "TEMP B-TREE" in step] == []


@pytest.mark.parametrize(("name", "state"), OF_A_STATE)
def test_the_jobs_of_a_state_are_not_searched_among_all(database, name, state):
    steps = plan(database, SQL[name].format(state=state))

    assert [step for step in steps if step.startswith("SCAN jobs")] == []
