"""A slot's bookkeeping: a life goes forward, and the table knows who is wanted."""

from __future__ import annotations

import pytest

from pulpo_pool.master.slots import Slot, SlotTable
from pulpo_pool.states import ExitReason, ForkReason, Order, Role, SlotState


def worker(index=0):
    return Slot(index, Role.WORKER)


def planned(workers=2, services=(Role.KEEPER, Role.WEB)):
    return SlotTable.planned(workers, 256, services)


def test_a_life_goes_from_birth_to_an_empty_place():
    slot = worker()
    slot.ordered(7, 1, 60.0)
    slot.born(100)
    booting = (slot.state, slot.deadline, slot.alive)
    slot.came_up(now=1.0)
    up = (slot.state, slot.deadline, slot.ever_up)
    slot.told_to_leave(ExitReason.IDLE, deadline=25.0)
    stopping = (slot.state, slot.deadline, slot.order, slot.leave_as)
    slot.killed()
    killed = (slot.state, slot.deadline, slot.alive)
    slot.emptied(ForkReason.RECYCLE)

    assert booting == (SlotState.BOOTING, 60.0, True)
    assert up == (SlotState.UP, None, True)
    assert stopping == (SlotState.STOPPING, 25.0, Order.LEAVE, ExitReason.IDLE)
    assert killed == (SlotState.KILLED, None, True)
    assert (slot.state, slot.pid, slot.alive) == (SlotState.EMPTY, 0, False)
    assert slot.next_fork is ForkReason.RECYCLE


def test_who_was_told_to_leave_is_not_told_again():
    """The first reason and its deadline stand, whatever comes later."""
    slot = worker()
    slot.ordered(7, 1, 60.0)
    slot.born(100)
    slot.told_to_leave(ExitReason.SCALED_DOWN, deadline=25.0)
    slot.told_to_leave(ExitReason.SHUTDOWN, deadline=99.0)

    assert (slot.leave_as, slot.deadline) == (ExitReason.SCALED_DOWN, 25.0)


@pytest.mark.parametrize("state", [SlotState.EMPTY, SlotState.BACKOFF, SlotState.RETIRED])
def test_an_empty_place_cannot_be_told_to_leave(state):
    slot = worker()
    slot.state = state
    slot.told_to_leave(ExitReason.SHUTDOWN, deadline=25.0)

    assert (slot.state, slot.order) == (state, Order.WORK)


def test_a_new_life_inherits_no_orders_and_no_verdict():
    slot = worker()
    slot.ordered(7, 1, 60.0)
    slot.born(100)
    slot.came_up(1.0)
    slot.told_to_leave(ExitReason.OPERATOR, 25.0)
    slot.cut_off = True
    slot.emptied(ForkReason.REPLACE)
    slot.ordered(8, 1, 120.0)
    slot.born(101)

    assert (slot.order, slot.ever_up, slot.cut_off) == (Order.WORK, False, False)
    assert (slot.pid, slot.serial) == (101, 8)


def test_coming_up_forgives_the_boots_that_failed_and_nothing_else():
    slot = worker()
    slot.failures, slot.boot_failures = 5, 3
    slot.ordered(7, 1, 60.0)
    slot.born(100)
    slot.came_up(1.0)

    assert (slot.failures, slot.boot_failures) == (2, 0)


def test_a_retired_place_comes_back_with_a_clean_record():
    slot = worker()
    slot.failures = slot.boot_failures = 4
    slot.retires()
    retired = (slot.state, slot.alive)
    slot.returns()

    assert retired == (SlotState.RETIRED, False)
    assert (slot.state, slot.next_fork) == (SlotState.EMPTY, ForkReason.SCALE_UP)
    assert (slot.failures, slot.boot_failures) == (0, 0)


def test_the_rows_of_services_follow_the_last_possible_worker():
    table = planned(workers=2)

    assert [slot.index for slot in table] == [0, 1, 256, 257]
    assert [slot.label for slot in table] == ["worker 0", "worker 1", "keeper", "web"]
    assert {slot.next_fork for slot in table} == {ForkReason.START}


def test_growing_adds_places_and_shrinking_keeps_them_as_surplus():
    table = planned(workers=2)
    table.scale(4)
    grown = [slot.next_fork for slot in table.workers]
    table.scale(1)
    surplus = [slot.index for slot in table if table.is_surplus(slot)]

    assert grown == [ForkReason.START] * 2 + [ForkReason.SCALE_UP] * 2
    assert len(table.workers) == 4
    assert surplus == [1, 2, 3]


def test_growing_again_calls_retired_places_back_first():
    table = planned(workers=3)
    table.scale(1)
    for slot in table.workers[1:]:
        slot.retires()
    table.scale(2)

    assert [slot.state for slot in table.workers] == [
        SlotState.EMPTY,
        SlotState.EMPTY,
        SlotState.RETIRED,
    ]


def test_a_stranger_is_never_taken_for_a_worker():
    """Nor is the pid of a worker that was reaped: the kernel may have given it away since."""
    table = planned()
    slot = table.workers[0]
    slot.ordered(7, 1, 60.0)
    slot.born(100)
    found = table.by_pid(100)
    slot.emptied(ForkReason.REPLACE)

    assert found is slot
    assert table.by_pid(100) is None
    assert table.by_pid(0) is None


def test_a_service_is_found_by_its_role():
    table = planned(services=(Role.KEEPER,))

    assert table.of_role(Role.KEEPER) == [table.services[0]]
    assert table.of_role(Role.WEB) == []
