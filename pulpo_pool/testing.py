"""The test kit: an app's jobs run inside its tests, and what a handler raises surfaces there.

from pulpo_pool.testing import eager

def test_order_sends_mail():
    with eager(pulpo) as published:
        place_order("a@example.org")          # publishes, and so runs, send_email

    assert published[0].request_type == "send_email"

def test_retry(pulpo_queue):                  # a fixture of the pytest plugin
    queue = pulpo_queue(pulpo)                # publishing goes to a memory queue from here on
    send_email.options(delay=60).publish(to="a@example.org")
    queue.clock.advance(60)
    assert queue.work_off() == 1
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Self, TypeVar

from pulpo_pool.app.engine import GivenEngine
from pulpo_pool.app.handlers import Fatal, JobContext, Transient
from pulpo_pool.clock import Clock, ManualClock, SystemClock
from pulpo_pool.codec import Codec
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import Bury, BuryReason, JobState, Reservation, Rollback
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.worker.loop import LoopLimits, WorkerLoop
from pulpo_pool.worker.observer import JobDone, Observer
from pulpo_pool.worker.settle import answer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pulpo_pool.app.pulpo import Pulpo
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import JobRecord, QueueAdapter

__all__ = ["JobFailed", "ManualClock", "QueueHarness", "TravellingClock", "eager", "eventually"]

T = TypeVar("T")

_BETWEEN_LOOKS: Final = 0.005  # seconds


class JobFailed(AssertionError):
    """A job did not succeed, and no exception of its handler says why."""


class TravellingClock:
    """The machine's clock, moved forward by a test.

    It is not a ManualClock because a Message built by hand counts its delay from the machine's
    time: what is due in a minute there is due here after `advance(60)`.
    """

    def __init__(self) -> None:
        self._machine = SystemClock()
        self._ahead = 0.0

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._machine.now() + self._ahead

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self._machine.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move both readings forward."""
        self._ahead += seconds


class QueueHarness:
    """An app over a memory queue, worked off by the pool's own loop inside the test.

    While it is entered, all that the app publishes goes to `queue`, whatever its settings say.
    """

    def __init__(self, app: Pulpo) -> None:
        self.clock = TravellingClock()
        self.queue = MemoryQueueAdapter(clock=self.clock)
        self.published: list[Message] = []
        self.done: list[JobDone] = []
        self.app = app
        self._stack = ExitStack()
        self._ran = False
        self._loop = WorkerLoop(
            self.queue, app, _Recorder(self.done), LoopLimits(sleep_duration=0.0), self.clock
        )

    def work_off(self) -> int:
        """Run every job that is ready, and those they publish; return how many there were.

        The first that does not succeed surfaces, after it was settled: what its handler raised,
        Transient or Fatal for such a result, JobFailed otherwise.
        """
        before = len(self.done)
        while self._turn():
            failure = _failure(self.done[-1]) if self._ran else None
            if failure is not None:
                self._loop.finish()
                raise failure
        return len(self.done) - before

    def work_through(self) -> int:
        """Run every job that is ready like work_off, but let failures be: see `done`, `buried`."""
        before = len(self.done)
        while self._turn():
            pass
        return len(self.done) - before

    def buried(self) -> list[JobRecord]:
        """Return the jobs that were set aside, with reason and error."""
        return list(self.queue.list_jobs(JobState.BURIED))

    def delayed(self) -> list[JobRecord]:
        """Return the jobs that wait for their time: new ones and those to be tried again."""
        return list(self.queue.list_jobs(JobState.DELAYED))

    def _turn(self) -> bool:
        # A test works on whatever queues its app publishes to.
        self.queue.queues = tuple(self.queue.stats()) or self.queue.queues
        known = len(self.done)
        found = self._loop.turn()
        self._ran = len(self.done) > known  # a job of a paused type was only put back
        return found

    def __enter__(self) -> Self:
        engine = _RecordingEngine(self.queue, self.clock, self.published)
        self._stack.enter_context(self.app.publishing_to(engine))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.queue.close()


