"""When workers are replaced, kept, parked and brought back: policy without a fork."""

from __future__ import annotations

import logging
import os
import random
import signal

import pytest

from pulpo_pool.cgroup import Cgroups
from pulpo_pool.master import policy
from pulpo_pool.master.commands import recycled_slots
from pulpo_pool.master.control import Refused
from pulpo_pool.master.memory_watch import LOOK, MemoryWatch
from pulpo_pool.master.parking import Parking
from pulpo_pool.master.policy import Fork, ForkBudget, TellToLeave
from pulpo_pool.master.requests import LONGEST_PATIENCE, SHORTEST_PATIENCE, Requests
from pulpo_pool.master.slots import SlotTable
from pulpo_pool.memory import private_memory
from pulpo_pool.scoreboard import Scoreboard, writing
from pulpo_pool.settings import Settings
from pulpo_pool.states import Activity, ExitReason, ForkReason, PoolState, Role
from pulpo_pool.worker.lifespan import MEMORY_LOOK, Lifespan

NOW = 1_000.0
MB = 1_000_000


def exactly(_low, _high):
    """Draw the middle, where the test is not about jitter."""
    return 1.0


class Pool:
    """A table and a scoreboard in which every worker is up and waits for work."""

    def __init__(self, workers=4):
        self.table = SlotTable.planned(workers, 16, (Role.KEEPER,))
        self.scoreboard = Scoreboard(18)
        for slot in self.table:
            self.bring_up(slot)

    def bring_up(self, slot, now=NOW):
        slot.ordered(slot.serial + 20 + slot.index, 1, now + 60)
        slot.pid = os.getpid()
        slot.came_up(now)
        self.scoreboard.life(slot.index).serial = slot.serial
        self.show(slot.index, Activity.IDLE, asks=0, fresh_memory=0)

    def show(self, index, activity=Activity.BUSY, **fields):
        with writing(self.scoreboard.work(index)) as row:
            row.serial = self.table.workers[index].serial if index < 16 else 1
            row.activity = activity
            for name, value in fields.items():
                setattr(row, name, value)

    def ask(self, index, reason, after=20, memory=0):
        self.show(index, asks=reason, asked_after=after, memory=memory)

    def leave(self, index, reason=ExitReason.IDLE):
        slot = self.table.workers[index]
        policy.after_death(slot, reason, NOW, proved_healthy=True, had_a_job=False, jitter=exactly)
        return slot

    def decide(self, budget=None):
        budget = budget or ForkBudget(4, NOW)
        return policy.decide(self.table, PoolState.RUNNING, Settings(), budget, NOW)

    def told(self):
        return {a.slot.index: a.reason for a in self.decide() if isinstance(a, TellToLeave)}

    def states(self):
        return [slot.state.name for slot in self.table.workers]


