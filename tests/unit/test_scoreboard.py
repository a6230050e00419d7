"""The scoreboard: one writer, any readers, no torn rows; a ledger of deaths that forgets slowly."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seats import until

from pulpo_pool.scoreboard import Death, Scoreboard, TornRow, WorkRow, as_text, read_row, writing
from pulpo_pool.states import Activity, ExitReason
from pulpo_pool.worker.row import JobRow

DIFFERENT_ROWS = 2_000


def death(serial, reason=ExitReason.SIGNAL):
    return Death(serial, reason, signal.SIGKILL, 1_800_000_000.0, 50_000_000, 1.5)


@pytest.fixture
def hammered():
    """A scoreboard whose first row a real process rewrites as fast as it can."""
    scoreboard = Scoreboard(1)
    row = scoreboard.work(0)
    pid = os.fork()
    if pid == 0:
        number = 0
        while True:
            number += 1
            with writing(row):
                row.jobs_done = number
                row.job_started = float(number)
                row.queue = row.job_id = row.request_type = str(number).encode()
    until(lambda: row.jobs_done > 0)
    yield scoreboard
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_no_read_is_torn_while_another_process_writes(hammered):
    seen = set()

    def enough_whole_rows_read():
        row = hammered.read_work(0)  # None when the writer was put to sleep in a write
        if row is not None:
            text = str(row.jobs_done).encode()
            assert (row.job_started, row.queue, row.job_id, row.request_type) == (
                row.jobs_done, text, text, text,
            )  # fmt: skip
            seen.add(row.jobs_done)
        return len(seen) >= DIFFERENT_ROWS

    until(enough_whole_rows_read, pause=0)


def test_a_row_whose_writer_died_in_the_middle_is_not_read():
    scoreboard = Scoreboard(1)
    row = scoreboard.work(0)
    row.seq |= 1
    row.jobs_done = 7

    with pytest.raises(TornRow):
        read_row(row)
    assert scoreboard.read_work(0) is None


def test_the_next_life_heals_a_row_that_was_left_half_written():
    scoreboard = Scoreboard(1)
    row = scoreboard.work(0)
    pid = os.fork()
    if pid == 0:
        writing(row).__enter__()
        row.jobs_done = 7
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    left_torn = scoreboard.read_work(0)
    with writing(row):
        row.jobs_done = 8

    assert left_torn is None
    assert scoreboard.read_work(0).jobs_done == 8


def test_what_an_earlier_life_wrote_is_not_taken_for_the_present_ones():
    scoreboard = Scoreboard(1)
    life = scoreboard.life(0)
    with writing(scoreboard.work(0)):
        scoreboard.work(0).serial = 1
    with writing(life):
        life.serial = 2

    assert scoreboard.read_work(0) is None


def test_a_death_is_remembered_as_it_was_recorded():
    scoreboard = Scoreboard(1)
    scoreboard.record_death(death(5))

    assert scoreboard.death_of(5) == death(5)
    assert scoreboard.header.exits[ExitReason.SIGNAL] == 1


def test_a_life_that_was_not_recorded_may_still_be_alive():
    scoreboard = Scoreboard(1)
    scoreboard.record_death(death(5))

    assert scoreboard.death_of(6) is None


def test_a_death_that_newer_ones_pushed_out_is_still_a_death():
    scoreboard = Scoreboard(1, ledger_size=4)
    for serial in range(1, 7):
        scoreboard.record_death(death(serial, ExitReason.IDLE))

    assert scoreboard.death_of(2).wait_status == -1
    assert scoreboard.death_of(2).serial == 2
    assert scoreboard.death_of(3) == death(3, ExitReason.IDLE)
    assert scoreboard.death_of(7) is None


def test_a_child_writes_into_the_memory_its_parent_reads():
    scoreboard = Scoreboard(2)
    pid = os.fork()
    if pid == 0:
        with writing(scoreboard.work(1)):
            scoreboard.work(1).queue = as_text("mail")
        os._exit(0)
    os.waitpid(pid, 0)

    assert scoreboard.read_work(1).queue == b"mail"


@given(st.text())
def test_text_is_cut_between_characters(text):
    cut = as_text(text)

    assert len(cut) < 64
    assert text.encode("utf-8", "replace").startswith(cut)
    cut.decode()


def test_text_is_cut_within_a_multi_byte_character():
    assert as_text("a" * 62 + "é") == b"a" * 62
    assert as_text("a" * 61 + "é") == b"a" * 61 + "é".encode()


# -- a worker's job -----------------------------------------------------------------------------


def job_row(scoreboard, slot=0):
    return JobRow(scoreboard.work(slot), scoreboard.hand(slot))


def test_a_job_is_shown_field_by_field():
    """It is packed by its place in the row: whoever moves a field must see this fail."""
    scoreboard = Scoreboard(2)
    scoreboard.work(1).serial = 4
    row = job_row(scoreboard, 1)
    row.begin("17", "mail", "send", 100.0, 160.0)
    begun = read_row(scoreboard.work(1))
    row.end(102.5)
    ended = read_row(scoreboard.work(1))

    shown = (begun.job_id, begun.queue, begun.request_type, begun.activity, begun.serial)
    assert shown == (b"17", b"mail", b"send", Activity.BUSY, 4)
    assert (begun.heartbeat, begun.busy_since, begun.job_started) == (100.0, 100.0, 100.0)
    assert (begun.job_deadline, begun.busy, begun.jobs_done) == (160.0, 0.0, 0)
    assert (ended.heartbeat, ended.busy_since, ended.busy, ended.jobs_done) == (102.5, 0, 2.5, 1)
    assert (ended.job_id, ended.job_started, ended.activity) == (b"17", 100.0, Activity.BUSY)
    assert bytes(scoreboard.work(0)) == bytes(WorkRow())


def test_the_next_life_counts_on_in_the_row():
    scoreboard = Scoreboard(1)
    first = job_row(scoreboard)
    first.begin("17", "mail", "send", 100.0, 0.0)
    first.end(101.0)
    scoreboard.work(0).jobs_done = 0
    following = job_row(scoreboard)
    following.begin("18", "mail", "send", 200.0, 0.0)
    following.end(202.0)

    assert (scoreboard.work(0).busy, scoreboard.work(0).jobs_done) == (3.0, 1)


def test_a_job_that_was_not_begun_counts_no_time():
    scoreboard = Scoreboard(1)
    row = job_row(scoreboard)
    row.end(100.0)

    shown = read_row(scoreboard.work(0))
    assert (shown.jobs_done, shown.busy, shown.heartbeat) == (1, 0.0, 100.0)


@pytest.mark.parametrize("job_id", ["7", "12345678", "9912345678", "ä" * 60])
def test_a_job_that_a_worker_has_may_be_held(job_id):
    scoreboard = Scoreboard(3)
    scoreboard.header.wanted_workers = 3
    job_row(scoreboard, 2).begin(job_id, "mail", "send", 1.0, 0.0)

    assert scoreboard.may_be_held(as_text(job_id))
    assert not scoreboard.may_be_held(b"55")