@contextmanager
def eager(app: Pulpo) -> Iterator[list[Message]]:
    """Run what the app publishes at once, in the publisher's place; yield the published messages.

    A delay is not waited for. What a handler raises comes out of `publish`, as Transient or Fatal
    for a result that says so; no job is tried twice.
    """
    engine = _EagerEngine(app)
    with app.publishing_to(engine):
        yield engine.published


def eventually(condition: Callable[[], T], *, within: float = 10.0) -> T:
    """Return what `condition` returns once that is true; AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        if time.monotonic() > deadline:
            what = getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"{what} did not come true within {within} s: {answer!r}")
        time.sleep(_BETWEEN_LOOKS)
    return answer


class _Recorder(Observer):
    def __init__(self, done: list[JobDone]) -> None:
        self._done = done

    def finished(self, done: JobDone) -> None:
        """Remember how the attempt ended."""
        self._done.append(done)


class _RecordingEngine(GivenEngine):
    def __init__(self, adapter: QueueAdapter, clock: Clock, published: list[Message]) -> None:
        super().__init__(adapter, clock)
        self._published = published

    def publish(self, message: Message) -> Message:
        """Store and remember the message."""
        stored = super().publish(message)
        self._published.append(stored)
        return stored

    def publish_many(self, messages: Iterable[Message]) -> list[Message]:
        """Store and remember the messages."""
        stored = super().publish_many(messages)
        self._published.extend(stored)
        return stored


class _EagerEngine:
    """Stores nothing: a message goes through the codec, as on its way to a worker, and is run."""

    def __init__(self, app: Pulpo) -> None:
        self.clock: Clock = SystemClock()
        self.adapter: QueueAdapter = MemoryQueueAdapter(clock=self.clock)
        self.published: list[Message] = []
        self.app = app
        self._codec = Codec()

    def publish(self, message: Message) -> Message:
        """Run the message."""
        return self.publish_many((message,))[0]

    def publish_many(self, messages: Iterable[Message]) -> list[Message]:
        """Run the messages, one after the other, once all are found fit to be published."""
        stamped = [
            message.stamped(
                id=f"eager-{len(self.published) + number}",
                queue=message.queue,
                published_at=self.clock.now(),
            )
            for number, message in enumerate(messages, 1)
        ]
        encoded = [self._codec.encode(message) for message in stamped]
        self.published.extend(stamped)
        for message, raw in zip(stamped, encoded, strict=True):
            self._run(
                Reservation(job_id=str(message.id), queue=message.queue, raw=raw, codec=self._codec)
            )
        return stamped

    def close(self) -> None:
        """Nothing is open."""

    def _run(self, reservation: Reservation) -> None:
        request_type = reservation.message.request_type
        handler = self.app.registry.find(request_type)
        if handler is None:
            raise JobFailed(f"there is no handler for request_type {request_type!r}")
        context = JobContext(reservation, stopping=lambda: False)
        answer = answer_of(self.app.perform(handler, context))
        if answer.error is not None:
            raise answer.error
        if answer.result.isTransient:
            raise Transient(answer.result.error, retry_in=answer.result.retry_in)
        if answer.result.isFatal:
            raise Fatal(answer.result.error)


def _failure(done: JobDone) -> Exception | None:
    """Return what a test is shown of an attempt; None if it succeeded, or was too late to run."""
    if done.outcome not in (JobOutcome.RETRIED, JobOutcome.BURIED):
        return None
    if isinstance(done.error, Exception):
        return done.error
    match done.settlement:
        case Rollback(error=error, delay=delay) if done.retry_reason is RetryReason.REQUESTED:
            return Transient(error, retry_in=delay)
        case Bury(error=error, reason=BuryReason.FATAL) if done.error is None:
            return Fatal(error)
    # A SystemExit or KeyboardInterrupt, which would end the whole test run, too.
    failed = JobFailed(f"{done.request_type}: {done.settlement}")
    failed.__cause__ = done.error
    return failed
