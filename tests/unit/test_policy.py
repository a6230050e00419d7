"""Policy: what is to be done, from table, settings and time alone."""

from __future__ import annotations

import pytest

from pulpo_pool.master import policy
from pulpo_pool.master.policy import Fork, ForkBudget, Kill, Retire, TellToLeave
from pulpo_pool.master.slots import SlotTable
from pulpo_pool.settings import Settings
from pulpo_pool.states import ExitReason, ForkReason, PoolState, Role, SlotState

NOW = 1_000.0
SETTINGS = Settings(drain_timeout=25.0)


def table_of(workers=4, *, up=True):
    """Return a table in which everybody is up, or nobody is."""
    table = SlotTable.planned(workers, 256, (Role.KEEPER, Role.WEB))
    if up:
        for slot in table:
            bring_up(slot)
    return table


def bring_up(slot):
    slot.ordered(1 + slot.index, 1, NOW + 60)
    slot.born(1_000 + slot.index)
    slot.came_up(NOW)


def decide(table, state=PoolState.RUNNING, now=NOW, budget=None):
    return policy.decide(table, state, SETTINGS, budget or ForkBudget(table.wanted, now), now)


def places(actions, kind):
    return [action.slot.index for action in actions if isinstance(action, kind)]


def die(slot, reason=ExitReason.SIGNAL, *, had_a_job=False, jobs_done=0, now=NOW, worst=True):
    healthy = policy.has_proved_healthy(slot, jobs_done, now)
    policy.after_death(
        slot,
        reason,
        now,
        proved_healthy=healthy,
        had_a_job=had_a_job,
        jitter=(lambda _, longest: longest) if worst else (lambda shortest, _: shortest),
    )


# -- filling places ---------------------------------------------------------------------------


def test_every_empty_place_is_filled_services_too():
    table = table_of(2, up=False)

    assert places(decide(table, PoolState.STARTING), Fork) == [0, 1, 256, 257]


def test_a_full_pool_needs_nothing():
    assert decide(table_of()) == []


def test_places_above_the_wanted_number_stay_empty():
    table = table_of(4, up=False)
    table.scale(1)

    assert places(decide(table), Fork) == [0, 256, 257]


def test_free_places_above_the_wanted_number_retire():
    """A deadline that nobody serves any more would wake the master for ever."""
    table = table_of(4)
    table.workers[2].emptied(ForkReason.RECYCLE)
    table.workers[3].emptied(ForkReason.REPLACE)
    table.workers[3].backs_off(NOW + 60)
    table.scale(2)
    actions = decide(table)
    for action in actions:
        action.slot.retires()

    assert actions == [Retire(slot) for slot in table.workers[2:]]
    assert decide(table) == []
    assert policy.nearest_deadline(table) is None


def test_a_place_in_backoff_waits_for_its_time():
    table = table_of()
    table.workers[1].emptied(ForkReason.REPLACE)
    table.workers[1].backs_off(NOW + 5)

    assert decide(table, now=NOW + 4.9) == []
    assert places(decide(table, now=NOW + 5), Fork) == [1]


def test_while_no_worker_ever_came_up_a_failed_boot_is_not_repeated():
    """Whether the app boots at all is known after one try of each; a storm would tell no more."""
    table = table_of(2, up=False)
    table.workers[0].boot_failures = 1
    bring_up(table.services[0])

    assert places(decide(table, PoolState.STARTING), Fork) == [1, 257]
    bring_up(table.workers[1])
    assert places(decide(table, PoolState.STARTING), Fork) == [0, 257]


def test_a_running_pool_tries_again_even_if_nobody_is_up():
    table = table_of(1, up=False)
    table.workers[0].boot_failures = 9

    assert 0 in places(decide(table, PoolState.RUNNING), Fork)


