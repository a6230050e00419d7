"""The memory queue keeps the contract."""

from __future__ import annotations

from pulpo_pool.contracts import QueueAdapterContract
from pulpo_pool.contracts.bench import reserve
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

    def test_a_lease_that_ended_may_be_settled_until_somebody_takes_the_job(self):
        queue = self.queue(lease=self.moment)
        queue.enqueue_many([self.say("one"), self.say("two")])
        one, two = reserve(queue), reserve(queue)
        self.pass_time(1.5 * self.moment)
        queue.touch(one)
        queue.commit(two)

        assert queue.dequeue() is None
