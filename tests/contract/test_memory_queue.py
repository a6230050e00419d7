"""The memory queue keeps the contract."""

from __future__ import annotations

from pulpo_pool.contracts import QueueAdapterContract
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.queues.memory_store import MemoryStore


class TestMemoryQueue(QueueAdapterContract):
    def setup_method(self):
        self.store = MemoryStore()

    def open_queue(self, **options):
        return MemoryQueueAdapter(store=self.store, **options)

    def put_raw(self, queue_name, raw):
        with self.store.lock:
            self.store.add(queue_name, raw, 65_536, None)
