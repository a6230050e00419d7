"""One pool to a name, a port and a socket; who comes second is told who was first."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

import pytest
from pool import PoolProcess, eventually
from shops import SHOP

from pulpo_pool.master.rundir import socket_path


@pytest.fixture
def pool(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=SHOP) as pool:
        yield pool.ready()


def second(folder, *arguments):
    """Start another pool in the same folder, with a log of its own."""
    other = folder / "elsewhere"
    other.mkdir(exist_ok=True)
    return PoolProcess(other, "-w", "1", "--state-dir", str(folder / ".pulpo"), *arguments)


def test_a_second_pool_of_the_same_name_is_refused_and_told_the_pid(pool):
    with second(pool.folder) as other:
        code = other.wait()

    assert code == 4
    assert f"(pid {pool.pid}, " in other.log
    assert "--name" in other.log
    assert "Traceback" not in other.log
    pool.publish("note", [{"n": 1}])
    eventually(pool.empty, what="the first one goes on")
    assert (pool.run_directory / "pid").read_text() == f"{pool.pid}\n"


def test_four_starts_at_once_make_one_pool(tmp_path):
    """However close they are, one of them works and the others say why they do not."""
    starts = []
    try:
        for n in range(4):
            folder = tmp_path / str(n)
            folder.mkdir()
            starts.append(PoolProcess(folder, "-w", "1", "--state-dir", f"{tmp_path}/.pulpo"))
        eventually(
            lambda: sum(each.process.poll() is not None for each in starts) == 3,
            what="three have ended",
        )
        codes = [each.process.poll() for each in starts]
    finally:
        for each in starts:
            each.__exit__()

    assert sorted(code for code in codes if code is not None) == [4, 4, 4]


def test_a_port_that_was_asked_for_and_is_taken_is_refused_with_its_owner(pool):
    address = pool.status()["master"]["http"]
    with PoolProcess(pool.folder, "--name", "other", http=address) as other:
        code = other.wait()

    assert code == 4
    # Master and web both listen on the socket; either is a help.
    assert any(f"is taken by pid {pid}:" in other.log for pid in pool.members())
    assert "Traceback" not in other.log


def test_a_default_port_that_is_taken_gives_way_to_the_next_free_one(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        lowest = 9700  # somebody else may have it, and may give it back at any time
        with suppress(OSError):
            taken.bind(("127.0.0.1", 9700))
            taken.listen()
            lowest = 9701
        with PoolProcess(tmp_path, "-w", "1", app=SHOP, http=None) as pool:
            host, port = pool.ready().status()["master"]["http"].split(":")
            code, _ = pool.http("/healthz")

    assert host == "127.0.0.1"
    assert lowest <= int(port) < 9800
    assert code == 200


def test_an_address_that_is_not_ours_is_a_mistake_of_usage(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=SHOP, http="192.0.2.1:9700") as pool:
        assert pool.wait() == 2
        assert "http: cannot listen on 192.0.2.1:9700" in pool.log


def test_a_pool_without_http_works(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=SHOP, http="off") as pool:
        status = pool.ready().status()
        pool.publish("note", [{"n": 1}])
        eventually(pool.empty, what="the job is done")

    assert status["master"]["http"] is None
    assert "web" not in [service["role"] for service in status["services"]]


def test_a_socket_path_too_long_for_the_kernel_works(tmp_path):
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    with PoolProcess(folder, "-w", "1", app=SHOP) as pool:
        pool.ready()
        answer = pool.command("status", "--json")
        drained = pool.command("drain")

        assert pool.wait() == 0
    assert answer.returncode == 0, answer.stderr
    assert drained.returncode == 0, drained.stderr


def test_pid_and_socket_are_for_this_user_and_vanish_with_the_pool(tmp_path):
    pidfile = tmp_path / "pool.pid"
    with PoolProcess(tmp_path, "-w", "1", "--pidfile", str(pidfile), app=SHOP) as pool:
        pool.ready()
        files = [pidfile, pool.run_directory / "pid"]
        control = socket_path(pool.run_directory / "control.sock")
        pids = [file.read_text() for file in files]
        modes = [control.stat().st_mode & 0o777, pool.run_directory.stat().st_mode & 0o777]
        pool.signal(signal.SIGTERM)
        code = pool.wait()

    assert code == 0
    assert pids == [f"{pool.pid}\n"] * 2
    assert modes == [0o600, 0o700]
    assert not any(file.exists() for file in (*files, control))


def test_what_a_killed_pool_left_is_no_obstacle(tmp_path):
    """Lock, pidfile and socket are still there; kill -9 freed the lock."""
    pidfile = tmp_path / "pool.pid"
    arguments = ("-w", "1", "--pidfile", str(pidfile))
    with PoolProcess(tmp_path, *arguments, app=SHOP) as first:
        first.ready()
    left = [first.run_directory / name for name in ("lock", "pid", "control.sock")]
    all_left = all(socket_path(path).exists() for path in (*left, pidfile))
    with PoolProcess(tmp_path, *arguments, app=SHOP) as pool:
        pool.ready()
        pid = pidfile.read_text()

    assert all_left
    assert pid == f"{pool.pid}\n"


def test_the_orphans_of_a_killed_master_are_no_obstacle(tmp_path):
    """They inherited neither the lock nor the port nor the socket."""
    with PoolProcess(tmp_path, "-w", "2", app=SHOP) as first:
        first.ready()
        first.publish("hold", [{"n": 1}, {"n": 2}])
        eventually(lambda: len(first.lines("started")) == 2, what="both jobs are held")
        address = first.status()["master"]["http"]
        web = first.pid_of("web")
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait()
        eventually(lambda: web not in first.members(), what="web has left")
        with PoolProcess(tmp_path, "-w", "1", app=SHOP, http=address) as pool:
            http = pool.ready().status()["master"]["http"]
            orphans = len(first.members())

    assert http == address
    assert orphans == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--state-dir", "file"), "state-dir: "),
        (("--state-dir", "file/below"), "state-dir: "),
        (("--pidfile", "nowhere/pool.pid"), "pidfile: "),
        (("--pidfile", "folder"), "pidfile: "),
        (("--broker", "memory:"), "lives in one process"),
    ],
)
def test_a_place_that_cannot_be_used_is_a_mistake_of_usage(tmp_path, arguments, told):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with PoolProcess(tmp_path, "-w", "1", *arguments, app=SHOP) as pool:
        assert pool.wait() == 2
        assert told in pool.log
        assert "Traceback" not in pool.log
    assert (tmp_path / "file").read_bytes() == b""


def test_a_broken_file_in_the_run_directory_stops_nobody(tmp_path):
    """A full disk may leave an empty identity, a crash a stale boot error."""
    run = tmp_path / ".pulpo" / "run" / "default"
    run.mkdir(parents=True)
    for name in ("identity", "boot-error.json", "pid", "control.sock"):
        (run / name).touch()
    with PoolProcess(tmp_path, "-w", "1", app=SHOP) as pool:
        pool.ready()

        assert (run / "identity").read_text()
