"""The contract of rescuing: a dead worker's jobs come back, and what that costs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pulpo_pool.contracts.bench import HELD_BY, OTHER, Bench, counts, reserve, said
from pulpo_pool.errors import ReservationLost
from pulpo_pool.queues.adapter import (
    BuryReason,
    CrashLimit,
    Fate,
    JobState,
    QueueStats,
    Verdict,
)

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import Judge, Owner, QueueAdapter, Reservation


def all_are(fate: Fate, evidence: str = "") -> Judge:
    """Return a judge who says the same of everybody."""
    return lambda _owner: Verdict(fate, evidence)


class RescuingContract(Bench):
    """rescue."""

    @pytest.fixture
    def held(self) -> Reservation:
        """Return a job that HELD_BY holds in `default`."""
        if not self.rescues:
            pytest.skip("this engine frees the jobs of the dead by itself")
        holder = self.queue(owner=HELD_BY)
        holder.enqueue(self.say("held"))
        return reserve(holder)

    def crash(self, queue: QueueAdapter, limit: CrashLimit | None = None) -> None:
        """Let whoever holds a job die with it."""
        queue.rescue(all_are(Fate.CRASHED, "signal 9"), limit or CrashLimit())

    def test_the_living_keep_their_jobs(self, held: Reservation) -> None:
        """Nothing is taken, nothing reported."""
        queue = self.queue()

        assert queue.rescue(all_are(Fate.ALIVE), CrashLimit()) == []
        assert counts(queue) == QueueStats(reserved=1)
        queue.commit(held)

    @pytest.mark.parametrize(
        ("fate", "attempt", "crashes"),
        [(Fate.CRASHED, 2, 1), (Fate.GONE, 2, 0), (Fate.CUT_OFF, 1, 0)],
    )
    def test_a_dead_owners_job_is_back_at_once(
        self, held: Reservation, fate: Fate, attempt: int, crashes: int
    ) -> None:
        """What its end costs: a crash and an attempt, an attempt, or nothing."""
        queue = self.queue()
        verdict = Verdict(fate, "how it ended")
        (rescued,) = queue.rescue(lambda _owner: verdict, CrashLimit())

        assert (rescued.job_id, rescued.queue, rescued.owner) == (held.job_id, "default", HELD_BY)
        assert (rescued.verdict, rescued.state) == (verdict, JobState.READY)
        assert (rescued.crashes, rescued.raw) == (crashes, held.raw)
        again = reserve(queue)
        assert (again.attempt, again.crashes) == (attempt, crashes)

    def test_a_rescued_job_keeps_its_place(self, held: Reservation) -> None:
        """It was first and is first again."""
        queue = self.queue()
        queue.enqueue(self.say("later"))
        queue.rescue(all_are(Fate.GONE), CrashLimit())

        assert reserve(queue).job_id == held.job_id

    def test_the_old_holder_has_lost_it(self, held: Reservation) -> None:
        """Should it live after all, it cannot settle."""
        queue = self.queue(owner=HELD_BY)
        queue.rescue(all_are(Fate.GONE), CrashLimit())

        with pytest.raises(ReservationLost):
            queue.commit(held)

    def test_too_many_crashes_bury_a_job_with_the_evidence(self, held: Reservation) -> None:
        """It does not kill the next worker."""
        queue = self.queue(owner=OTHER)
        limit = CrashLimit(max_crashes=2)
        self.crash(queue, limit)
        reserve(queue)
        (rescued,) = queue.rescue(all_are(Fate.CRASHED, "signal 11"), limit)
        record = queue.peek(held.job_id)

        assert (rescued.state, rescued.crashes) == (JobState.BURIED, 2)
        assert (record.state, record.crashes) == (JobState.BURIED, 2)
        assert (record.reason, record.error) == (BuryReason.CRASHED, "signal 11")
        assert queue.dequeue() is None

    def test_a_limit_of_one_buries_at_the_first_crash(self, held: Reservation) -> None:
        """For those who want to see it at once."""
        queue = self.queue()
        self.crash(queue, CrashLimit(max_crashes=1))

        assert queue.peek(held.job_id).state is JobState.BURIED

    def test_all_crashes_but_the_first_wait(self, held: Reservation) -> None:
        """The delay is asked for with the number of crashes so far."""
        asked: list[int] = []

        def delay(crashes: int) -> float:
            asked.append(crashes)
            return 2 * self.moment

        queue = self.queue(owner=OTHER)
        limit = CrashLimit(max_crashes=5, delay=delay)
        self.crash(queue, limit)

        assert reserve(queue).job_id == held.job_id
        assert asked == []

        self.crash(queue, limit)

        assert asked == [2]
        assert queue.dequeue() is None
        assert counts(queue) == QueueStats(delayed=1)

        self.pass_time(2.5 * self.moment)

        assert reserve(queue).crashes == 2  # noqa: PLR2004

    def test_a_crash_is_kept_for_people(self, held: Reservation) -> None:
        """The evidence is the job's error, even while it is tried again."""
        queue = self.queue()
        self.crash(queue)

        assert queue.peek(held.job_id).error == "signal 9"

    def test_kicked_jobs_start_with_no_crashes(self, held: Reservation) -> None:
        """A fresh count is fresh for crashes too."""
        queue = self.queue()
        self.crash(queue, CrashLimit(max_crashes=1))
        queue.kick([held.job_id])
        again = reserve(queue)

        assert (again.attempt, again.crashes) == (1, 0)

    def test_reservations_of_nobody_are_left_to_their_lease(self) -> None:
        """What a publisher or a test holds has no owner to be dead."""
        queue = self.queue()
        queue.enqueue(self.say())
        reserve(queue)

        assert queue.rescue(all_are(Fate.CRASHED), CrashLimit()) == []

    def test_every_queue_of_the_engine_is_looked_at(self, held: Reservation) -> None:
        """Whatever the rescuing adapter itself listens to."""
        elsewhere = self.queue(queues=["elsewhere"], owner=OTHER)
        elsewhere.enqueue(self.say(queue="elsewhere"))
        reserve(elsewhere)
        rescued = self.queue(queues=["third"]).rescue(all_are(Fate.GONE), CrashLimit())

        assert {job.queue for job in rescued} == {held.queue, "elsewhere"}

    def test_only_the_dead_are_robbed(self, held: Reservation) -> None:
        """The judge is asked about each owner, and only his verdict counts."""
        other = self.queue(owner=OTHER)
        other.enqueue(self.say("living"))
        living = reserve(other)

        def judge(owner: Owner) -> Verdict:
            return Verdict(Fate.GONE if owner == HELD_BY else Fate.ALIVE)

        (rescued,) = self.queue().rescue(judge, CrashLimit())

        assert rescued.job_id == held.job_id
        other.commit(living)

    def test_an_owner_is_judged_once(self, held: Reservation) -> None:
        """However many jobs it holds, they share its fate."""
        holder = self.queue(owner=HELD_BY)
        holder.enqueue_many([self.say(n) for n in range(3)])
        for _ in range(3):
            reserve(holder)
        judged: list[Owner] = []

        def judge(owner: Owner) -> Verdict:
            judged.append(owner)
            return Verdict(Fate.GONE)

        rescued = self.queue().rescue(judge, CrashLimit())

        assert judged == [held_by := HELD_BY]
        assert [job.owner for job in rescued] == [held_by] * 4
        assert held.job_id in {job.job_id for job in rescued}

    def test_a_job_settled_while_the_judge_thinks_is_not_rescued(self, held: Reservation) -> None:
        """It is gone, and stays gone."""
        queue, holder = self.queue(), self.queue(owner=HELD_BY)

        def judge(_owner: Owner) -> Verdict:
            holder.commit(held)
            return Verdict(Fate.CRASHED)

        assert queue.rescue(judge, CrashLimit()) == []
        assert queue.stats() == {}

    def test_a_job_reserved_again_while_the_judge_thinks_is_not_rescued(
        self, held: Reservation
    ) -> None:
        """Old knowledge of an owner does not take the job from the next one, even of its name."""
        queue, holder = self.queue(), self.queue(owner=HELD_BY)
        taken: list[Reservation] = []

        def judge(_owner: Owner) -> Verdict:
            holder.rollback(held)
            taken.append(reserve(holder))
            return Verdict(Fate.CRASHED)

        assert queue.rescue(judge, CrashLimit()) == []
        assert said(taken[0]) == "held"
        holder.commit(taken[0])

    def test_a_dead_owners_job_is_rescued_after_its_lease_too(self, held: Reservation) -> None:
        """As long as nobody took it, the crash is still counted."""
        queue = self.queue()
        self.pass_time(100 * self.moment)
        (rescued,) = queue.rescue(all_are(Fate.CRASHED), CrashLimit())

        assert (rescued.job_id, rescued.crashes) == (held.job_id, 1)

    def test_a_job_is_rescued_once(self, held: Reservation) -> None:
        """The second rescue finds it ready."""
        queue = self.queue()

        assert len(queue.rescue(all_are(Fate.CRASHED), CrashLimit())) == 1
        assert queue.rescue(all_are(Fate.CRASHED), CrashLimit()) == []
        assert queue.peek(held.job_id).crashes == 1
