"""Crashes of jobs, as they are noted by the master, kept by the keeper, looked up by workers."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack

import pytest
from seats import make_scoreboard, show_worker

from pulpo_pool.clock import ManualClock
from pulpo_pool.codec import Codec
from pulpo_pool.crashes import Coroner, CrashBook, crash_delay
from pulpo_pool.queues.adapter import Bury, BuryReason, Numbering, Reservation, Rollback
from pulpo_pool.queues.evidence import EvidenceStore, JobName
from pulpo_pool.queues.history import crash_setback
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.scoreboard import Death, JobInHand
from pulpo_pool.seat import Seat
from pulpo_pool.states import Activity, ExitReason, Role
from pulpo_pool.worker.crashes import CrashCheck

NOW = 1_800_000_000.0
SERVER = Numbering("server-1", NOW - 100)
KILLED = int(signal.SIGKILL)
RAW = b"the job"


class FreeingQueue(MemoryQueueAdapter):
    """A queue that hands the jobs of the dead on by itself, and has not kept their evidence."""

    def __init__(self, folder, numbering):
        super().__init__()
        self._numbering = numbering
        self.evidence = EvidenceStore(folder / "evidence.db", "here")

    def numbering(self):
        return self._numbering

    def note_crash(self, job_id, setback):
        told = crash_setback(setback, attempt=1)
        self.evidence.add(JobName.of(job_id, RAW), told, kicks=0)

    def close(self):
        self.evidence.close()
        super().close()


@pytest.fixture
def scoreboard():
    return make_scoreboard(workers=4)


@pytest.fixture
def opened():
    """Return what opens a book; its queue is closed at the end."""
    with ExitStack() as queues:

        def opened(scoreboard, folder, *, instance="now", numbering=SERVER):
            book = CrashBook(scoreboard, Coroner("pool", instance))
            book.queue = queues.enter_context(FreeingQueue(folder, numbering))
            book.open_at(book.queue)
            return book

        yield opened


@pytest.fixture
def book(opened, scoreboard, tmp_path):
    return opened(scoreboard, tmp_path)


def held(job_id="17", raw=RAW):
    return Reservation(job_id=job_id, queue="default", raw=raw, codec=Codec())


def evidence_of(book, job_id="17", raw=RAW):
    """Return the evidence of each crash that a worker in slot 0 knows of."""
    job = held(job_id, raw)
    return [book.setback_of(job, worker) for worker, _ in book.deaths_with(job, 0)]


def noted(book):
    """Do what the keeper does; return the news."""
    return list(book.write_down(book.queue))


def die(scoreboard, serial, job_id="17", *, reason=ExitReason.SIGNAL, at=NOW, status=KILLED):
    job = JobInHand(2, "default", job_id, "crash") if job_id else None
    scoreboard.record_death(Death(serial, reason, status, at, 84_000_000, 0.3, job))


def hold(scoreboard, slot, serial, job_id):
    fields = {"activity": Activity.BUSY, "job_id": job_id.encode()}
    show_worker(scoreboard, slot, serial=serial, **fields)


def test_each_death_with_a_job_is_evidence(scoreboard, book):
    before = evidence_of(book)
    die(scoreboard, 5)
    die(scoreboard, 6)
    evidence = evidence_of(book)

    assert before == []
    assert len(evidence) == 2
    assert evidence[0].error.startswith("worker 2 (serial 5) was killed by signal 9 (SIGKILL)")
    assert evidence_of(book, "7") == []
    assert evidence_of(book, "117") == []


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

    assert evidence_of(book) == []


def test_the_next_start_of_the_pool_remembers(opened, scoreboard, book, tmp_path):
    """Each death counts once, however often it is written down and by whom."""
    die(scoreboard, 5)
    first = noted(book)
    again = noted(opened(scoreboard, tmp_path))
    later = opened(make_scoreboard(), tmp_path, instance="later")
    die(later._scoreboard, 5)
    evidence = evidence_of(later)

    assert [(crash.job.job_id, crash.crashes) for crash in first] == [("17", 1)]
    assert again == []
    assert [each.worker for each in evidence] == ["pool/now/2/5", "pool/later/2/5"]
    assert {each.signal for each in evidence} == {KILLED}


def test_a_server_that_kept_its_jobs_finds_their_crashes_again(opened, scoreboard, book, tmp_path):
    """It counts its own start, not the jobs, anew; another job of that id is known by its bytes."""
    die(scoreboard, 5)
    noted(book)
    restarted = opened(scoreboard, tmp_path, numbering=Numbering("server-2", NOW + 50))

    assert [each.worker for each in evidence_of(restarted)] == ["pool/now/2/5"]
    assert evidence_of(restarted, raw=b"another job") == []


@pytest.mark.parametrize("content", [b"", b"{", b"SQLite format 3\0", b"\xff" * 5_000])
def test_a_file_that_is_harmed_costs_only_the_memory(opened, scoreboard, tmp_path, content):
    (tmp_path / "evidence.db").write_bytes(content)
    book = opened(scoreboard, tmp_path)
    die(scoreboard, 5)

    assert len(noted(book)) == 1
    assert len(evidence_of(book)) == 1


def test_a_place_that_cannot_be_written_costs_only_the_memory(opened, scoreboard, tmp_path, caplog):
    book = opened(scoreboard, tmp_path / "missing" / "missing")
    die(scoreboard, 5)

    assert len(noted(book)) == 1
    assert len(evidence_of(book)) == 1
    assert "evidence of failed jobs is neither kept in nor read from" in caplog.text


def check(scoreboard, folder, clock, *, max_crashes=3):
    seat = Seat(Role.WORKER, 0, 1, 1, "pool", "now", scoreboard, -1, -1, -1, -1)
    check = CrashCheck(seat, folder / "crashes", clock, max_crashes=max_crashes)
    check.open_for(FreeingQueue(folder, SERVER))
    return check


def test_the_second_crash_makes_a_job_wait_wherever_it_is_met(scoreboard, tmp_path):
    """The server frees it at once; whoever reserves it gives it back until its time has come."""
    clock = ManualClock(NOW)
    workers = [check(scoreboard, tmp_path, clock) for _ in range(2)]
    die(scoreboard, 5)
    first = [worker.verdict(held()) for worker in workers]
    die(scoreboard, 6)
    wait = crash_delay(2, of=("17", "pool/now/2/6"))
    second = [worker.verdict(held()) for worker in workers]
    clock.advance(wait)
    later = [worker.verdict(held()) for worker in workers]

    assert first == [None, None]
    assert [type(each) for each in second] == [Rollback, Rollback]
    assert [each.delay for each in second] == [pytest.approx(wait)] * 2
    assert [(each.error, each.reason) for each in second] == [("", "")] * 2
    assert later == [None, None]


def test_the_last_crash_buries_with_its_evidence(scoreboard, tmp_path):
    worker = check(scoreboard, tmp_path, ManualClock(NOW), max_crashes=2)
    die(scoreboard, 5)
    die(scoreboard, 6)
    sentence = worker.verdict(held())

    assert type(sentence) is Bury
    assert sentence.reason is BuryReason.CRASHED
    assert "was killed by signal 9" in sentence.error
    assert (sentence.setback.worker, sentence.setback.signal) == ("pool/now/2/6", KILLED)


def test_a_job_whose_holder_dies_at_this_moment_waits_for_the_masters_word(scoreboard, book):
    """The engine is faster than the master: the row of the dead still shows the job."""
    hold(scoreboard, 3, 9, "17")
    master = threading.Timer(0.05, die, (scoreboard, 9))
    master.start()
    evidence = evidence_of(book)
    master.join()

    assert len(evidence) == 1


def test_the_last_words_of_one_long_dead_do_not_hide_another_who_dies_now(scoreboard, book):
    """Neither slot is refilled yet; the master knows of the first death only."""
    hold(scoreboard, 1, 7, "17")
    die(scoreboard, 7)
    hold(scoreboard, 3, 9, "17")
    master = threading.Timer(0.05, die, (scoreboard, 9))
    master.start()
    evidence = evidence_of(book)
    master.join()

    assert len(evidence) == 2


def test_a_job_whose_holder_lives_is_nobodys_crash(scoreboard, book):
    """Its lease may have ended: it is not waited for much longer than a master takes."""
    hold(scoreboard, 3, 9, "17")

    assert evidence_of(book) == []


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