def test_forks_are_limited_for_the_pool_as_a_whole():
    budget = ForkBudget(workers=4, now=NOW)
    at_once = sum(budget.take(NOW) for _ in range(100))
    in_half_a_second = sum(budget.take(NOW + 0.5) for _ in range(100))
    in_an_hour = sum(budget.take(NOW + 3_600) for _ in range(100))

    assert (at_once, in_half_a_second, in_an_hour) == (10, 5, 10)


def test_a_big_pool_may_start_whole():
    budget = ForkBudget(workers=64, now=NOW)

    assert sum(budget.take(NOW) for _ in range(100)) == 64


def test_who_finds_the_budget_spent_is_forked_later():
    table = table_of(2, up=False)
    budget = ForkBudget(2, NOW)
    while budget.take(NOW):
        pass

    assert decide(table, budget=budget) == []
    assert places(decide(table, budget=budget, now=NOW + 0.1), Fork) == [0]


# -- leaving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [SlotState.BOOTING, SlotState.STOPPING])
def test_who_outlives_a_deadline_is_killed(state):
    table = table_of()
    slot = table.workers[0]
    slot.state, slot.deadline = state, NOW + 1

    assert Kill(slot) not in decide(table, now=NOW + 0.9)
    assert Kill(slot) in decide(table, now=NOW + 1)


def test_who_was_killed_is_not_killed_again():
    table = table_of()
    table.workers[0].killed()

    assert decide(table, now=NOW + 9_999) == []


def test_surplus_workers_are_told_to_leave_booting_ones_too():
    table = table_of(4)
    table.workers[3].ordered(99, 1, NOW + 60)
    table.workers[3].born(5)
    table.scale(2)
    actions = decide(table)

    assert actions == [
        TellToLeave(slot, ExitReason.SCALED_DOWN, NOW + 25) for slot in table.workers[2:]
    ]


@pytest.mark.parametrize(("workers", "quarter"), [(1, 1), (4, 1), (8, 2), (9, 2), (40, 10)])
def test_at_most_a_quarter_is_recycled_at_once(workers, quarter):
    table = table_of(workers)
    table.to_recycle = dict.fromkeys(range(workers), ExitReason.OPERATOR)
    actions = decide(table)

    assert places(actions, TellToLeave) == list(range(quarter))
    assert {action.reason for action in actions} == {ExitReason.OPERATOR}


@pytest.mark.parametrize("state", [SlotState.BOOTING, SlotState.STOPPING, SlotState.BACKOFF])
def test_those_that_are_down_already_count_towards_the_quarter(state):
    table = table_of(8)
    table.to_recycle = dict.fromkeys((0, 1, 2), ExitReason.OPERATOR)
    table.workers[7].state, table.workers[7].deadline = state, NOW + 60

    assert places(decide(table), TellToLeave) == [0]


def test_the_pool_leaves_in_order_workers_then_keeper_then_web():
    """The keeper hands back what workers leave; web shows it all."""
    table = table_of(2)
    told = []
    for _ in range(3):
        actions = decide(table, PoolState.DRAINING)
        told.append([(a.slot.label, a.deadline - NOW) for a in actions])
        for action in actions:
            action.slot.told_to_leave(action.reason, action.deadline)
        assert decide(table, PoolState.DRAINING) == [], "nobody is told twice"
        for action in actions:
            action.slot.emptied(ForkReason.RECYCLE)

    assert told == [[("worker 0", 25), ("worker 1", 25)], [("keeper", 5)], [("web", 5)]]
    assert policy.is_stopped(table)


def test_a_draining_pool_forks_nobody_and_goes_on_killing():
    table = table_of(3)
    table.workers[0].emptied(ForkReason.REPLACE)
    table.workers[1].told_to_leave(ExitReason.SHUTDOWN, NOW - 1)
    actions = decide(table, PoolState.DRAINING)

    assert Kill(table.workers[1]) in actions
    assert places(actions, Fork) == []


# -- after a death ----------------------------------------------------------------------------


