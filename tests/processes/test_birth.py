"""A child killed, refused or orphaned at each step of its birth leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from pathlib import Path

import pytest
from pool import PATIENCE, PoolProcess, eventually
from seats import Nest, until, wait_for_end
from shops import SLOW_SHOP

from pulpo_pool.master.birth import Links, SpawnOrder
from pulpo_pool.master.spawner import DirectSpawner, reap
from pulpo_pool.scoreboard import writing
from pulpo_pool.states import Activity, Role

ORDER = SpawnOrder(Role.WORKER, 0, serial=1, generation=1)


def take_place(seat):
    """What a newborn does once it may: it shows up in its row."""
    with writing(seat.work):
        seat.work.serial = seat.serial
        seat.work.activity = Activity.IDLE
    return 0


@pytest.fixture
def nest():
    nest = Nest()
    yield nest
    nest.close()


def spawner_of(nest, body=take_place, kept=()):
    links = Links(
        scoreboard=nest.scoreboard,
        pool="pool",
        instance="now",
        lifeline=nest.lifeline,
        doorbell=nest.doorbell,
        kept={Role.WORKER: kept},
    )
    return DirectSpawner({Role.WORKER: body}, links)


def spawned(spawner):
    """Order a process and return it as it waits for its answer."""
    spawner.spawn(ORDER)
    (newborn,) = spawner.births()
    return newborn


def untouched(nest):
    row = nest.scoreboard.work(ORDER.slot)
    return (row.seq, row.serial, row.activity) == (0, 0, 0)


def test_a_newborn_that_is_told_go_takes_its_place(nest):
    newborn = spawned(spawner_of(nest))
    newborn.go()

    assert wait_for_end(newborn.pid) == 0
    assert nest.scoreboard.work(ORDER.slot).serial == ORDER.serial


def test_one_killed_before_go_has_touched_nothing_and_go_does_no_harm(nest):
    newborn = spawned(spawner_of(nest))
    os.kill(newborn.pid, signal.SIGKILL)
    until(lambda: os.waitid(os.P_PID, newborn.pid, os.WEXITED | os.WNOWAIT))
    newborn.go()
    ended = list(reap(lambda pid: pid == newborn.pid))

    assert [(each.pid, os.WTERMSIG(each.status)) for each in ended] == [(newborn.pid, 9)]
    assert untouched(nest)


def test_where_nobody_can_look_before_reaping_the_group_still_ends(nest, monkeypatch):
    """macOS before Python 3.13 has no waitid: a grandchild must not outlive its worker there."""
    monkeypatch.delattr(os, "waitid")
    reader, writer = os.pipe()

    def leave_a_child_behind(_seat):
        if os.fork() == 0:
            signal.pause()
        return 7

    newborn = spawned(spawner_of(nest, leave_a_child_behind, kept=(writer,)))
    newborn.go()
    os.close(writer)
    (ended,) = until(lambda: list(reap(lambda pid: pid == newborn.pid)))
    gone, _, _ = select.select([reader], [], [], PATIENCE)
    os.close(reader)

    assert (ended.pid, os.WEXITSTATUS(ended.status)) == (newborn.pid, 7)
    assert gone, "the grandchild lives"


@pytest.mark.parametrize("answer", [b"", b"N"], ids=["no answer", "another answer"])
def test_one_that_is_refused_leaves_without_touching_anything(nest, answer):
    newborn = spawned(spawner_of(nest))
    os.write(newborn._answer, answer)
    os.close(newborn._answer)

    assert wait_for_end(newborn.pid) == 0
    assert untouched(nest)


def test_one_whose_master_dies_before_go_leaves_without_touching_anything(nest):
    """A master of its own spawns it, and is killed before it answers."""
    reader, writer = os.pipe()
    master = os.fork()
    if master == 0:
        try:
            os.write(writer, b"%d\n" % spawned(spawner_of(nest)).pid)
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    newborn = os.read(reader, 16)
    os.kill(master, signal.SIGKILL)
    wait_for_end(master)
    # The newborn inherited the pipe, and closes nothing before GO: its end is what ends the pipe.
    readable, _, _ = select.select([reader], [], [], PATIENCE)
    rest = os.read(reader, 1) if readable else None
    os.close(reader)

    assert int(newborn) > 0
    assert rest == b"", "the newborn is still there"
    assert untouched(nest)


def test_a_signal_sent_before_the_first_instruction_is_not_lost(nest):
    """Signals are masked across the fork: 51 of 60 were lost without."""

    def body(_seat):
        told = threading.Event()
        signal.signal(signal.SIGTERM, lambda _number, _frame: told.set())
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return 7 if told.is_set() else 1

    spawner = spawner_of(nest, body)
    ends = []
    for _ in range(30):
        newborn = spawned(spawner)
        os.kill(newborn.pid, signal.SIGTERM)
        newborn.go()
        ends.append(wait_for_end(newborn.pid))

    assert ends == [7] * 30


def test_the_masters_own_signals_are_unmasked_again_after_a_fork(nest):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    newborn = spawned(spawner_of(nest))
    after = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    newborn.go()
    wait_for_end(newborn.pid)

    assert after == before


def test_a_newborn_keeps_only_the_descriptors_of_its_place(nest, tmp_path):
    secret = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(secret, True)

    def body(seat):
        ours = {0, 1, 2, seat.wakeup, seat.wakeup_end, seat.lifeline, seat.doorbell}
        here = set()
        for fd in range(256):
            try:
                os.fstat(fd)
            except OSError:
                continue
            here.add(fd)
        return 0 if here == ours else 1

    newborn = spawned(spawner_of(nest, body))
    newborn.go()
    code = wait_for_end(newborn.pid)
    os.close(secret)

    assert code == 0


def test_a_newborn_leads_a_group_of_its_own_and_goes_first_when_memory_runs_out(nest):
    def body(_seat):
        leads = os.getpgrp() == os.getpid()
        score = Path("/proc/self/oom_score_adj")
        return 0 if leads and (not score.exists() or int(score.read_text()) >= 300) else 1

    newborn = spawned(spawner_of(nest, body))
    newborn.go()

    assert wait_for_end(newborn.pid) == 0


def test_a_body_that_raises_never_runs_back_into_its_master(nest, capfd):
    def body(_seat):
        # Outside of pytest, standard error is no wrapper around a file of its own.
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - it is never closed
        raise RuntimeError("out of the body")

    newborn = spawned(spawner_of(nest, body))
    newborn.go()

    assert wait_for_end(newborn.pid) == 1
    assert "out of the body" in capfd.readouterr().err


def test_one_killed_between_go_and_ready_is_a_failed_boot_and_is_replaced(tmp_path):
    """The first replacement comes at once, a second failure in a row waits; work goes on."""
    with PoolProcess(tmp_path, "-w", "2", "--no-preload", app=SLOW_SHOP) as pool:
        pool.ready()
        (tmp_path / "block").touch()
        old = pool.pid_of(0)
        os.kill(old, signal.SIGKILL)
        for failures in (1, 2):
            eventually(
                lambda failures=failures: len(pool.lines("booting")) == failures,
                what=f"newborn {failures} is in the middle of its boot",
            )
            states = [worker["state"] for worker in pool.status()["workers"]]
            os.kill(pool.pid_of(0), signal.SIGKILL)
            eventually(
                lambda failures=failures: (
                    pool.counted("pulpo_worker_exits_total", reason="boot") == failures
                ),
                what=f"boot failure {failures} is counted",
            )
        waits = pool.status()["workers"][0]["state"]
        (tmp_path / "block").unlink()
        new = pool.replaced(0, old)
        pool.publish("note", [{"n": 1}])
        eventually(lambda: pool.numbers("done") == [1], what="the pool works")

    assert states == ["booting", "idle"]
    assert waits == "backoff"
    assert new not in pool.numbers("booting")
