"""An app that does not boot: its own traceback, once and promptly, and never a storm of forks."""

from __future__ import annotations

import os
import signal

import pytest
from pool import PoolProcess, eventually
from shops import SHOP

BROKEN = """
raise RuntimeError("the shop is closed")
"""


def test_an_app_that_raises_at_import_ends_the_pool_with_its_own_traceback(tmp_path):
    with PoolProcess(tmp_path, "-w", "4", "--log-format", "text", app=BROKEN) as pool:
        code = pool.wait()

    assert code == 3
    assert pool.log.count("Traceback") == 1
    assert pool.log.count("RuntimeError: the shop is closed") == 1
    assert f'File "{tmp_path}/shop.py", line 2' in pool.log
    assert "pulpo_pool/" not in pool.log
    assert not (tmp_path / ".pulpo" / "run" / "default" / "pid").exists()


@pytest.mark.parametrize(
    "app",
    [
        "import os; os.kill(os.getpid(), 9)",
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "raise KeyboardInterrupt",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_an_app_that_ends_its_process_at_import_ends_the_pool(tmp_path, app):
    with PoolProcess(tmp_path, "-w", "2", app=app) as pool:
        assert pool.wait() == 3
        assert "no worker boots" in pool.log


@pytest.mark.parametrize(("named", "meant"), [("shpo:pulpo", "'shop'"), ("shop:plupo", "'pulpo'")])
def test_an_app_that_is_not_there_is_a_mistake_of_usage(tmp_path, named, meant):
    (tmp_path / "shop.py").write_text(SHOP)
    with PoolProcess(tmp_path, "-w", "2", named) as pool:
        assert pool.wait() == 2
        assert f"did you mean {meant}" in pool.log
        assert "Traceback" not in pool.log


def test_a_missing_module_of_the_apps_own_is_the_apps_failure(tmp_path):
    with PoolProcess(tmp_path, "-w", "2", app="import no_such_thing_anywhere") as pool:
        assert pool.wait() == 3
        assert "No module named 'no_such_thing_anywhere'" in pool.log


def test_a_boot_that_hangs_ends_at_the_boot_timeout(tmp_path):
    app = "import time\nwhile True: time.sleep(1)"
    with PoolProcess(tmp_path, "-w", "2", "--boot-timeout", "1", app=app) as pool:
        assert pool.wait() == 3
        assert "did not report ready within the boot timeout of 1 s" in pool.log
        assert pool.members() == []


def test_one_worker_that_boots_is_enough_to_go_on(tmp_path):
    """The first to come has luck, the others fail: the pool runs, and tries again."""
    lucky = (
        """
import os
try:
    os.mkdir("luck")
except FileExistsError:
    if not os.path.exists("mended"):
        raise RuntimeError("no luck")
"""
        + SHOP
    )
    with PoolProcess(tmp_path, "-w", "3", "--no-preload", app=lucky) as pool:
        pool.ready(1)
        pool.publish("note", [{"n": 1}])
        eventually(lambda: pool.numbers("done") == [1], what="the lucky one works")
        (tmp_path / "mended").touch()
        pool.ready(3)

        assert pool.log.count("RuntimeError: no luck") == 1


def test_a_running_pool_whose_app_breaks_backs_off_says_so_and_recovers(tmp_path):
    arguments = ("-w", "2", "--no-preload", "--log-format", "text")
    with PoolProcess(tmp_path, *arguments, app=SHOP) as pool:
        pool.ready()
        (tmp_path / "shop.py").write_text(BROKEN)
        pool.ask("recycle")
        eventually(
            lambda: pool.counted("pulpo_worker_exits_total", reason="boot") >= 1,
            what="the first replacement cannot boot",
        )
        # A quarter at a time: the other worker stays while its neighbour is down.
        pool.publish("note", [{"n": 1}])
        eventually(lambda: pool.numbers("done") == [1], what="the pool still works")
        survivor, *_ = eventually(lambda: pool.workers_in("idle"), what="the job is settled")
        os.kill(pool.pid_of(survivor), signal.SIGKILL)
        eventually(
            lambda: pool.status()["master"]["crash_looping"], what="the pool sees its crash loop"
        )
        eventually(lambda: len(pool.workers_in("backoff")) == 2, what="both places wait")
        failures = pool.counted("pulpo_worker_exits_total", reason="boot")
        ready, why = pool.http("/readyz")
        healthy, _ = pool.http("/healthz")
        tracebacks = pool.log.count("RuntimeError: the shop is closed")
        (tmp_path / "shop.py").write_text(SHOP)
        mended = pool.ready().http("/readyz")[0]
        pool.publish("note", [{"n": 2}])
        eventually(pool.empty, what="the second job is done")

    assert failures <= 10, "a storm of forks"
    assert (ready, healthy) == (503, 200)
    assert "crash" in why
    assert tracebacks == 1
    assert mended == 200
    assert pool.numbers("done") == [1, 2]
