"""Planned replacements, scaling and resting: seen in pids, in metrics and in /readyz."""

from __future__ import annotations

import os
import signal

import pytest
from pool import PoolProcess, eventually
from shops import SHOP, SLOW_SHOP


def numbered(count, *, first=0):
    return [{"n": n} for n in range(first, first + count)]


def pool_state(pool):
    return pool.status()["master"]["state"]


def are_all_resting(pool):
    titles = pool.titles()
    wanted = pool.status()["master"]["workers_wanted"]
    return len(titles) == wanted and all(title.endswith(" resting") for title in titles)


@pytest.fixture
def pool(tmp_path):
    with PoolProcess(tmp_path, "-w", "4", app=SHOP) as pool:
        yield pool.ready()


def test_a_worker_that_finds_nothing_is_replaced_after_so_many_looks(tmp_path):
    """The ancestor's shutdown after empty iterations: planned, counted so, and no failure."""
    idle = ("--max-empty-iterations", "2", "--sleep-duration", "0.2")
    with PoolProcess(tmp_path, "-w", "2", *idle, app=SHOP) as pool:
        seen = set(pool.ready().worker_pids())

        def six_lives():
            seen.update(pool.worker_pids())
            return len(seen) >= 6

        eventually(six_lives, what="the pids of three lives in each of two slots")
        exits = {
            reason: pool.counted("pulpo_worker_exits_total", reason=reason)
            for reason in ("idle", "error", "signal", "boot")
        }
        forks = {
            reason: pool.counted("pulpo_worker_forks_total", reason=reason)
            for reason in ("start", "recycle", "replace")
        }
        pool.publish("note", numbered(20))
        eventually(pool.empty, what="the jobs are done")

    assert exits["idle"] >= 4
    assert sum(exits.values()) == exits["idle"]
    assert forks["recycle"] >= 4
    assert (forks["start"], forks["replace"]) == (2, 0)
    assert pool.numbers("done") == list(range(20))


def test_one_slot_is_recycled_and_the_others_stay(pool):
    before = pool.worker_pids()
    answer = pool.ask("recycle", "3")
    new = pool.replaced(3, before[3])
    refused = [pool.ask("recycle", slot) for slot in ("4", "-1", "three")]

    assert answer == {"ok": True, "slots": [3]}
    assert pool.worker_pids() == [*before[:3], new]
    assert pool.counted("pulpo_worker_exits_total", reason="operator") == 1
    assert pool.counted("pulpo_worker_forks_total", reason="recycle") == 1
    assert all("slot from 0 to 3" in each["error"] for each in refused)


def test_all_are_recycled_a_quarter_at_a_time_while_jobs_flow(tmp_path):
    with PoolProcess(tmp_path, "-w", "8", app=SHOP) as pool:
        before = pool.ready().worker_pids()
        pool.publish("work", numbered(300))
        pool.ask("recycle")
        fewest = 8

        def all_are_new():
            nonlocal fewest
            states = [worker["state"] for worker in pool.status()["workers"]]
            fewest = min(fewest, sum(state in ("idle", "busy") for state in states))
            return not set(before) & set(pool.worker_pids())

        eventually(all_are_new, what="all workers are new")
        eventually(pool.empty, what="the jobs are done")
        pool.ready()
        exits = pool.counted("pulpo_worker_exits_total", reason="operator")

    assert fewest >= 6
    assert exits == 8
    assert pool.numbers("done") == list(range(300))


def test_who_died_meanwhile_is_not_recycled_again(pool):
    """Its successor is as new as the others will be; the last in line shows that it was left."""
    pool.publish("hold", numbered(4))
    eventually(lambda: len(pool.lines("started")) == 4, what="four jobs are held")
    pool.ask("recycle")
    eventually(lambda: pool.workers_in("stopping") == [0], what="the first is on its way out")
    old = pool.worker_pids()
    os.kill(old[1], signal.SIGKILL)
    successor = pool.replaced(1, old[1])
    pool.let_go()
    eventually(lambda: not set(old) & set(pool.worker_pids()), what="all workers are new")
    eventually(pool.empty, what="the jobs are done")
    pool.ready()

    assert pool.pid_of(1) == successor
    assert pool.counted("pulpo_worker_exits_total", reason="operator") == 3
    assert pool.numbers("done") == list(range(4))