class TestLifespan:
    def lifespan(self, jitter=exactly, born=NOW, **settings):
        self.row = Scoreboard(1).work(0)
        return Lifespan(Settings(**settings), self.row, born, jitter)

    def asked(self):
        return ExitReason(self.row.asks), self.row.asked_after

    def test_without_limits_nothing_is_ever_asked(self):
        life = self.lifespan()

        assert not any(life.reached_by_job(NOW + n) for n in range(1_000))
        assert not life.reached_by_now(NOW + 1e9)
        assert self.row.asks == 0

    def test_after_so_many_jobs_it_asks_once_and_goes_on(self):
        life = self.lifespan(max_jobs=3)

        assert [life.reached_by_job(NOW) for _ in range(6)] == [0, 0, 1, 0, 0, 0]
        assert self.asked() == (ExitReason.MAX_JOBS, 3)

    def test_it_asks_at_its_age_whether_or_not_there_are_jobs(self):
        busy, idle = self.lifespan(max_age=60), self.lifespan(max_age=60)

        assert [busy.reached_by_job(NOW + at) for at in (59, 61, 62)] == [False, True, False]
        assert [idle.reached_by_now(NOW + at) for at in (59, 61, 62)] == [False, True, False]
        assert self.asked() == (ExitReason.MAX_AGE, 0)

    @pytest.mark.parametrize(
        ("setting", "ends"),
        [
            ({"max_jobs": 100}, lambda life: [life.reached_by_job(NOW) for _ in range(111)]),
            ({"max_age": 100}, lambda life: [life.reached_by_job(NOW + n) for n in range(111)]),
        ],
    )
    def test_each_life_draws_its_limit_within_a_tenth(self, setting, ends):
        drawn = [
            ends(self.lifespan(random.Random(seed).uniform, **setting)).index(True)
            for seed in range(100)
        ]

        assert 89 <= min(drawn) < 95
        assert 105 < max(drawn) <= 110

    def test_one_job_for_each_life_means_one(self):
        lives = [self.lifespan(random.Random(seed).uniform, max_jobs=1) for seed in range(20)]

        assert all(life.reached_by_job(NOW) for life in lives)

    def test_memory_is_looked_at_after_the_first_job_then_seldom(self):
        life = self.lifespan(max_memory=private_memory() + 32 * MB)
        first = life.reached_by_job(NOW)
        ballast = os.urandom(64 * MB)
        early, late = (life.reached_by_job(NOW + MEMORY_LOOK * share) for share in (0.9, 1.1))

        assert len(ballast) == 64 * MB
        assert (first, early, late) == (False, False, True)
        assert self.asked() == (ExitReason.MAX_MEMORY, 3)
        assert self.row.memory > 64 * MB

    def test_a_worker_that_waits_looks_too(self):
        life = self.lifespan(max_memory=private_memory() + 32 * MB)
        life.reached_by_job(NOW)
        ballast = os.urandom(64 * MB)

        assert life.reached_by_now(NOW + MEMORY_LOOK)
        assert len(ballast) == 64 * MB

    def test_one_that_is_too_big_when_born_asks_before_its_first_job(self):
        self.lifespan(max_memory=1)

        assert self.asked() == (ExitReason.MAX_MEMORY, 0)
        assert self.row.fresh_memory == self.row.memory > 1

    def test_the_soft_limit_is_never_drawn_above_the_hard_one(self):
        size = private_memory()
        hard = size - 2 * MB
        self.lifespan(lambda _, high: high, max_memory=size - 3 * MB, max_memory_hard=hard)

        assert self.row.asks == ExitReason.MAX_MEMORY

    def test_who_was_not_heard_asks_for_another_reason_later(self):
        life = self.lifespan(max_memory=1, max_jobs=2)
        life.reached_by_job(NOW)

        assert life.reached_by_job(NOW)
        assert self.asked() == (ExitReason.MAX_JOBS, 2)

    def test_what_cannot_be_refused_is_not_taken_back(self):
        life = self.lifespan(max_memory=1, max_jobs=1)
        life.reached_by_job(NOW)

        assert not life.reached_by_now(NOW + MEMORY_LOOK)
        assert self.asked() == (ExitReason.MAX_JOBS, 1)


class TestRequests:
    def test_who_asks_is_let_go_a_quarter_at_a_time(self):
        pool = Pool(8)
        for index in range(8):
            pool.ask(index, ExitReason.MAX_JOBS)
        Requests(pool.table, pool.scoreboard, 0).hear(NOW)

        assert pool.told() == dict.fromkeys((0, 1), ExitReason.MAX_JOBS)

    def test_a_pool_of_one_lets_its_worker_go(self):
        pool = Pool(1)
        pool.ask(0, ExitReason.MAX_AGE)
        Requests(pool.table, pool.scoreboard, 0).hear(NOW)

        assert pool.told() == {0: ExitReason.MAX_AGE}

    def test_what_a_former_life_asked_for_is_void(self):
        pool = Pool()
        pool.ask(1, ExitReason.MAX_JOBS)
        pool.scoreboard.work(1).serial -= 1
        Requests(pool.table, pool.scoreboard, 0).hear(NOW)

        assert pool.told() == {}

    def test_an_earlier_reason_stays(self):
        pool = Pool()
        pool.table.to_recycle[1] = ExitReason.RELOAD
        pool.ask(1, ExitReason.MAX_JOBS)
        Requests(pool.table, pool.scoreboard, 0).hear(NOW)

        assert pool.told() == {1: ExitReason.RELOAD}

    def test_parked_places_make_the_quarter_smaller(self):
        """A quarter of those who work: else two of the two that are left could go at once."""
        pool = Pool(8)
        for slot in pool.table.workers[2:]:
            slot.parks()
        for index in range(2):
            pool.ask(index, ExitReason.MAX_JOBS)
        Requests(pool.table, pool.scoreboard, 0).hear(NOW)

        assert pool.told() == {0: ExitReason.MAX_JOBS}

    def test_workers_too_big_from_the_start_are_replaced_ever_more_seldom(self, caplog):
        """A limit below what a worker needs must not become a storm of recycling."""
        pool, lives = Pool(1), []
        requests = Requests(pool.table, pool.scoreboard, 20 * MB)
        slot, now = pool.table.workers[0], NOW
        with caplog.at_level(logging.WARNING):
            for _ in range(9):
                pool.bring_up(slot, now)
                pool.ask(0, ExitReason.MAX_MEMORY, after=1, memory=31 * MB)
                born = now
                while not pool.table.to_recycle:
                    now += 1
                    requests.hear(now)
                pool.table.to_recycle.clear()
                lives.append(now - born)

        assert lives[:4] == [SHORTEST_PATIENCE * factor for factor in (1, 2, 4, 8)]
        assert lives[-1] == LONGEST_PATIENCE
        [warning] = caplog.messages
        assert warning.startswith("max-memory (20 MB) is below what a worker needs: 31 MB are")

    def test_one_that_grew_is_replaced_at_once(self):
        pool = Pool(1)
        pool.table.workers[0].early_lives = 3
        pool.ask(0, ExitReason.MAX_MEMORY, after=2, memory=31 * MB)
        Requests(pool.table, pool.scoreboard, 20 * MB).hear(NOW)

        assert pool.told() == {0: ExitReason.MAX_MEMORY}
        assert pool.table.workers[0].early_lives == 0

    def test_replacements_of_those_let_go_need_no_budget(self):
        """The quarter paces them; what is rationed is what nobody planned."""
        pool, empty = Pool(4), ForkBudget(4, NOW)
        while empty.take(NOW):
            pass
        pool.table.workers[0].told_to_leave(ExitReason.MAX_JOBS, NOW + 25)
        pool.leave(0, ExitReason.MAX_JOBS)
        pool.leave(1, ExitReason.IDLE)
        forks = [action.slot.index for action in pool.decide(empty) if isinstance(action, Fork)]

        assert forks == [0]


