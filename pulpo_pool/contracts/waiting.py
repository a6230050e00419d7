"""The contract of waiting: no polling, woken by whatever makes a job ready."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import pytest

from pulpo_pool.contracts.bench import DEADLINE, HELD_BY, LONG, Bench, reserve, said
from pulpo_pool.queues.adapter import (
    BuryReason,
    Commit,
    CrashLimit,
    Fate,
    Settled,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from pulpo_pool.queues.adapter import QueueAdapter, Reservation


class WaitingContract(Bench):
    """dequeue and settle_and_dequeue with a timeout."""

    @pytest.fixture
    def interrupt(self) -> Iterator[tuple[int, int]]:
        """Return the ends of a pipe."""
        ends = os.pipe()
        yield ends
        for end in ends:
            os.close(end)

    def waiting(self, **options: Any) -> Future[Reservation | None]:
        """Start a dequeue in the background; return when it has begun to wait."""
        began = threading.Event()

        def wait() -> Reservation | None:
            queue = self.queue(**options)
            queue.before_wait = began.set
            return queue.dequeue(LONG)

        future = self.background(wait)
        while not began.wait(0.05):
            assert not future.done(), f"did not wait but returned {future.result()}"
        return future

    def test_a_wait_ends_with_its_timeout(self) -> None:
        """And with nothing."""
        assert self.queue().dequeue(0.01) is None

    def test_a_job_that_is_there_is_not_waited_for(self) -> None:
        """before_wait tells: it is not called."""
        queue = self.queue()
        calls: list[str] = []
        queue.before_wait = lambda: calls.append("waits")
        queue.enqueue(self.say("here"))

        assert said(queue.dequeue(LONG)) == "here"
        assert queue.dequeue() is None
        assert calls == []

    def test_before_wait_is_called_once_for_each_wait(self) -> None:
        """A worker says there that it is idle."""
        queue = self.queue()
        calls: list[str] = []
        queue.before_wait = lambda: calls.append("waits")
        queue.dequeue(0.01)
        queue.dequeue(0.01)

        assert calls == ["waits", "waits"]

    def test_what_was_to_settle_is_settled_before_waiting(self) -> None:
        """The last job is gone while the worker waits for the next."""
        queue, other = self.queue(), self.queue()
        seen: list[Any] = []
        queue.before_wait = lambda: seen.append(other.stats())
        queue.enqueue(self.say())

        assert queue.settle_and_dequeue(Commit(reserve(queue)), 0.01) == (Settled.DONE, None)
        assert seen == [{}]

    def test_publishing_wakes_a_waiter(self) -> None:
        """From another adapter."""
        waiter = self.waiting()
        self.queue().enqueue(self.say("wake up"))

        assert said(waiter.result(timeout=DEADLINE)) == "wake up"

    def test_every_waiter_gets_one_of_many(self) -> None:
        """Published at once, for waiters that each take one."""
        waiters = [self.waiting() for _ in range(3)]
        self.queue().enqueue_many([self.say(n) for n in range(3)])
        texts = {said(waiter.result(timeout=DEADLINE)) for waiter in waiters}

        assert texts == {0, 1, 2}

    def test_a_waiter_of_several_queues_hears_each(self) -> None:
        """Not only the first."""
        waiter = self.waiting(queues=["a", "b"])
        self.queue().enqueue(self.say("b", queue="b"))

        assert said(waiter.result(timeout=DEADLINE)) == "b"

    def test_a_waiter_elsewhere_takes_no_wake_up_away(self) -> None:
        """Jobs wake those who can take them."""
        waiters = [self.waiting(queues=[name]) for name in ("a", "b", "c")]
        publisher = self.queue()
        for name in ("c", "b", "a"):
            publisher.enqueue(self.say(name, queue=name))

        assert [said(waiter.result(timeout=DEADLINE)) for waiter in waiters] == ["a", "b", "c"]

    def test_a_rollback_wakes_a_waiter(self) -> None:
        """The job is there for everybody."""
        mine = self.queue()
        mine.enqueue(self.say("again"))
        held = reserve(mine)
        waiter = self.waiting()
        mine.rollback(held)

        assert said(waiter.result(timeout=DEADLINE)) == "again"

    def test_a_kick_wakes_a_waiter(self) -> None:
        """What people revive runs at once."""
        queue = self.queue()
        job_id = queue.enqueue(self.say("revived"))
        queue.bury(reserve(queue), reason=BuryReason.FATAL)
        waiter = self.waiting()
        queue.kick([job_id])

        assert said(waiter.result(timeout=DEADLINE)) == "revived"

    def test_a_rescue_wakes_a_waiter(self) -> None:
        """A dead worker's job is back at once."""
        if not self.rescues:
            pytest.skip("this engine frees the jobs of the dead by itself")
        holder = self.queue(owner=HELD_BY)
        holder.enqueue(self.say("rescued"))
        reserve(holder)
        waiter = self.waiting()
        self.queue().rescue(lambda _owner: Verdict(Fate.GONE), CrashLimit())

        assert said(waiter.result(timeout=DEADLINE)) == "rescued"

    def test_a_delayed_job_wakes_a_waiter_when_it_is_due(self) -> None:
        """Nobody has to ring for it, whether the waiter or the job was there first."""
        self.real_time()
        shortest = min(self.moment, 0.2)
        publisher = self.queue()
        publisher.enqueue(self.say("before", delay=shortest))
        first = self.waiting()

        assert said(first.result(timeout=DEADLINE)) == "before"

        second = self.waiting()
        publisher.enqueue(self.say("while", delay=shortest))

        assert said(second.result(timeout=DEADLINE)) == "while"

    def test_a_lease_that_ends_wakes_a_waiter(self) -> None:
        """A job whose holder is silent is found by who waits."""
        self.real_time()
        holder = self.queue(lease=min(self.moment, 0.2))
        holder.enqueue(self.say("left behind"))
        reserve(holder)
        waiter = self.waiting()
        deadline = time.monotonic() + DEADLINE
        while not wait([waiter], timeout=0.1).done and time.monotonic() < deadline:
            self.stir(holder)

        assert said(waiter.result(timeout=0)) == "left behind"

    def test_an_interrupt_ends_a_wait(self, interrupt: tuple[int, int]) -> None:
        """A worker that is told to stop does not sleep on."""
        readable, writable = interrupt
        queue = self.queue()
        queue.interrupts = (readable,)

        def interrupt_it() -> None:
            os.write(writable, b"!")

        queue.before_wait = interrupt_it
        waiter = self.background(lambda: queue.dequeue(LONG))

        assert waiter.result(timeout=DEADLINE) is None

    def test_an_interrupt_does_not_keep_a_ready_job_away(self, interrupt: tuple[int, int]) -> None:
        """It ends waiting, not reserving."""
        readable, writable = interrupt
        os.write(writable, b"!")
        queue = self.queue()
        queue.interrupts = (readable,)
        queue.enqueue(self.say("here"))

        assert said(queue.dequeue(LONG)) == "here"

    def test_an_adapter_works_on_after_an_interrupt(self, interrupt: tuple[int, int]) -> None:
        """The next call waits and reserves as before."""
        readable, writable = interrupt
        queue: QueueAdapter = self.queue()
        queue.interrupts = (readable,)
        os.write(writable, b"!")
        waiter = self.background(lambda: queue.dequeue(LONG))

        assert waiter.result(timeout=DEADLINE) is None

        os.read(readable, 1)

        def publish() -> None:
            self.queue().enqueue(self.say("next"))

        queue.before_wait = publish
        again = self.background(lambda: queue.dequeue(LONG))

        assert said(again.result(timeout=DEADLINE)) == "next"