def test_the_pool_grows_and_shrinks(pool):
    """By command and by signal; who has a job finishes it, and is not replaced."""
    pool.publish("hold", numbered(4))
    eventually(lambda: len(pool.lines("started")) == 4, what="four jobs are held")
    first = pool.worker_pids()
    pool.ask("scale", "2")
    eventually(lambda: pool.workers_in("stopping") == [2, 3], what="two are on their way out")
    pool.let_go()
    eventually(lambda: pool.worker_pids() == first[:2], what="the two have left")
    shrunk = pool.counted("pulpo_worker_exits_total", reason="scaled_down")
    pool.ask("scale", "+1")
    pool.signal(signal.SIGTTIN)
    eventually(lambda: len(pool.workers_in("idle")) == 4, what="four are idle")
    grown = pool.worker_pids()
    pool.signal(signal.SIGTTOU)
    eventually(lambda: len(pool.worker_pids()) == 3, what="three are left")
    pool.ask("scale", "3")
    refused = [pool.ask("scale", count)["ok"] for count in ("0", "-3", "257", "many", "")]

    assert pool.numbers("done") == [0, 1, 2, 3]
    assert shrunk == 2
    assert grown[:2] == first[:2]
    assert not set(grown[2:]) & set(first)
    assert pool.worker_pids() == grown[:3]
    assert pool.counted("pulpo_worker_forks_total", reason="scale_up") == 2
    assert pool.counted("pulpo_workers_wanted") == 3
    assert refused == [False] * 5


@pytest.mark.parametrize(("rest", "code"), [("pause", 200), ("quiet", 503)])
def test_a_pool_that_rests_reserves_nothing_though_jobs_are_ready(pool, rest, code):
    """Neither do workers that are born meanwhile, by whatever way; `resume` ends it."""
    word = {"pause": "paused", "quiet": "quiet"}[rest]
    pool.ask(rest)
    eventually(lambda: are_all_resting(pool), what="all rest")
    pool.publish("note", numbered(5))
    old = pool.worker_pids()
    os.kill(old[0], signal.SIGKILL)
    pool.replaced(0, old[0])
    pool.ask("scale", "5")
    pool.ask("recycle")
    eventually(
        lambda: are_all_resting(pool) and not set(old) & set(pool.worker_pids()),
        what="all are new, and rest",
    )
    state, (ready, _), waiting = pool_state(pool), pool.http("/readyz"), pool.stats().ready
    pool.ask("resume")
    eventually(pool.empty, what="the jobs are done")

    assert (state, ready, waiting) == (word, code, 5)
    assert pool_state(pool) == "running"
    assert pool.http("/readyz")[0] == 200
    assert pool.numbers("done") == list(range(5))


def test_quiet_outranks_pause(pool):
    """A pool on its way out does not become ready again because somebody pauses it."""
    pool.signal(signal.SIGTSTP)
    eventually(lambda: pool_state(pool) == "quiet", what="TSTP means quiet")
    answer = pool.ask("pause")

    assert answer["state"] == "quiet"


def test_what_is_held_is_finished_when_the_pool_rests(pool):
    pool.publish("hold", numbered(4))
    eventually(lambda: len(pool.lines("started")) == 4, what="four jobs are held")
    pool.publish("note", numbered(5, first=4))
    pool.ask("pause")
    pool.let_go()
    eventually(lambda: are_all_resting(pool), what="all rest")
    stats = pool.stats()

    assert pool.numbers("done") == [0, 1, 2, 3]
    assert (stats.ready, stats.reserved) == (5, 0)


def test_a_pool_is_ready_once_its_first_worker_is(tmp_path):
    (tmp_path / "block").touch()
    with PoolProcess(tmp_path, "-w", "2", "--no-preload", app=SLOW_SHOP) as pool:
        eventually(lambda: len(pool.lines("booting")) == 2, what="both are in their boot")
        eventually(pool.try_status, what="the pool answers")
        eventually(lambda: pool.status()["services"][1]["state"] == "up", what="web is up")
        early, healthy = pool.http("/readyz"), pool.http("/healthz")
        refused = pool.ask("pause")
        (tmp_path / "block").unlink()
        pool.ready()
        late = pool.http("/readyz")

    assert early[0] == 503
    assert "starting" in early[1]
    assert healthy[0] == 200
    assert "starting" in refused["error"]
    assert late[0] == 200