class TestParking:
    def test_idle_workers_above_the_minimum_park_and_others_are_replaced(self):
        pool = Pool(4)
        parking = Parking(pool.table, pool.scoreboard, 2)
        for index in range(4):
            parking.park(pool.leave(index), ExitReason.IDLE)

        assert pool.states() == ["EMPTY", "EMPTY", "PARKED", "PARKED"]
        assert pool.scoreboard.header.parked_workers == 2
        assert [a.slot.index for a in pool.decide() if isinstance(a, Fork)] == [0, 1]

    @pytest.mark.parametrize("reason", [ExitReason.MAX_JOBS, ExitReason.SIGNAL, ExitReason.RELOAD])
    def test_only_idleness_parks(self, reason):
        pool = Pool(4)
        Parking(pool.table, pool.scoreboard, 1).park(pool.leave(3, reason), reason)

        assert pool.states()[3] == "EMPTY"

    def test_a_place_whose_successor_is_waited_for_is_filled(self):
        """A reload would otherwise wait for a worker that comes only with more work."""
        pool = Pool(4)
        parking = Parking(pool.table, pool.scoreboard, 1)
        pool.table.to_recycle[2] = ExitReason.RELOAD
        pool.table.workers[3].told_to_leave(ExitReason.RELOAD, NOW + 25)
        for index in (2, 3):
            parking.park(pool.leave(index), ExitReason.IDLE)

        assert pool.states() == ["UP", "UP", "EMPTY", "EMPTY"]

    def test_without_a_minimum_nobody_parks(self):
        pool = Pool(4)
        Parking(pool.table, pool.scoreboard, 0).park(pool.leave(3), ExitReason.IDLE)

        assert pool.states()[3] == "EMPTY"

    def parked(self, workers, parked):
        pool = Pool(workers)
        for slot in pool.table.workers[workers - parked :]:
            slot.parks()
        return pool, Parking(pool.table, pool.scoreboard, workers - parked)

    def test_while_anybody_waits_for_a_job_nobody_returns(self):
        pool, parking = self.parked(4, 2)
        pool.show(0)

        assert parking.fill() == []

    def test_when_the_last_one_turns_busy_as_many_return_as_are_busy(self):
        pool, parking = self.parked(8, 6)
        pool.show(0)
        pool.show(1)
        first = [slot.index for slot in parking.fill()]
        while_they_boot = parking.fill()
        for slot in pool.table.workers[2:4]:
            pool.bring_up(slot)
            pool.show(slot.index)
        second = [slot.index for slot in parking.fill()]

        assert first == [2, 3]
        assert while_they_boot == []
        assert second == [4, 5, 6, 7]
        assert pool.scoreboard.header.parked_workers == 0
        assert all(slot.next_fork is ForkReason.RETURN for slot in pool.table.workers[2:])

    def test_one_that_leaves_with_a_long_job_counts_as_busy(self):
        pool, parking = self.parked(2, 1)
        pool.show(0)
        pool.table.workers[0].told_to_leave(ExitReason.MAX_JOBS, NOW + 25)

        assert [slot.index for slot in parking.fill()] == [1]

    def test_a_pool_without_any_work_stays_parked(self):
        """Such as one whose last worker is in backoff: more of the same would not help."""
        pool, parking = self.parked(2, 1)
        pool.leave(0, ExitReason.SIGNAL).backs_off(NOW + 60)

        assert parking.fill() == []

    def test_a_place_is_not_parked_while_all_others_are_busy(self):
        """A job may have come between its worker's last look and its end."""
        pool = Pool(2)
        pool.show(0)
        Parking(pool.table, pool.scoreboard, 1).park(pool.leave(1), ExitReason.IDLE)

        assert pool.states() == ["UP", "EMPTY"]

    def test_parked_places_shrink_and_grow_with_the_pool(self):
        pool, _ = self.parked(4, 2)
        pool.table.scale(3)
        shrunk = pool.states()
        pool.table.scale(4)

        assert shrunk == ["UP", "UP", "PARKED", "RETIRED"]
        assert pool.states() == ["UP", "UP", "PARKED", "EMPTY"]

    def test_scaled_below_the_minimum_all_that_are_left_stay(self):
        pool = Pool(4)
        parking = Parking(pool.table, pool.scoreboard, 3)
        pool.table.scale(2)
        parking.park(pool.leave(1), ExitReason.IDLE)

        assert pool.states()[1] == "EMPTY"

    def test_a_crash_loop_is_judged_by_those_who_work(self):
        pool, _ = self.parked(4, 3)
        pool.table.workers[0].failures = policy.CRASH_LOOP

        assert policy.is_crash_looping(pool.table)

    def test_recycling_means_the_workers_that_are_there(self):
        pool, _ = self.parked(4, 2)

        assert recycled_slots("", pool.table) == {0, 1}
        with pytest.raises(Refused, match="slot 3 is parked"):
            recycled_slots("3", pool.table)