def test_the_first_replacement_is_immediate():
    slot = table_of().workers[0]
    die(slot)

    assert (slot.state, slot.next_fork) == (SlotState.EMPTY, ForkReason.REPLACE)


def test_deaths_in_a_row_without_a_job_back_off_up_to_a_minute():
    slot = table_of().workers[0]
    waits = []
    for _ in range(9):
        die(slot)
        waits.append(slot.deadline - NOW if slot.state is SlotState.BACKOFF else 0)
        bring_up(slot)

    assert waits == [0, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_backoff_is_never_shorter_than_a_second():
    slot = table_of().workers[0]
    die(slot)
    bring_up(slot)
    die(slot, worst=False)

    assert slot.deadline == NOW + 1


def test_a_death_with_a_job_is_replaced_at_once_however_often():
    """The job's own count of crashes ends the series."""
    slot = table_of().workers[0]
    for _ in range(20):
        die(slot, had_a_job=True)
        assert slot.state is SlotState.EMPTY
        bring_up(slot)

    assert slot.failures == 0


@pytest.mark.parametrize(
    ("jobs_done", "later", "healthy"), [(0, 59.9, False), (1, 0.0, True), (0, 60.0, True)]
)
def test_a_finished_job_or_a_minute_makes_up_for_earlier_failures(jobs_done, later, healthy):
    slot = table_of().workers[0]
    slot.failures = 5
    die(slot, jobs_done=jobs_done, now=NOW + later)

    assert slot.failures == (1 if healthy else 6)
    assert (slot.state is SlotState.EMPTY) is healthy


def test_a_planned_exit_is_a_recycling_and_wipes_the_record():
    slot = table_of().workers[0]
    slot.failures = 5
    die(slot, ExitReason.IDLE)

    assert (slot.state, slot.next_fork, slot.failures) == (
        SlotState.EMPTY,
        ForkReason.RECYCLE,
        0,
    )


def test_a_death_before_ready_is_a_failed_boot():
    table = table_of(2, up=False)
    slot = table.workers[0]
    for failures in (1, 2):
        slot.ordered(failures, 1, NOW + 60)
        slot.born(100)
        die(slot, ExitReason.BOOT)
        assert slot.boot_failures == failures

    assert slot.state is SlotState.BACKOFF


# -- the pool as a whole ----------------------------------------------------------------------


def test_nobody_boots_once_each_worker_has_failed_and_none_is_still_trying():
    table = table_of(3, up=False)
    verdicts = []
    for slot in table.workers:
        slot.ordered(slot.index, 1, NOW + 60)
        slot.born(100 + slot.index)
    for slot in table.workers:
        verdicts.append(policy.nobody_boots(table))
        die(slot, ExitReason.BOOT)
    verdicts.append(policy.nobody_boots(table))

    assert verdicts == [False, False, False, True]


@pytest.mark.parametrize(
    ("failures", "looping"),
    [([0, 0, 0, 0], False), ([3, 0, 0, 0], False), ([3, 3, 0, 0], True), ([2, 2, 2, 2], False)],
)
def test_a_pool_is_crash_looping_when_half_of_it_fails_again_and_again(failures, looping):
    table = table_of(4)
    for slot, count in zip(table.workers, failures, strict=True):
        slot.failures = count

    assert policy.is_crash_looping(table) is looping


def test_failures_of_places_nobody_wants_any_more_do_not_count():
    table = table_of(4)
    table.workers[3].failures = 9
    table.workers[2].failures = 9
    table.scale(2)

    assert not policy.is_crash_looping(table)


def test_the_loop_sleeps_until_the_nearest_deadline():
    table = table_of(2)
    nobody = policy.nearest_deadline(table)
    table.workers[0].told_to_leave(ExitReason.OPERATOR, NOW + 25)
    table.services[0].emptied(ForkReason.REPLACE)
    table.services[0].backs_off(NOW + 2)

    assert nobody is None
    assert policy.nearest_deadline(table) == NOW + 2
