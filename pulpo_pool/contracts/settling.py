"""The contract of working: reserving, leases, and the three ways to settle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pulpo_pool.contracts.bench import HELD_BY, OTHER, Bench, counts, drain, reserve, said
from pulpo_pool.errors import NoSuchJob, ReservationLost
from pulpo_pool.queues.adapter import (
    Bury,
    BuryReason,
    Commit,
    JobState,
    QueueStats,
    Rollback,
    Settled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.queues.adapter import QueueAdapter, Reservation, Settlement

SETTLEMENTS = pytest.mark.parametrize(
    "settlement",
    [Commit, Rollback, lambda held: Bury(held, BuryReason.FATAL)],
    ids=["commit", "rollback", "bury"],
)
LATE_CALLS = pytest.mark.parametrize(
    "call",
    [
        lambda queue, held: queue.commit(held),
        lambda queue, held: queue.rollback(held),
        lambda queue, held: queue.bury(held, reason=BuryReason.FATAL),
        lambda queue, held: queue.touch(held),
    ],
    ids=["commit", "rollback", "bury", "touch"],
)


class SettlingContract(Bench):
    """dequeue, commit, rollback, bury, touch, settle_and_dequeue."""

    def test_an_empty_queue_gives_nothing_at_once(self) -> None:
        """Without a timeout dequeue does not wait."""
        assert self.queue().dequeue() is None

    def test_reserving_makes_a_job_reserved(self) -> None:
        """It is counted so, and its record says how often it was tried."""
        queue = self.queue()
        job_id = queue.enqueue(self.say())
        held = reserve(queue)

        assert (held.attempt, held.crashes, held.queue) == (1, 0, "default")
        assert queue.peek(job_id).state is JobState.RESERVED
        assert counts(queue) == QueueStats(reserved=1)

    def test_while_its_lease_lasts_nobody_else_gets_a_job(self) -> None:
        """Neither another adapter nor the same one."""
        mine, theirs = self.queue(owner=HELD_BY), self.queue(owner=OTHER)
        mine.enqueue(self.say())
        reserve(mine)

        assert theirs.dequeue() is None
        assert mine.dequeue() is None

    def test_two_adapters_never_hold_the_same_job(self) -> None:
        """Taking turns, they share the jobs in order."""
        mine, theirs = self.queue(owner=HELD_BY), self.queue(owner=OTHER)
        mine.enqueue_many([self.say(n) for n in range(4)])

        assert [said(q.dequeue()) for q in (mine, theirs, mine, theirs)] == [0, 1, 2, 3]

    def test_a_committed_job_is_gone(self) -> None:
        """No trace is left in the queue."""
        queue = self.queue()
        job_id = queue.enqueue(self.say())
        queue.commit(reserve(queue))

        assert queue.stats() == {}
        with pytest.raises(NoSuchJob):
            queue.peek(job_id)

    def test_a_job_rolled_back_is_ready_at_once_with_its_attempts(self) -> None:
        """Each reservation counts one attempt."""
        queue = self.queue()
        queue.enqueue(self.say())
        attempts = []
        for _ in range(3):
            held = reserve(queue)
            attempts.append(held.attempt)
            queue.rollback(held)

        assert attempts == [1, 2, 3]

    def test_a_job_rolled_back_without_delay_keeps_its_place(self) -> None:
        """A second try does not queue up behind later jobs of its priority."""
        queue = self.queue()
        queue.enqueue_many([self.say("first"), self.say("second")])
        queue.rollback(reserve(queue))

        assert drain(queue) == ["first", "second"]

    def test_a_job_rolled_back_with_a_delay_waits_for_it(self) -> None:
        """It is delayed until then."""
        queue = self.queue()
        queue.enqueue(self.say("again"))
        queue.rollback(reserve(queue), delay=2 * self.moment)
        self.pass_time(self.moment)

        assert queue.dequeue() is None
        assert counts(queue) == QueueStats(delayed=1)

        self.pass_time(1.5 * self.moment)

        assert reserve(queue).attempt == 2  # noqa: PLR2004

    def test_a_job_that_was_not_begun_goes_back_for_free(self) -> None:
        """No attempt is spent where the engine can count them, and the last error stays."""
        queue = self.queue()
        job_id = queue.enqueue(self.say("again"))
        queue.rollback(reserve(queue), error="what went wrong")
        queue.settle(Rollback(reserve(queue), 2 * self.moment, free=True))
        record = queue.peek(job_id)
        self.pass_time(2.5 * self.moment)
        attempt = reserve(queue).attempt

        assert record.state is JobState.DELAYED
        assert attempt == (2 if self.counts_attempts else 3)
        assert not self.keeps_evidence or record.error == "what went wrong"

    def test_a_buried_job_is_kept_out_of_the_way(self) -> None:
        """Workers do not see it, people do."""
        queue = self.queue()
        job_id = queue.enqueue(self.say())
        queue.bury(reserve(queue), reason=BuryReason.FATAL, error="no such customer")
        self.pass_time(3 * self.moment)

        assert queue.dequeue() is None
        assert queue.peek(job_id).state is JobState.BURIED
        assert counts(queue) == QueueStats(buried=1)

    @pytest.mark.parametrize("error", ["no such customer", "", "größe \0 \udc80 🐙"])
    def test_what_went_wrong_is_kept_for_people(self, error: str) -> None:
        """Reason and error of a burial, error of a rollback; any text is fit for it."""
        if not self.keeps_evidence:
            pytest.skip("this engine keeps no evidence")
        queue = self.queue()
        job_id = queue.enqueue(self.say())
        queue.rollback(reserve(queue), error="first " + error)

        assert (queue.peek(job_id).error or "").startswith("first " + error[:5])

        queue.bury(reserve(queue), reason=BuryReason.EXHAUSTED, error="last " + error)
        record = queue.peek(job_id)

        assert record.reason == BuryReason.EXHAUSTED
        assert (record.error or "").startswith("last " + error[:5])

    def test_an_endless_error_settles_too(self) -> None:
        """How much of it is kept is the engine's affair; that the job is settled is not."""
        queue = self.queue()
        queue.enqueue(self.say())
        queue.bury(reserve(queue), reason=BuryReason.FATAL, error="x" * 5_000_000)

        assert counts(queue) == QueueStats(buried=1)

    # -- leases -------------------------------------------------------------------------------

    def test_when_its_lease_ends_a_job_is_ready_again(self) -> None:
        """The attempt stays spent, no crash is counted, and nobody has to come by for it."""
        queue = self.queue(lease=self.moment)
        queue.enqueue(self.say())
        reserve(queue)
        self.pass_time(1.5 * self.moment)

        assert counts(queue) == QueueStats(ready=1)
        held = reserve(queue)
        assert (held.attempt, held.crashes) == (2, 0)

    @LATE_CALLS
    def test_who_lost_a_job_is_told_so(
        self, call: Callable[[QueueAdapter, Reservation], None]
    ) -> None:
        """Settling or touching late raises ReservationLost and leaves the new holder in peace."""
        mine, theirs = self.queue(lease=self.moment), self.queue(lease=10 * self.moment)
        mine.enqueue(self.say())
        late = reserve(mine)
        self.pass_time(1.5 * self.moment)
        current = reserve(theirs)

        with pytest.raises(ReservationLost):
            call(mine, late)

        assert counts(theirs) == QueueStats(reserved=1)
        theirs.commit(current)

    def test_a_lease_that_the_same_adapter_lost_to_itself_is_lost(self) -> None:
        """It is the lease that is settled, not the job: attempt one cannot settle attempt two."""
        queue = self.queue(lease=self.moment)
        queue.enqueue(self.say())
        late = reserve(queue)
        self.pass_time(1.5 * self.moment)
        current = reserve(queue)

        with pytest.raises(ReservationLost):
            queue.commit(late)

        queue.commit(current)

    @LATE_CALLS
    def test_a_job_that_was_settled_is_not_settled_again(
        self, call: Callable[[QueueAdapter, Reservation], None]
    ) -> None:
        """The second time it is nobody's."""
        queue = self.queue()
        queue.enqueue(self.say())
        held = reserve(queue)
        queue.commit(held)

        with pytest.raises(ReservationLost):
            call(queue, held)

    def test_touch_renews_the_lease(self) -> None:
        """For a whole lease from now, and the reservation knows."""
        mine, theirs = self.queue(lease=2 * self.moment), self.queue()
        mine.enqueue(self.say())
        held = reserve(mine)
        before = held.lease_end
        self.pass_time(1.2 * self.moment)
        mine.touch(held)
        self.pass_time(1.2 * self.moment)

        assert theirs.dequeue() is None
        assert held.lease_end > before
        mine.commit(held)

    def test_touch_works_from_another_thread(self) -> None:
        """The lease is renewed while the handler runs."""
        queue = self.queue()
        queue.enqueue(self.say())
        held = reserve(queue)

        self.background(lambda: queue.touch(held)).result()

        queue.commit(held)

    # -- the hot call -------------------------------------------------------------------------

    def test_with_nothing_to_settle_it_only_reserves(self) -> None:
        """The first call of a worker's life."""
        queue = self.queue()
        queue.enqueue(self.say("first"))
        settled, held = queue.settle_and_dequeue(None)

        assert (settled, said(held)) == (Settled.NOTHING, "first")

    @SETTLEMENTS
    def test_it_settles_one_job_and_reserves_the_next(
        self, settlement: Callable[[Reservation], Settlement]
    ) -> None:
        """Each way to settle."""
        queue = self.queue()
        queue.enqueue_many([self.say("one", priority=2), self.say("two", priority=1)])
        queue.enqueue(self.say("zero", priority=0))
        zero = reserve(queue)
        settled, held = queue.settle_and_dequeue(Commit(zero))

        assert (settled, said(held)) == (Settled.DONE, "two")
        assert held is not None
        settled, _ = queue.settle_and_dequeue(settlement(held))
        assert settled is Settled.DONE

    def test_it_settles_when_there_is_nothing_to_reserve(self) -> None:
        """The last job is done, whatever comes."""
        queue = self.queue()
        queue.enqueue(self.say())

        assert queue.settle_and_dequeue(Commit(reserve(queue))) == (Settled.DONE, None)
        assert queue.stats() == {}

    def test_a_job_rolled_back_may_be_the_next(self) -> None:
        """There is no other, so it is tried again."""
        queue = self.queue()
        queue.enqueue(self.say("again"))
        settled, held = queue.settle_and_dequeue(Rollback(reserve(queue)))

        assert (settled, said(held)) == (Settled.DONE, "again")
        assert held is not None
        assert held.attempt == 2  # noqa: PLR2004

    @SETTLEMENTS
    def test_a_lost_lease_does_not_keep_the_next_job_away(
        self, settlement: Callable[[Reservation], Settlement]
    ) -> None:
        """LOST is an answer, not an error, and the next job comes with it."""
        mine, theirs = self.queue(lease=self.moment), self.queue()
        mine.enqueue_many([self.say("one"), self.say("two")])
        late = reserve(mine)
        self.pass_time(1.5 * self.moment)
        reserve(theirs)
        settled, held = mine.settle_and_dequeue(settlement(late))

        assert (settled, said(held)) == (Settled.LOST, "two")
