"""Circuits: a request_type pauses for all workers of a pool, and one job at a time probes it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
from seats import until, wait_for_end

from pulpo_pool.circuits import LONGEST_PAUSE, Circuits, read_circuits
from pulpo_pool.clock import ManualClock, SystemClock
from pulpo_pool.scoreboard import MOST_CIRCUITS, Death, Scoreboard, writing
from pulpo_pool.states import ExitReason


class Pool:
    """The circuits of several workers, by serial, over one scoreboard and one clock."""

    def __init__(self, lock=None, spread=0.0):
        self.scoreboard = Scoreboard(2)
        self.clock = ManualClock()
        self.lock = lock
        self.jitter = lambda low, high: low + spread * (high - low)

    def worker(self, serial):
        return Circuits(self.scoreboard, serial, self.lock, self.clock, self.jitter)

    def fail(self, worker, pause=60.0, name="mail"):
        return worker.learn(name, began=self.clock.monotonic(), pause=pause, cause="Down")

    def only(self):
        (circuit,) = read_circuits(self.scoreboard)
        return circuit

    def die(self, serial):
        self.scoreboard.record_death(Death(serial, ExitReason.SIGNAL, 9, 1.0, 0, 0.0))


@pytest.fixture
def pool(tmp_path):
    return Pool(tmp_path / "lock")


@pytest.fixture
def workers(pool):
    return pool.worker(1), pool.worker(2)


@pytest.fixture
def probing(pool, workers):
    """Two workers of a type whose pause is over, the first of them with the probe."""
    pool.fail(workers[0])
    pool.clock.advance(60)
    assert workers[0].hold_back("mail") is None
    return workers


def test_while_nothing_fails_every_type_runs(pool, workers):
    waits = [worker.hold_back("mail") for worker in workers]
    told = workers[0].learn("mail", began=0.0, succeeded=True)

    assert (waits, told) == ([None, None], 0.0)
    assert read_circuits(pool.scoreboard) == []


def test_a_pause_holds_for_every_worker_and_for_no_other_type(pool, workers):
    pool.fail(workers[0])
    pool.clock.advance(20)

    assert [worker.hold_back("mail") for worker in workers] == [40, 40]
    assert workers[1].hold_back("sms") is None


def test_jobs_come_back_spread_over_a_while_after_the_pause(tmp_path):
    pool = Pool(tmp_path / "lock", spread=1.0)
    one = pool.worker(1)

    assert pool.fail(one) == 75
    assert one.hold_back("mail") == 75


def test_after_the_pause_one_job_at_a_time_finds_out(pool, workers):
    pool.fail(workers[0])
    pool.clock.advance(60)
    first, second = (worker.hold_back("mail") for worker in workers)

    assert first is None
    assert 0 < second <= 5, "the others look again soon"
    assert pool.only().probing


def test_success_of_the_probe_ends_the_pause_for_all(pool, probing):
    probing[0].learn("mail", began=pool.clock.monotonic(), succeeded=True)

    assert [worker.hold_back("mail") for worker in probing] == [None, None]
    assert pool.only() == replace(pool.only(), paused_until=0.0, pauses=1, probing=False)


def test_the_same_failure_pauses_twice_as_long_up_to_ten_minutes(pool, workers):
    one = workers[0]
    pauses = [pool.fail(one)]
    for _ in range(5):
        pool.clock.advance(pauses[-1])
        assert one.hold_back("mail") is None
        pauses.append(pool.fail(one))

    assert pauses == [60, 120, 240, 480, LONGEST_PAUSE, LONGEST_PAUSE]
    assert pool.only().pauses == 6


def test_a_probe_that_asks_for_more_gets_it(pool, probing):
    assert pool.fail(probing[0], pause=3_600.0) == 3_600


def test_a_pause_after_success_begins_short_again(pool, probing):
    probing[0].learn("mail", began=pool.clock.monotonic(), succeeded=True)

    assert pool.fail(probing[1]) == 60


def test_a_probe_that_fails_otherwise_says_nothing_and_the_next_job_probes(pool, probing):
    probing[0].learn("mail", began=pool.clock.monotonic())

    assert probing[1].hold_back("mail") is None
    assert probing[0].hold_back("mail") is not None


def test_a_probe_whose_worker_died_is_anybodys(pool, probing):
    pool.die(1)

    assert not pool.only().probing
    assert probing[1].hold_back("mail") is None


def test_a_worker_that_never_told_how_its_probe_ended_probes_again(probing):
    assert probing[0].hold_back("mail") is None


def test_who_fails_while_it_is_paused_already_lengthens_nothing(pool, workers):
    pool.fail(workers[0])
    pool.clock.advance(20)

    assert workers[1].learn("mail", began=0.0, pause=60.0) == 40
    assert pool.only().pauses == 1


def test_success_of_a_job_that_began_before_ends_no_pause(pool, probing):
    probing[1].learn("mail", began=0.0, succeeded=True)

    assert probing[1].hold_back("mail") is not None
    assert pool.only().probing


def test_a_failure_of_a_job_that_began_before_is_old_news(pool, probing):
    began = pool.clock.monotonic() - 30
    probing[0].learn("mail", began=began, succeeded=True)
    told = probing[1].learn("mail", began=began, pause=60.0)

    assert told == 0
    assert probing[1].hold_back("mail") is None


def test_long_names_that_begin_alike_are_two(pool, workers):
    names = ["x" * 100 + end for end in "ab"]
    pool.fail(workers[0], name=names[0])

    assert workers[1].hold_back(names[0]) == 60
    assert workers[1].hold_back(names[1]) is None


def test_when_there_is_no_room_a_type_goes_on_and_the_log_says_why(pool, workers, caplog):
    for number in range(MOST_CIRCUITS):
        pool.fail(workers[0], name=f"type-{number}")
    told = pool.fail(workers[0], name="one too many")

    assert told == 0
    assert workers[1].hold_back("one too many") is None
    assert workers[1].hold_back("type-7") == 60
    assert "one too many cannot pause" in caplog.text


def test_without_a_file_to_lock_it_goes_on(tmp_path):
    pool = Pool(tmp_path / "no" / "such" / "folder")
    one = pool.worker(1)

    assert pool.fail(one) == 60
    pool.clock.advance(60)
    assert one.hold_back("mail") is None


# -- real processes ---------------------------------------------------------------------------


def test_of_many_processes_that_ask_at_once_one_gets_the_probe(pool):
    pool.fail(pool.worker(1))
    pool.clock.advance(60)
    gate, opened = os.pipe()
    children = []
    for serial in range(2, 10):
        pid = os.fork()
        if pid == 0:
            os.close(opened)
            os.read(gate, 1)  # all begin when the test closes the other end
            os._exit(0 if pool.worker(serial).hold_back("mail") is None else 1)
        children.append(pid)
    os.close(opened)
    os.close(gate)

    assert sorted(wait_for_end(pid) for pid in children) == [0] + [1] * 7


def test_who_is_killed_in_the_middle_of_a_change_holds_up_nobody(pool, workers):
    """The row counts as one that runs, and the next change mends it."""
    pool.fail(workers[0])
    pid = os.fork()
    if pid == 0:
        row = pool.scoreboard.circuit(0)
        with workers[0]._alone(), writing(row):
            row.probe = 77
            os.kill(os.getpid(), signal.SIGKILL)
    wait_for_end(pid)
    torn = workers[1].hold_back("mail")
    pool.clock.advance(1)
    told = pool.fail(workers[1], pause=30.0)

    assert torn is None
    assert told == 30
    assert workers[0].hold_back("mail") == 30


def test_who_is_stopped_in_the_middle_of_a_change_holds_up_nobody(pool, workers):
    pid = os.fork()
    if pid == 0:
        with workers[0]._alone():
            os.kill(os.getpid(), signal.SIGSTOP)
    until(lambda: os.waitpid(pid, os.WUNTRACED | os.WNOHANG)[0])
    told = pool.fail(workers[1])
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)

    assert told == 60


def test_a_loop_alone_needs_no_pool():
    circuits = Circuits.alone(SystemClock())
    told = circuits.learn("mail", began=0.0, pause=600.0)
    began = SystemClock().monotonic()

    assert circuits.learn("sms", began=began, pause=600.0) >= 599
    assert told >= 599
    assert circuits.hold_back("mail") > 500
