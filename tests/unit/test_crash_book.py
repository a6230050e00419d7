"""Crashes of jobs, as they are noted by the master, kept by the keeper, looked up by workers."""

from __future__ import annotations

import signal
import threading

import pytest
from seats import make_scoreboard, show_worker

from pulpo_pool.crashes import CrashBook
from pulpo_pool.queues.adapter import Numbering
from pulpo_pool.scoreboard import Activity, Death, ExitReason, JobInHand

NOW = 1_800_000_000.0
SERVER = Numbering("server-1", NOW - 100)
KILLED = int(signal.SIGKILL)


@pytest.fixture
def scoreboard():
    return make_scoreboard(workers=4)


@pytest.fixture
def book(scoreboard, tmp_path):
    return opened(scoreboard, tmp_path)


def opened(scoreboard, folder, *, instance="now", numbering=SERVER):
    book = CrashBook(scoreboard, instance, folder / "crashes.json")
    book.open_at(numbering)
    return book


def die(scoreboard, serial, job_id="17", *, reason=ExitReason.SIGNAL, at=NOW, status=KILLED):
    job = JobInHand(2, "default", job_id, "crash") if job_id else None
    scoreboard.record_death(Death(serial, reason, status, at, 84_000_000, 0.3, job))


def hold(scoreboard, slot, serial, job_id):
    fields = {"activity": Activity.BUSY, "job_id": job_id.encode()}
    show_worker(scoreboard, slot, serial=serial, **fields)


def test_each_death_with_a_job_is_evidence(scoreboard, book):
    before = book.evidence_of("17", 0)
    die(scoreboard, 5)
    die(scoreboard, 6)
    evidence = book.evidence_of("17", 0)

    assert before == []
    assert len(evidence) == 2
    assert evidence[0].startswith("worker 2 (serial 5) was killed by signal 9 (SIGKILL)")
    assert book.evidence_of("7", 0) == []
    assert book.evidence_of("117", 0) == []


@pytest.mark.parametrize(
    "death",
    [
        {"reason": ExitReason.CUT_OFF},
        {"reason": ExitReason.SHUTDOWN, "status": 0},
        {"at": NOW - 200},
        {"job_id": ""},
    ],
    ids=["cut off at the drain timeout", "left as planned", "before the server started", "no job"],
)
def test_what_is_no_crash_of_this_job(scoreboard, book, death):
    die(scoreboard, 5, **death)

    assert book.evidence_of("17", 0) == []


def test_the_next_start_of_the_pool_remembers(scoreboard, book, tmp_path):
    """Each death counts once, however often it is written down and by whom."""
    die(scoreboard, 5)
    noted = book.write_down(SERVER)
    again = opened(scoreboard, tmp_path).write_down(SERVER)
    later = opened(make_scoreboard(), tmp_path, instance="later")
    die(later._scoreboard, 5)

    assert [(crash.job.job_id, crash.crashes) for crash in noted] == [("17", 1)]
    assert again == []
    assert len(later.evidence_of("17", 0)) == 2


def test_another_servers_jobs_are_others(scoreboard, book, tmp_path):
    die(scoreboard, 5)
    book.write_down(SERVER)
    other = Numbering("server-2", NOW - 50)

    assert opened(make_scoreboard(), tmp_path, numbering=other).evidence_of("17", 0) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"jobs": 5}', b"\xff"])
def test_a_file_that_is_harmed_is_forgotten(scoreboard, tmp_path, content):
    (tmp_path / "crashes.json").write_bytes(content)
    book = opened(scoreboard, tmp_path)
    die(scoreboard, 5)

    assert len(book.write_down(SERVER)) == 1


def test_a_place_that_cannot_be_written_costs_only_the_memory(scoreboard, tmp_path, caplog):
    book = opened(scoreboard, tmp_path / "missing")
    die(scoreboard, 5)
    noted = book.write_down(SERVER)

    assert len(noted) == 1
    assert "will be forgotten with this start" in caplog.text


def test_a_job_whose_holder_dies_at_this_moment_waits_for_the_masters_word(scoreboard, book):
    """The engine is faster than the master: the row of the dead still shows the job."""
    hold(scoreboard, 3, 9, "17")
    master = threading.Timer(0.05, die, (scoreboard, 9))
    master.start()
    evidence = book.evidence_of("17", 0)
    master.join()

    assert len(evidence) == 1


def test_the_last_words_of_one_long_dead_do_not_hide_another_who_dies_now(scoreboard, book):
    """Neither slot is refilled yet; the master knows of the first death only."""
    hold(scoreboard, 1, 7, "17")
    die(scoreboard, 7)
    hold(scoreboard, 3, 9, "17")
    master = threading.Timer(0.05, die, (scoreboard, 9))
    master.start()
    evidence = book.evidence_of("17", 0)
    master.join()

    assert len(evidence) == 2


def test_a_job_whose_holder_lives_is_nobodys_crash(scoreboard, book):
    """Its lease may have ended: it is not waited for much longer than a master takes."""
    hold(scoreboard, 3, 9, "17")

    assert book.evidence_of("17", 0) == []


def test_a_worker_is_not_suspicious_of_itself(scoreboard):
    hold(scoreboard, 3, 9, "17")
    hold(scoreboard, 1, 8, "171")

    assert scoreboard.other_holders(b"17", 3) == []
    assert [row.serial for row in scoreboard.other_holders(b"17", 0)] == [9]
    assert [row.serial for row in scoreboard.other_holders(b"171", 3)] == [8]


def test_idle_workers_hold_nothing(scoreboard):
    """Their rows still say what they did last."""
    show_worker(scoreboard, 3, serial=9, activity=Activity.IDLE, job_id=b"17")

    assert scoreboard.other_holders(b"17", 0) == []
