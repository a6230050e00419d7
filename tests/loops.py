"""A worker's loop over a memory queue whose clock stands still, for tests that take its turns."""

from __future__ import annotations

from pulpo_pool import Pulpo
from pulpo_pool.clock import ManualClock
from pulpo_pool.queues.adapter import JobState, QueueStats
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.worker.loop import LoopLimits, WorkerLoop
from pulpo_pool.worker.observer import Observer

PUBLISHED = 1_800_000_000.0  # Unix seconds at which the clock stands when a test begins


def raising(error):
    """Return a handler that raises this."""

    def handler():
        raise error

    return handler


class Diary(Observer):
    """Writes down what a loop tells its observer."""

    def __init__(self):
        self.events = []
        self.done = []
        self.lost_jobs = []

    def reserved(self, reservation):
        self.events.append("reserved")

    def started(self, context):
        self.events.append("started")

    def finished(self, done):
        self.events.append("finished")
        self.done.append(done)

    def settled(self):
        self.events.append("settled")

    def lost(self, reservation):
        self.events.append("lost")
        self.lost_jobs.append(reservation.job_id)


class Bench:
    """An app, its queue, a loop between them, and what the loop said."""

    def __init__(self, *, middleware=(), queue_type=MemoryQueueAdapter, **limits):
        self.clock = ManualClock(PUBLISHED)
        self.queue = queue_type(clock=self.clock)
        self.app = Pulpo(queue_adapter=self.queue, middleware=middleware)
        self.diary = Diary()
        self.stopping = False
        self.loop = WorkerLoop(
            self.queue,
            self.app,
            self.diary,
            LoopLimits(sleep_duration=0.0, **limits),
            self.clock,
            stopping=lambda: self.stopping,
        )

    def publish(self, handler, **options):
        """Register a function without parameters, publish one job for it."""
        return self.app.job("work")(handler).options(**options).publish()

    def run(self, handler, **options):
        """Publish a job for a function, let the loop handle and settle it; return its end."""
        self.publish(handler, **options)
        return self.turn()

    def turn(self):
        """Take a turn that finds a job, settle it, and return the attempt's end."""
        assert self.loop.turn(), "expected a job that is ready"
        self.loop.finish()
        return self.diary.done[-1]

    def counts(self):
        return self.queue.stats().get("default", QueueStats())

    def only(self, state):
        """Return the one job in a state, as people see it."""
        (record,) = self.queue.list_jobs(JobState(state))
        return record
