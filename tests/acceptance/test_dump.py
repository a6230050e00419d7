"""`pulpo-pool dump` shows where every process of a pool is, whatever it is busy with."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest
from pool import PoolProcess, eventually

APP = r"""
import os, re, signal, time
from pathlib import Path
from pulpo_pool import Pulpo

pulpo = Pulpo()


@pulpo.job()
def nap():
    Path("started").touch()
    deep_asleep()


def deep_asleep():
    time.sleep(600)


@pulpo.job()
def backtrack():
    '''Never returns to Python, and never lets go of the GIL.'''
    Path("started").touch()
    re.match(r"(a+)+$", "a" * 60 + "b")


@pulpo.job()
def vandalise():
    '''Takes the signal for itself, and the stack file's number for a file of its own.'''
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    mine = os.open("mine", os.O_WRONLY | os.O_CREAT)
    for fd in os.listdir("/proc/self/fd"):
        link = f"/proc/self/fd/{fd}"
        if os.path.islink(link) and "/stacks/" in os.readlink(link):
            os.dup2(mine, int(fd))


@pulpo.job()
def note():
    Path("noted").touch()
"""


@pytest.fixture(params=["--preload", "--no-preload"])
def pool(request, tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    with PoolProcess(tmp_path, "-w", "1", request.param, "shop:pulpo") as pool:
        yield pool.ready()


def dumped(pool, *arguments):
    """Return each process's stacks by its label, as programs get them."""
    result = pool.command("dump", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return {entry["label"]: entry["stacks"] for entry in json.loads(result.stdout)}


def start(pool, request_type):
    pool.publish(request_type, [{}])
    eventually((pool.folder / "started").exists, what="the job runs")


@pytest.mark.parametrize(
    ("request_type", "inside"), [("nap", "in deep_asleep"), ("backtrack", "in match")]
)
def test_a_busy_workers_function_is_named(pool, request_type, inside):
    """Also that of one in C code which holds the interpreter's lock."""
    start(pool, request_type)
    eventually(lambda: inside in (dumped(pool, "0")["worker 0"] or ""), what="its function shows")

    result = pool.command("dump", "0")

    assert f"--- worker 0 (pid {pool.worker_pids()[0]})" in result.stdout
    assert inside in result.stdout
    assert "in be_born" in result.stdout
    assert "pulpo_pool/cli/compose.py" not in result.stdout  # the master's, from before the fork
    assert f"in {request_type}" in result.stdout


def test_services_show_theirs_too(pool):
    stacks = dumped(pool)

    services = {service["role"] for service in pool.status()["services"] if service["pid"]}
    assert set(stacks) == {"worker 0", *services}
    assert all("most recent call first" in text for text in stacks.values())
    assert "in run_keeper" in stacks["keeper"]
    assert "in run_web" in stacks["web"]
    assert "wasyncore" in stacks["web"]  # and all of its threads


def test_a_stopped_process_is_said_to_have_given_nothing(pool):
    """What the file had from before is not taken for an answer."""
    pid = pool.worker_pids()[0]
    assert dumped(pool, "0")["worker 0"]
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    result = pool.command("dump")
    as_json = dumped(pool)
    os.kill(pid, signal.SIGCONT)

    assert result.returncode == 0
    assert f"--- worker 0 (pid {pid})\nnothing within 2 s" in result.stdout
    assert as_json.pop("worker 0") is None
    assert all(as_json.values())


def test_a_handler_that_takes_signal_and_file_gets_neither_for_long(pool):
    pool.publish("vandalise", [{}])
    eventually(pool.empty, what="the handler has done its worst")
    pool.publish("note", [{}])
    eventually((pool.folder / "noted").exists, what="the worker works on")

    stacks = dumped(pool, "0")["worker 0"]

    assert "in run_worker" in stacks
    assert (pool.folder / "mine").read_text() == ""
    assert pool.status()["master"]["state"] == "running"


def test_a_dump_interrupts_nobody(pool):
    pids = pool.worker_pids()
    for _ in range(20):
        pool.ask("dump")
    pool.publish("note", [{}])
    eventually((pool.folder / "noted").exists, what="the worker works on")

    assert pool.worker_pids() == pids


def test_one_who_is_not_there_cannot_be_asked(pool):
    result = pool.command("dump", "7")

    assert result.returncode == 1
    assert "expected a living worker's slot, keeper," in result.stderr
    assert "got '7'" in result.stderr
