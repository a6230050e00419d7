"""The file queue keeps the contract."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from pulpo_pool.contracts import QueueAdapterContract
from pulpo_pool.queues.doorbell import SharedWaiter
from pulpo_pool.queues.file import FileQueueAdapter


class TestFileQueue(QueueAdapterContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.path = str(tmp_path / "queue.db")

    def open_queue(self, **options):
        return FileQueueAdapter(self.path, **options)

    def put_raw(self, queue_name, raw):
        self.open_queue().close()
        with closing(sqlite3.connect(self.path, timeout=10)) as database, database:
            database.execute(
                "INSERT INTO jobs (queue, state, priority, raw) VALUES (?, 0, 65536, ?)",
                (queue_name, raw),
            )


class TestFileQueueWithoutEpoll(TestFileQueue):
    """As on macOS."""

    def open_queue(self, **options):
        queue = super().open_queue(**options)
        queue._bells._new_waiter = SharedWaiter
        return queue
