"""A worker's life as an app sees it: hooks, the job's context, titles, publishing from inside."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil
import pytest
from pool import PoolProcess, eventually

from pulpo_pool.queues.adapter import JobState
from pulpo_pool.queues.opening import file_url, open_queue

APP = """
import os, sys, time
from pathlib import Path
from pulpo_pool import JobContext, Pulpo, Transient

pulpo = Pulpo()


def append(file, *words):
    with open(file, "a") as stream:
        stream.write(" ".join(map(str, words)) + "\\n")


@pulpo.on_worker_start
def opened():
    append("life", os.getpid(), "start")


@pulpo.on_worker_stop
def closed():
    append("life", os.getpid(), "stop")


@pulpo.job()
def note(n):
    append("life", os.getpid(), "job")
    append("done", n, os.getpid())


@pulpo.job()
def order(n):
    for each in range(n):
        note.publish(n=each)


@pulpo.job()
def send_email():
    append("sending", os.getpid())
    while not Path("go").exists():
        time.sleep(0.005)


@pulpo.job()
def long(context: JobContext):
    append("stopping", context.stopping)
    while not context.stopping:
        time.sleep(0.005)
    append("stopping", context.stopping)
    raise Transient("the pool stops", retry_in=3600)
"""


def lives(pool):
    """Return what each worker went through, in order."""
    found = {}
    for pid, event in pool.lines("life"):
        found.setdefault(int(pid), []).append(event)
    return found


def test_hooks_run_once_in_each_life_around_its_jobs(tmp_path):
    with PoolProcess(tmp_path, "-w", "2", app=APP, http=None) as pool:
        first = pool.ready().worker_pids()
        pool.publish("note", [{"n": n} for n in range(20)])
        eventually(lambda: len(pool.numbers("done")) == 20, what="every job is done")
        pool.ask("recycle")
        second = [pool.replaced(slot, first[slot]) for slot in range(2)]
        os.kill(second[0], signal.SIGKILL)
        third = pool.replaced(0, second[0])
        pool.signal(signal.SIGTERM)
        code = pool.wait()
    found = lives(pool)

    assert code == 0
    assert sorted(found) == sorted([*first, *second, third])
    for pid, events in found.items():
        rest = [event for event in events if event != "job"]
        assert rest == (["start"] if pid == second[0] else ["start", "stop"])
        assert events[0] == "start"
        assert events[-1] != "job" or pid == second[0]


@pytest.mark.parametrize("failure", ["1 / 0", "sys.exit(7)"])
def test_a_failing_start_hook_is_a_boot_failure_with_its_traceback(tmp_path, failure):
    app = APP + f"\n\n@pulpo.on_worker_start\ndef connect():\n    {failure}\n"
    with PoolProcess(tmp_path, "-w", "2", app=app, http=None) as pool:
        code = pool.wait()

    assert code == 3
    assert "in connect" in pool.log
    assert failure in pool.log


@pytest.mark.parametrize("failure", ["1 / 0", "sys.exit(7)"])
def test_a_failing_stop_hook_is_logged_and_the_others_still_run(tmp_path, failure):
    broken = f"\n\n@pulpo.on_worker_stop\ndef disconnect():\n    {failure}\n"
    app = APP.replace("@pulpo.on_worker_stop", broken + "\n\n@pulpo.on_worker_stop")
    with PoolProcess(tmp_path, "-w", "1", app=app, http=None) as pool:
        (pid,) = pool.ready().worker_pids()
        pool.signal(signal.SIGTERM)
        code = pool.wait()

    assert code == 0
    assert "a worker-stop hook failed" in pool.log
    assert "in disconnect" in pool.log
    assert lives(pool) == {pid: ["start", "stop"]}
    assert "exited with status" not in pool.log, "expected the worker to have left as planned"


def test_a_long_handler_is_told_that_the_pool_stops(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", "--drain-timeout", "600", app=APP, http=None) as pool:
        pool.ready().publish("long", [{}])
        eventually(lambda: pool.lines("stopping"), what="the handler runs")
        pool.signal(signal.SIGTERM)
        code = pool.wait()
        (record,) = pool.jobs(JobState.DELAYED)

    assert code == 0
    assert pool.lines("stopping") == [["False"], ["True"]]
    assert record.error == "the pool stops"


def members(pool):
    """Return the titles of all processes of the pool, of those that still are."""
    titles = []
    for pid in pool.members():
        with suppress(psutil.NoSuchProcess):
            titles.append(psutil.Process(pid).cmdline()[0])
    return titles


def test_titles_tell_who_is_who_and_what_they_do(tmp_path):
    with PoolProcess(tmp_path, "-w", "2", app=APP) as pool:
        pool.ready()
        eventually(
            lambda: sorted(pool.titles()) == ["worker 0 idle", "worker 1 idle"],
            what="idle titles",
        )
        services = {"pulpo-pool: keeper", "pulpo-pool: web"}
        eventually(lambda: services <= set(members(pool)), what="the services have their titles")
        found = members(pool)
        pool.publish("send_email", [{}])
        (words,) = eventually(lambda: pool.lines("sending"), what="the handler runs")
        (busy,) = pool.workers_in("busy")
        title = psutil.Process(int(words[0])).cmdline()[0]
        pool.let_go()
        eventually(lambda: f"worker {busy} idle" in pool.titles(), what="idle again")

    assert title == f"pulpo-pool: worker {busy} send_email"
    assert sorted(found) == [
        "pulpo-pool: keeper",
        "pulpo-pool: master",
        "pulpo-pool: template gen 1",
        "pulpo-pool: web",
        "pulpo-pool: worker 0 idle",
        "pulpo-pool: worker 1 idle",
    ]


def test_what_a_handler_publishes_goes_to_the_pools_own_broker(tmp_path):
    """`Pulpo()` in the app names no broker; the pool was given one on its command line."""
    url = file_url(str(tmp_path / "elsewhere.db"))
    with PoolProcess(tmp_path, "-w", "2", "--broker", url, app=APP, http=None) as pool:
        pool.ready()
        told = pool.command("publish", "order", "--body", '{"n": 5}', "--broker", url)
        eventually(lambda: pool.numbers("done") == list(range(5)), what="every job is done")
        with open_queue(url) as queue:
            eventually(lambda: not queue.stats(), what="every job is settled")

    assert told.returncode == 0, told.stderr
    assert not (tmp_path / ".pulpo" / "queue.db").exists()