class TestMemoryWatch:
    def watch(self, pool, limit=0, tmp_path=None):
        none = Cgroups(tmp_path / "cgroup", tmp_path) if tmp_path else Cgroups()
        return MemoryWatch(pool.table, pool.scoreboard, limit, none)

    def test_workers_over_the_hard_limit_are_found_every_few_seconds(self):
        """Every worker of this pool is this process, so all are equally big."""
        pool = Pool(2)
        limit = private_memory() // 2
        watch = self.watch(pool, limit)
        first = [(slot.index, size > limit) for slot, size in watch.too_big(NOW)]

        assert first == [(0, True), (1, True)]
        assert list(watch.too_big(NOW + LOOK / 2)) == []
        assert len(list(watch.too_big(NOW + LOOK))) == 2

    def test_who_is_below_it_is_left_alone(self):
        pool = Pool(2)

        assert list(self.watch(pool, private_memory() * 2).too_big(NOW)) == []
        assert list(self.watch(pool, 0).too_big(NOW)) == []

    def test_a_limit_below_what_a_newborn_has_is_named_and_kills_nobody(self, caplog):
        pool = Pool(2)
        fresh = private_memory() + MB
        for index in range(2):
            pool.show(index, fresh_memory=fresh)
        found = list(self.watch(pool, fresh - 2 * MB).too_big(NOW))

        assert found == []
        [warning] = caplog.messages
        assert warning.startswith("max-memory-hard (")

    @pytest.mark.parametrize(
        ("membership", "file", "text"),
        [
            ("0::/pod\n", "pod/memory.events", "low 0\noom 4\noom_kill {}\noom_group_kill 0\n"),
            ("4:memory:/pod\n", "memory/pod/memory.oom_control", "under_oom 0\noom_kill {}\n"),
            ("4:memory:/docker/1\n", "memory/memory.oom_control", "oom_kill {}\n"),
        ],
    )
    def test_a_kill_that_the_kernel_counts_is_for_want_of_memory(
        self, tmp_path, membership, file, text
    ):
        (tmp_path / "cgroup").write_text(membership)
        events = tmp_path / file
        events.parent.mkdir(parents=True, exist_ok=True)
        events.write_text(text.format(2))
        pool = Pool(3)
        one, other, ours = pool.table.workers
        watch = self.watch(pool, tmp_path=tmp_path)
        before = watch.was_oom_kill(one, signal.SIGKILL)
        events.write_text(text.format(3))
        ours.killed()

        assert not before
        assert not watch.was_oom_kill(ours, signal.SIGKILL)
        assert not watch.was_oom_kill(one, signal.SIGSEGV)
        assert watch.was_oom_kill(one, signal.SIGKILL)
        assert not watch.was_oom_kill(other, signal.SIGKILL)

    def test_where_nothing_can_be_read_no_kill_is_explained(self, tmp_path):
        pool = Pool(1)
        watch = self.watch(pool, tmp_path=tmp_path)

        assert not watch.was_oom_kill(pool.table.workers[0], signal.SIGKILL)


def test_planned_replacements_are_no_failures():
    failures = {reason.name for reason in ExitReason if reason.failed}

    by_master = {"CUT_OFF", "OOM", "JOB_TIMEOUT", "HEARTBEAT"}
    assert failures == {"ERROR", "SIGNAL", "BOOT"} | by_master
