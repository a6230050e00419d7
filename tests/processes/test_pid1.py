"""As PID 1 of a container a pool needs no tini: it hears TERM from the start, and reaps orphans."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pool import PoolProcess, eventually
from shops import SHOP

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _why_not() -> str:
    """Return what keeps this machine from making a PID namespace; nothing if it can."""
    if sys.platform != "linux":
        return "PID namespaces are Linux's"
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not installed"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return f"no PID namespace may be made here: {tried.stderr.strip()}" if tried.returncode else ""


WHY_NOT = _why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

# A handler's grandchild in a session of its own, as a daemon is: it belongs to nobody, outlives
# its worker's group, and ends when the test says so, with a status that would mean much.
ORPHANS = (
    SHOP
    + """
@pulpo.job()
def orphan(n, status):
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    append("orphans", n)
    while not Path("end").exists():
        time.sleep(0.005)
    append("ended", n)
    os._exit(status)
"""
)


class Container(PoolProcess):
    """A pool as PID 1, seen from outside: `unshare` waits for it, and exits as it does."""

    def __init__(self, folder: Path, *arguments: str, **more) -> None:
        super().__init__(folder, *arguments, prefix=UNSHARE, **more)
        self.outside = psutil.Process(self.pid)

    @property
    def init(self) -> psutil.Process:
        """The pool's master, by the pid that it has out here."""
        return eventually(self.outside.children, what="unshare has forked")[0]

    def signal(self, number: int) -> None:
        """As `docker stop` does: to PID 1 from outside."""
        self.init.send_signal(number)

    def members_of_the_pool(self) -> list[psutil.Process]:
        return [self.init, *self.init.children(recursive=True)]

    def zombies(self) -> list[psutil.Process]:
        found = []
        for member in self.members_of_the_pool():
            with suppress(psutil.NoSuchProcess):
                if member.status() == psutil.STATUS_ZOMBIE:
                    found.append(member)
        return found

    def has_no_zombies(self) -> bool:
        return not self.zombies()


def hears_term(process: psutil.Process) -> bool:
    """Tell whether a handler for TERM is installed: proc(5)."""
    caught = next(
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("SigCgt")
    )
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_term_drains(tmp_path, preload):
    with Container(tmp_path, "-w", "2", preload, app=SHOP) as pool:
        pool.ready()
        inside = pool.status()["master"]["pid"]
        pool.publish("hold", [{"n": 0}, {"n": 1}])
        eventually(lambda: len(pool.lines("started")) == 2, what="both workers have a job")
        pool.signal(signal.SIGTERM)
        pool.let_go()
        code = pool.wait()

    assert inside == 1
    assert code == 0
    assert pool.numbers("done") == [0, 1]


def test_a_term_before_the_settings_are_read_ends_it_before_a_worker_is_forked(tmp_path):
    """The kernel drops what PID 1 has no handler for, and the pool would run until it is killed.

    A settings file that nobody has written yet holds the program at its very beginning.
    """
    config = tmp_path / "slow.toml"
    os.mkfifo(config)
    with Container(tmp_path, "-w", "1", "-c", str(config), app=SHOP) as pool:
        eventually(lambda: hears_term(pool.init), what="PID 1 hears TERM")
        claimed = (tmp_path / ".pulpo").exists()
        pool.signal(signal.SIGTERM)
        config.write_text("")
        code = pool.wait()

    assert not claimed
    assert code == 0
    assert "the first worker is ready" not in pool.log
    assert "draining" in pool.log


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_a_term_while_the_app_is_imported_ends_it(tmp_path, preload):
    app = SHOP + "\nappend('importing', 1)\ntime.sleep(3600)\n"
    with Container(tmp_path, "-w", "2", "--drain-timeout", "1", preload, app=app) as pool:
        eventually(lambda: pool.lines("importing"), what="the app is being imported")
        pool.signal(signal.SIGTERM)

        assert pool.wait() == 0


def test_orphans_are_reaped_and_never_taken_for_workers(tmp_path):
    """One exits with the status that means, of a worker, that the app does not boot."""
    with Container(tmp_path, "-w", "2", app=ORPHANS) as pool:
        pool.ready()
        workers = pool.worker_pids()
        pool.publish("orphan", [{"n": n, "status": status} for n, status in enumerate((0, 3, 1))])
        eventually(lambda: len(pool.lines("orphans")) == 3, what="the orphans run")
        eventually(pool.empty, what="their jobs are done")
        population = len(pool.members_of_the_pool())
        (tmp_path / "end").touch()
        eventually(lambda: len(pool.lines("ended")) == 3, what="the orphans end")
        eventually(
            lambda: len(pool.members_of_the_pool()) == population - 3, what="they are reaped"
        )
        eventually(pool.has_no_zombies, what="nobody is left unreaped")
        failures = sum(
            pool.metric(f'pulpo_worker_exits_total{{reason="{reason}"}}')
            for reason in ("error", "signal", "boot")
        )
        still = pool.worker_pids()
        pool.signal(signal.SIGTERM)
        code = pool.wait()

    assert (failures, code) == (0, 0)
    assert still == workers


def test_a_worker_that_is_killed_is_replaced(tmp_path):
    with Container(tmp_path, "-w", "2", app=SHOP) as pool:
        pool.ready()
        first = pool.worker_pids()[0]
        outside = next(p for p in pool.members_of_the_pool() if "worker 0" in " ".join(p.cmdline()))
        outside.kill()

        assert pool.replaced(0, first) != first
        eventually(pool.has_no_zombies, what="the dead one is reaped")
