"""A reload runs today's code, or leaves yesterday's at work."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from pool import PoolProcess, eventually

if TYPE_CHECKING:
    from pathlib import Path

APP = """
    import os
    from pulpo_pool import Pulpo
    pulpo = Pulpo()
    VERSION = "one"
    out = os.open("done.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @pulpo.job()
    def mark(n: int) -> None:
        os.write(out, f"{VERSION} {n}\\n".encode())
"""

PRELOAD = pytest.mark.parametrize("preload", ["--preload", "--no-preload"])


def rewrite(pool: PoolProcess, old: str, new: str) -> None:
    """Change the app; its bytecode must not be taken for current within one second."""
    app = pool.folder / "shop.py"
    text = app.read_text()
    assert old in text
    app.write_text(text.replace(old, new) + "\n" * 7)


def marks(pool: PoolProcess) -> list[list[str]]:
    return [line.split() for line in (pool.folder / "done.txt").read_text().splitlines()]


def generations(pool: PoolProcess) -> set[int]:
    return {worker["generation"] for worker in pool.status()["workers"]}


def fruitful_template(pool: PoolProcess, *, after: int | None) -> int | None:
    """Return the pid of a template, another than the one before, whose workers are up."""
    status = pool.status()
    born = {worker["generation"] for worker in status["workers"] if worker["state"] == "idle"}
    templates = [s for s in status["services"] if s["role"] == "template" and s["pid"]]
    templates = [s for s in templates if s["pid"] != after]
    return next((s["pid"] for s in templates if s["generation"] in born), None)


@PRELOAD
def test_a_reload_under_load_loses_no_job(tmp_path: Path, preload: str):
    """Every worker runs the new code afterwards, and every job is done once."""
    with PoolProcess(tmp_path, "-w", "4", preload, app=APP).ready() as pool:
        old = set(pool.worker_pids())
        pool.publish("mark", ({"n": n} for n in range(3_000)))
        rewrite(pool, '"one"', '"two"')

        result = pool.command("reload")

        assert (result.returncode, result.stderr) == (0, "")
        assert "generation 2" in result.stdout
        assert generations(pool) == {2}
        assert not old & set(pool.worker_pids())
        pool.publish("mark", [{"n": 3_000}])
        eventually(pool.empty, what="all jobs are done")
        done = marks(pool)
        assert sorted(int(n) for _, n in done) == list(range(3_001))
        assert done[-1][0] == "two"
        assert pool.metric('pulpo_config_reloads_total{result="success"}') == 1
        assert pool.metric('pulpo_worker_exits_total{reason="reload"}') == 4
        pool.signal(signal.SIGTERM)
        assert pool.wait() == 0


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise RuntimeError('half a deploy')", "half a deploy"),
        ("import os; os._exit(7)", "before it said why"),
        ("import time; time.sleep(3600)", "before it said why"),
    ],
    ids=["raises", "dies", "hangs"],
)
def test_a_broken_app_leaves_the_old_generation_at_work(tmp_path: Path, broken: str, said: str):
    """The command says why and exits with 3; the same processes go on; a mended app reloads."""
    with PoolProcess(tmp_path, "-w", "3", "--boot-timeout", "2", app=APP).ready() as pool:
        old = set(pool.worker_pids())
        rewrite(pool, "pulpo = Pulpo()", f"pulpo = Pulpo(); {broken}")

        result = pool.command("reload")

        assert result.returncode == 3
        assert said in result.stderr
        assert set(pool.worker_pids()) == old
        assert pool.status()["master"]["reload"]["phase"] == "failed"
        assert pool.metric('pulpo_config_reloads_total{result="failure"}') == 1
        assert pool.metric("pulpo_config_last_reload_successful") == 0
        pool.publish("mark", ({"n": n} for n in range(100)))
        eventually(pool.empty, what="the old generation works")
        rewrite(pool, f"; {broken}", "")
        assert pool.command("reload").returncode == 0
        assert pool.metric("pulpo_config_last_reload_successful") == 1


def test_a_worker_that_dies_at_boot_ends_the_reload(tmp_path: Path):
    """The app imports, its worker does not start: one worker is tried, the others never told."""
    with PoolProcess(tmp_path, "-w", "3", app=APP).ready() as pool:
        old = set(pool.worker_pids())
        hook = (
            "pulpo = Pulpo()\n@pulpo.on_worker_start\ndef start():\n    raise OSError('no licence')"
        )
        rewrite(pool, "pulpo = Pulpo()", hook)

        result = pool.command("reload")

        assert result.returncode == 3
        assert "no licence" in result.stderr
        pool.ready()
        assert len(old & set(pool.worker_pids())) == 2
        assert pool.status()["master"]["generation"] == 1


def test_hup_means_reload_and_a_second_one_is_refused(tmp_path: Path):
    with PoolProcess(tmp_path, "-w", "2", app=APP).ready() as pool:
        pool.signal(signal.SIGHUP)
        pool.signal(signal.SIGHUP)

        eventually(lambda: generations(pool) == {2}, what="every worker is of generation 2")

        assert pool.status()["master"]["generation"] == 2


def test_the_death_of_the_template_harms_no_worker(tmp_path: Path):
    """The next template is a new generation; a worker that dies meanwhile waits for it."""
    with PoolProcess(tmp_path, "-w", "3", app=APP).ready() as pool:
        workers = pool.worker_pids()
        template = next(
            s["pid"] for s in pool.status()["services"] if s["role"] == "template" and s["pid"]
        )

        os.kill(template, signal.SIGKILL)
        os.kill(workers[0], signal.SIGKILL)

        eventually(lambda: generations(pool) == {1, 2}, what="the third comes from generation 2")
        pool.ready()
        assert set(workers[1:]) < set(pool.worker_pids())
        pool.publish("mark", ({"n": n} for n in range(100)))
        eventually(pool.empty, what="all jobs are done")


def test_a_template_that_is_killed_again_and_again_costs_no_job(tmp_path: Path):
    """Killed at whatever step it is, also in the middle of a spawn, nobody stays who is unknown."""
    arguments = ("-w", "4", "--max-empty-iterations", "1", "--sleep-duration", "0.1")
    with PoolProcess(tmp_path, *arguments, app=APP).ready() as pool:
        pid = None
        for round_ in range(8):
            # One that has given birth: a template that dies before that backs off, as it should.
            pid = eventually(
                lambda pid=pid: fruitful_template(pool, after=pid), what="a template forks workers"
            )
            os.kill(pid, signal.SIGKILL)
            pool.publish("mark", ({"n": 50 * round_ + n} for n in range(50)))
        eventually(pool.empty, what="all jobs are done")
        pool.signal(signal.SIGTERM)

        assert pool.wait() == 0
        assert sorted(int(n) for _, n in marks(pool)) == list(range(400))
        assert "could not be reaped" not in pool.log


def test_what_an_import_does_to_its_process_is_warned_about_by_name(tmp_path: Path):
    app = """
        import os, signal, socket, subprocess, threading, time
        from pulpo_pool import Pulpo
        pulpo = Pulpo()
        threading.Thread(target=time.sleep, args=(3600,), name="poller", daemon=True).start()
        connection = socket.socket()
        signal.signal(signal.SIGUSR1, lambda *_: None)
        child = subprocess.Popen(["sleep", "60"])
        os.chdir("/")
        @pulpo.job()
        def nothing() -> None: ...
    """
    with PoolProcess(tmp_path, "-w", "1", app=app).ready() as pool:
        log = pool.log

    for said in (
        "started the thread 'poller'",
        r"opened socket:\[\d+\]",
        "replaced the handler of SIGUSR1",
        "started a process",
        "changed the working directory to /",
    ):
        assert re.search(said, log), said
