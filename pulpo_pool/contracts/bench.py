"""The bench that the contract's tests stand on: how they get adapters, messages and time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, Unpack

import pytest

from pulpo_pool.clock import ManualClock, SystemClock
from pulpo_pool.message import DEFAULT_QUEUE, Message
from pulpo_pool.queues.adapter import Owner, QueueAdapter, QueueStats, Reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pulpo_pool.clock import Clock
    from pulpo_pool.queues.adapter import AdapterOptions

T = TypeVar("T")

DEADLINE: Final = 20.0  # seconds after which a test no longer waits for what must happen
LONG: Final = 60.0  # seconds of a wait that something must end: longer than the deadline

HELD_BY: Final = Owner("pool", "start-1", 0, 1)
OTHER: Final = Owner("pool", "start-1", 1, 2)


class Bench(ABC):
    """What a subclass says of its engine.

    `moment` is the unit of delays and leases, in seconds. Engines that keep time themselves set
    it to the shortest they can tell apart and override `pass_time` to wait.
    """

    moment: ClassVar[float] = 10.0
    rescues: ClassVar[bool] = True  # False: the engine frees the jobs of closed connections
    keeps_evidence: ClassVar[bool] = True  # the reason and error of a buried job
    counts_attempts: ClassVar[bool] = True  # False: the engine counts reservations instead
    sees_every_job: ClassVar[bool] = True  # list_jobs and purge reach all jobs in a state
    removes_reserved: ClassVar[bool] = True  # people can purge what others hold
    replaces_in_place: ClassVar[bool] = True  # a replaced job keeps its job_id and its counts
    refused_names: ClassVar[frozenset[str]] = frozenset()  # queues there cannot be

    clock: Clock

    @abstractmethod
    def open_queue(self, **options: Unpack[AdapterOptions]) -> QueueAdapter:
        """Open one more adapter on the engine of this test, which starts empty."""

    @abstractmethod
    def put_raw(self, queue_name: str, raw: bytes) -> None:
        """Put bytes into a queue as a stranger would who knows the engine but not our format."""

    def pass_time(self, seconds: float) -> None:
        """Let the engine's wall clock move on."""
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)

    def stir(self, queue: QueueAdapter) -> None:  # noqa: B027 - most engines watch the clock
        """Give the engine the occasion, if it needs one, to notice that `queue`'s leases ended."""

    # -- what tests use -----------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _bench(self) -> Iterator[None]:
        self.clock = ManualClock()
        with ExitStack() as self._opened, ThreadPoolExecutor(8) as self._threads:
            yield

    def queue(self, **options: Unpack[AdapterOptions]) -> QueueAdapter:
        """Return an adapter that is closed after the test."""
        options.setdefault("clock", self.clock)
        return self._opened.enter_context(self.open_queue(**options))

    def real_time(self) -> None:
        """Let adapters opened from now on live by the machine's clock, for tests that wait."""
        self.clock = SystemClock()

    def background(self, call: Callable[[], T]) -> Future[T]:
        """Run a call in a thread; ask for its result with `timeout=DEADLINE`."""
        return self._threads.submit(call)

    def say(self, text: object = "", **fields: Any) -> Message:
        """Return a message as a publisher hands it to an adapter."""
        fields.setdefault("body", {"text": text})
        message = Message(request_type="say", clock=self.clock, **fields)
        return message.stamped(id=f"id-{text}", queue=message.queue, published_at=self.clock.now())


def said(reservation: Reservation | None) -> object:
    """Return the text of a reserved `say`; None without a reservation."""
    return None if reservation is None else reservation.message.body["text"]


def reserve(queue: QueueAdapter) -> Reservation:
    """Reserve a job that must be there."""
    reservation = queue.dequeue()

    assert reservation is not None, "expected a ready job"
    return reservation


def drain(queue: QueueAdapter) -> list[object]:
    """Reserve and commit until nothing is ready; return the texts in order."""
    texts = []
    reservation = queue.dequeue()
    while reservation is not None:
        texts.append(said(reservation))
        queue.commit(reservation)
        reservation = queue.dequeue()
    return texts


def counts(queue: QueueAdapter, name: str = DEFAULT_QUEUE) -> QueueStats:
    """Return the counts of one queue."""
    return queue.stats().get(name, QueueStats())
