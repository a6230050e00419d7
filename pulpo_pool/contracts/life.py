"""The contract of an adapter's life: opening, sharing, forking, closing."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pulpo_pool.contracts.bench import DEADLINE, Bench, counts, drain, reserve
from pulpo_pool.errors import QueueError, WrongProcess
from pulpo_pool.queues.adapter import Commit, CrashLimit, Fate, JobState, QueueStats, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.queues.adapter import QueueAdapter

VERBS: dict[str, Callable[[QueueAdapter], object]] = {
    "enqueue_many": lambda queue: queue.enqueue_many([]),
    "dequeue": lambda queue: queue.dequeue(),
    "settle_and_dequeue": lambda queue: queue.settle_and_dequeue(None, 1.0),
    "rescue": lambda queue: queue.rescue(lambda _owner: Verdict(Fate.ALIVE), CrashLimit()),
    "stats": lambda queue: queue.stats(),
    "peek": lambda queue: queue.peek("1"),
    "list_jobs": lambda queue: list(queue.list_jobs(JobState.READY)),
    "kick": lambda queue: queue.kick(["1"]),
    "kick_all": lambda queue: queue.kick_all(),
    "delete": lambda queue: queue.delete("1"),
    "purge": lambda queue: queue.purge(JobState.READY),
}


def outcome_in_a_fork(call: Callable[[], object]) -> str:
    """Run a call in a forked child; return the name of what it raised, or `nothing`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            call()
            name = "nothing"
        except BaseException as error:  # noqa: BLE001 - the child must not return into pytest
            name = type(error).__name__
        os.write(writing, name.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        name = told.read()
    os.waitpid(child, 0)
    return name


class LifeContract(Bench):
    """Opening, forking, threads, close."""

    def test_closing_twice_is_fine(self) -> None:
        """And a context manager may close what is closed."""
        queue = self.queue()
        queue.enqueue(self.say())
        queue.dequeue(0.01)
        queue.close()
        queue.close()

    def test_an_adapter_never_used_can_be_closed(self) -> None:
        """Nothing to let go of."""
        self.queue().close()

    @pytest.mark.parametrize("verb", [name for name in VERBS if name != "enqueue_many"])
    def test_a_closed_adapter_says_so(self, verb: str) -> None:
        """With one of our errors."""
        queue = self.queue()
        queue.close()

        with pytest.raises(QueueError):
            VERBS[verb](queue)

    def test_reserved_jobs_stay_reserved_after_close(self) -> None:
        """Closing is not settling, unless the engine frees what closed connections held."""
        holder, other = self.queue(), self.queue()
        holder.enqueue(self.say())
        reserve(holder)
        holder.close()

        if not self.rescues:
            assert other.dequeue(DEADLINE) is not None
            return
        assert other.dequeue() is None
        assert counts(other) == QueueStats(reserved=1)

    @pytest.mark.parametrize("verb", list(VERBS))
    def test_a_fork_may_not_use_its_parents_adapter(self, verb: str) -> None:
        """It would speak into the parent's connection."""
        queue = self.queue()
        queue.enqueue(self.say())

        assert outcome_in_a_fork(lambda: VERBS[verb](queue)) == WrongProcess.__name__

    def test_a_fork_that_closes_its_copy_does_no_harm(self) -> None:
        """The parent goes on, even in the middle of a job."""
        queue = self.queue()
        queue.enqueue_many([self.say(1), self.say(2)])
        held = reserve(queue)

        assert outcome_in_a_fork(queue.close) == "nothing"
        _, held_next = queue.settle_and_dequeue(Commit(held))
        assert held_next is not None

    def test_threads_with_their_own_adapters_share_the_jobs(self) -> None:
        """Each job is done once, whoever does it."""
        self.queue().enqueue_many([self.say(n) for n in range(200)])

        futures = [self.background(lambda: drain(self.queue())) for _ in range(4)]
        done = [text for future in futures for text in future.result(timeout=3 * DEADLINE)]

        assert sorted(done, key=str) == sorted(range(200), key=str)

    def test_threads_publish_without_loss(self) -> None:
        """Each with its own adapter."""

        def publish(first: int) -> None:
            queue = self.queue()
            for number in range(first, first + 25):
                queue.enqueue(self.say(number))

        for future in [self.background(partial(publish, first)) for first in (0, 25, 50, 75)]:
            future.result(timeout=3 * DEADLINE)

        assert sorted(map(str, drain(self.queue()))) == sorted(map(str, range(100)))
