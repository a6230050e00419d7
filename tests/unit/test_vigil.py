"""Who hangs is found; who was held up together with the machine is not."""

from __future__ import annotations

import pytest

from pulpo_pool.master.slots import SlotTable
from pulpo_pool.master.vigil import GRACE, LATE, WORKER_SILENCE, Vigil
from pulpo_pool.scoreboard import Scoreboard, writing
from pulpo_pool.states import Activity, ExitReason, Role, SlotState

NOW = 10_000.0
TICK = 2.0
PATIENCE = WORKER_SILENCE + GRACE


@pytest.fixture
def scoreboard():
    return Scoreboard(8)


@pytest.fixture
def table():
    return SlotTable.planned(2, 4, (Role.KEEPER,))


@pytest.fixture
def vigil(table, scoreboard):
    for serial, slot in enumerate(table, start=1):
        slot.ordered(serial, 1, NOW)
        slot.born(100 + serial)
        slot.came_up(NOW)
        scoreboard.life(slot.index).serial = serial
        says(scoreboard, slot, Activity.IDLE, heartbeat=NOW)
    return Vigil(table, scoreboard, sleep_duration=5.0)


def says(scoreboard, slot, activity, *, heartbeat, deadline=0.0):
    row = scoreboard.work(slot.index)
    with writing(row):
        row.serial = slot.serial
        row.activity = activity
        row.heartbeat = row.job_started = heartbeat
        row.job_deadline = deadline


def looks(vigil, *times):
    return [vigil.look(now, TICK) for now in times]


def test_a_job_past_its_limit_is_condemned_at_the_second_look(vigil, table, scoreboard):
    says(scoreboard, table.workers[1], Activity.BUSY, heartbeat=NOW, deadline=NOW + 10)

    early, first, second = looks(vigil, NOW + 9, NOW + 11, NOW + 13)

    assert (early, first) == ([], [])
    assert [(s.slot.index, s.reason) for s in second] == [(1, ExitReason.JOB_TIMEOUT)]


def test_a_job_without_a_limit_may_run_for_ever(vigil, table, scoreboard):
    says(scoreboard, table.workers[1], Activity.BUSY, heartbeat=NOW)
    for slot in (table.workers[0], table.services[0]):
        says(scoreboard, slot, Activity.IDLE, heartbeat=NOW + 99_999)

    assert looks(vigil, NOW + 99_999, NOW + 100_000) == [[], []]


def test_another_job_is_another_deadline(vigil, table, scoreboard):
    """Two jobs that are each late once are no worker that is late twice."""
    says(scoreboard, table.workers[1], Activity.BUSY, heartbeat=NOW, deadline=NOW + 10)
    looks(vigil, NOW + 11)
    says(scoreboard, table.workers[1], Activity.BUSY, heartbeat=NOW + 12, deadline=NOW + 12.5)

    assert looks(vigil, NOW + 13) == [[]]


def test_silence_condemns_the_silent_one_only(vigil, table, scoreboard):
    late = NOW + PATIENCE + 1
    says(scoreboard, table.workers[0], Activity.IDLE, heartbeat=late)
    says(scoreboard, table.services[0], Activity.IDLE, heartbeat=late)

    first, second = looks(vigil, late, late + TICK)

    assert first == []
    assert [(s.slot.index, s.reason) for s in second] == [(1, ExitReason.HEARTBEAT)]


def test_after_a_pause_of_the_machine_everybody_gets_another_chance(vigil):
    """The master slept too: its look comes late, and starts the count anew."""
    looks(vigil, NOW + 1)
    slept = NOW + 1 + TICK + LATE + PATIENCE

    woke, next_, second = looks(vigil, slept, slept + TICK, slept + 2 * TICK)

    assert woke == []
    assert next_ != [] or second != []


def test_who_speaks_again_is_forgiven(vigil, table, scoreboard):
    late = NOW + PATIENCE + 1
    looks(vigil, late)
    for slot in table:
        says(scoreboard, slot, Activity.IDLE, heartbeat=late + 1)

    assert looks(vigil, late + TICK) == [[]]


@pytest.mark.parametrize("state", [SlotState.BOOTING, SlotState.STOPPING, SlotState.KILLED])
def test_who_boots_or_leaves_has_a_deadline_of_another_kind(vigil, table, state):
    for slot in table:
        slot.state = state

    assert looks(vigil, NOW + 9_999, NOW + 10_000) == [[], []]
