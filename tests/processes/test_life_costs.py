"""What a pool costs beside its jobs: wake-ups while idle, memory that workers do not share."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pool import PoolProcess, eventually

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="read from Linux's /proc"
)
MIB = 1024  # KiB
BIG = 40  # MiB that the app below takes, at least
OWN = 7  # MiB that its worker may have to itself: 5.1 here, 7.5 where it makes all that it has
APP = """
import gc
from pathlib import Path
from pulpo_pool import Pulpo
pulpo = Pulpo()
much = [[number] for number in range(400_000)]


@pulpo.job()
def weigh():
    gc.collect()
    Path("weighed").write_text(Path("/proc/self/smaps_rollup").read_text())
"""


def sleeps(pid):
    """Return how often the threads of a process have gone to sleep."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = status.read_text().split()
            found += int(words[words.index("voluntary_ctxt_switches:") + 1])
    return found


def test_an_idle_pool_sleeps(tmp_path):
    """Nobody wakes more than every two seconds, give or take a few; workers when their wait ends.

    What is counted rises with the time that passes, so a slow machine passes as a fast one does.
    """
    with PoolProcess(tmp_path, "-w", "1", "--sleep-duration", "2") as pool:
        pool.ready()
        worker, *_ = pool.worker_pids()
        others = {pid: psutil.Process(pid).cmdline()[0] for pid in pool.members() if pid != worker}
        eventually(lambda: pool.titles() == ["worker 0 idle"])
        first = sleeps(worker)
        eventually(lambda: sleeps(worker) > first)
        before, began, first = (
            {pid: sleeps(pid) for pid in others},
            time.monotonic(),
            sleeps(worker),
        )
        eventually(lambda: sleeps(worker) > first + 1)
        passed = time.monotonic() - began
        woken = {title: sleeps(pid) - before[pid] for pid, title in others.items()}

    assert len(woken) == 4, woken
    assert {title: n for title, n in woken.items() if n > 4 + passed / 2} == {}


def test_a_worker_shares_what_the_app_imported(tmp_path):
    """Not even a full collection in a handler takes a copy of it: it is frozen before the fork."""
    with PoolProcess(tmp_path, "-w", "1", app=APP) as pool:
        pool.publish("weigh", [{}])
        pool.ready()
        text = eventually(lambda: (tmp_path / "weighed").exists() and pool.empty())
        words = (tmp_path / "weighed").read_text().split()

    assert text
    assert int(words[words.index("Anonymous:") + 1]) > BIG * MIB
    assert int(words[words.index("Private_Dirty:") + 1]) < OWN * MIB
