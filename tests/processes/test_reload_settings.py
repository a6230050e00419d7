"""A reload takes the settings that have changed, names those that cannot, and refuses mistakes."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from pool import PoolProcess, eventually

if TYPE_CHECKING:
    from pathlib import Path

APP = """
    from pulpo_pool import PayloadHandler, Pulpo
    pulpo = Pulpo()

    class Greet(PayloadHandler):
        def handle(self, payload):
            with open("greetings.txt", "a") as out:
                out.write(f"{payload['n']} {self.config.get('word')}\\n")

    pulpo.registry.register("greet", Greet)
"""

PRELOAD = pytest.mark.parametrize("preload", ["--preload", "--no-preload"])


def configure(folder: Path, text: str) -> None:
    (folder / "pulpo-pool.toml").write_text(text)


def pool_in(folder: Path, text: str, *arguments: str, app: str | None = APP) -> PoolProcess:
    """Start a pool that has its settings from a file."""
    configure(folder, text)
    http = None if "http" in text else "127.0.0.1:0"
    return PoolProcess(folder, *arguments, app=app, http=http).ready()


def word_of(pool: PoolProcess, n: int) -> str:
    """Return the handler's option that a job meets now."""
    pool.publish("greet", [{"n": n}])
    eventually(lambda: n in pool.numbers("greetings.txt"), what="the job is done")
    return next(word for number, word in pool.lines("greetings.txt") if int(number) == n)


@PRELOAD
def test_workers_take_what_has_changed(tmp_path: Path, preload: str):
    """Their number, their patience and their handlers' options are those of the file."""
    before = 'workers = 2\n[handlers.greet]\nword = "hello"\n'
    with pool_in(tmp_path, before, preload) as pool:
        keeper, web = pool.pid_of("keeper"), pool.pid_of("web")
        assert word_of(pool, 1) == "hello"
        configure(
            tmp_path,
            "workers = 3\nmax-empty-iterations = 1\nsleep-duration = 0.1\n"
            '[handlers.greet]\nword = "welcome"\n',
        )

        result = pool.command("reload")

        assert (result.returncode, result.stdout) == (0, "every worker runs generation 2\n")
        pool.ready(3)
        assert pool.status()["master"]["workers_wanted"] == 3
        assert word_of(pool, 2) == "welcome"
        eventually(
            lambda: pool.status()["master"]["exits"]["idle"], what="a worker leaves after one look"
        )
        assert (pool.pid_of("keeper"), pool.pid_of("web")) == (keeper, web)


def test_what_cannot_change_is_named_and_stays(tmp_path: Path):
    """The answer, the status and the log name it; all others change."""
    before = 'http = "127.0.0.1:0"\nworkers = 1\n'
    with pool_in(tmp_path, before) as pool:
        address = pool.status()["master"]["http"]
        configure(tmp_path, 'http = "off"\nworkers = 2\nburst = true\nbroker = "file:other.db"\n')

        told = pool.command("reload")
        again = pool.command("reload", "--json")

        assert (told.returncode, again.returncode) == (0, 0)
        assert "unchanged until the pool starts again: broker, burst, http\n" in told.stdout
        assert json.loads(again.stdout)["unchanged"] == ["broker", "burst", "http"]
        master = pool.status()["master"]
        assert master["reload"]["unchanged"] == ["broker", "burst", "http"]
        assert (master["http"], master["workers_wanted"]) == (address, 2)
        assert "cannot change while the pool runs: broker, burst, http" in pool.log
        assert pool.http("/healthz")[0] == 200
        assert not (tmp_path / "other.db").exists()


def test_services_are_replaced_when_theirs_changes(tmp_path: Path):
    """The keeper counts the new queues, web shows them, and workers look into them."""
    with pool_in(tmp_path, "workers = 1\n") as pool:
        keeper, web = pool.pid_of("keeper"), pool.pid_of("web")
        configure(tmp_path, 'workers = 1\nqueues = ["default", "mail"]\n')

        assert pool.command("reload").returncode == 0

        pool.replaced("keeper", keeper)
        pool.replaced("web", web)
        assert pool.status()["master"]["queues"] == ["default", "mail"]
        pool.publish("greet", [{"n": 1}], queue="mail")
        eventually(pool.empty, what="the new queue is worked on")
        exits = pool.status()["master"]["exits"]
        assert {reason: n for reason, n in exits.items() if n} == {"reload": 1}


def test_a_number_of_workers_set_by_hand_stays(tmp_path: Path):
    with pool_in(tmp_path, "workers = 2\n") as pool:
        pool.ask("scale", "1")
        configure(tmp_path, "workers = 3\n")

        result = pool.command("reload")

        assert result.returncode == 0
        assert "unchanged until the pool starts again: workers" in result.stdout
        assert pool.status()["master"]["workers_wanted"] == 1


def test_mistakes_fail_the_reload_and_are_all_named(tmp_path: Path):
    """The same processes go on; command, status, log and metric say so; a mended file reloads."""
    with pool_in(tmp_path, "workers = 2\n") as pool:
        old = pool.worker_pids()
        configure(tmp_path, 'workers = "many"\nlease = 0\nmax-job = 5\n')

        result = pool.command("reload")

        assert result.returncode == 3
        for said in ("workers", "'many'", "lease", "did you mean 'max-jobs'?"):
            assert said in result.stderr
        assert pool.worker_pids() == old
        reload = pool.status()["master"]["reload"]
        assert reload["phase"] == "failed"
        assert "max-job: no such setting" in reload["error"]
        assert "the reload failed" in pool.log
        assert pool.metric('pulpo_config_reloads_total{result="failure"}') == 1
        assert pool.metric("pulpo_config_last_reload_successful") == 0
        configure(tmp_path, "workers = 1\n")
        assert pool.command("reload").returncode == 0
        assert pool.metric("pulpo_config_last_reload_successful") == 1
        assert pool.status()["master"]["workers_wanted"] == 1


def test_a_file_that_is_no_toml_fails_a_reload_by_signal(tmp_path: Path):
    with pool_in(tmp_path, "workers = 1\n") as pool:
        configure(tmp_path, "workers = = 2\n")

        pool.signal(signal.SIGHUP)

        eventually(
            lambda: "is not valid TOML" in pool.status()["master"]["reload"]["error"],
            what="the reload fails",
        )
        assert pool.status()["master"]["generation"] == 1


@PRELOAD
def test_a_broken_app_puts_the_old_settings_back(tmp_path: Path, preload: str):
    """What failed with the new code leaves no setting behind, in master, services or workers."""
    before = 'workers = 2\n[handlers.greet]\nword = "hello"\n'
    with pool_in(tmp_path, before, preload) as pool:
        keeper = pool.pid_of("keeper")
        configure(
            tmp_path,
            'workers = 3\nlog-level = "error"\nqueues = ["mail"]\n'
            '[handlers.greet]\nword = "welcome"\n',
        )
        app = tmp_path / "shop.py"
        sound = app.read_text()
        app.write_text(sound + "\nraise RuntimeError('half a deploy')\n")

        result = pool.command("reload")
        app.write_text(sound)

        assert result.returncode == 3
        assert "half a deploy" in result.stderr
        pool.ready(2)
        master = pool.status()["master"]
        assert (master["workers_wanted"], master["queues"]) == (2, ["default"])
        assert pool.pid_of("keeper") == keeper
        old = pool.worker_pids()
        pool.ask("recycle")
        eventually(lambda: not set(old) & set(pool.worker_pids()), what="all are new")
        assert "left: operator" in pool.log  # at log level info
        assert word_of(pool, 1) == "hello"


def test_an_app_that_boots_longer_gets_the_longer_time_at_once(tmp_path: Path):
    """Its trial would end at the old boot timeout otherwise, and never could be reloaded."""
    with pool_in(tmp_path, "workers = 1\nboot-timeout = 2\n") as pool:
        configure(tmp_path, "workers = 1\nboot-timeout = 60\n")
        app = tmp_path / "shop.py"
        app.write_text("import time; time.sleep(3)\n" + app.read_text())

        result = pool.command("reload")

        assert (result.returncode, result.stderr) == (0, "")


def test_parked_workers_return_when_all_are_to_stay(tmp_path: Path):
    before = "workers = 2\nmin-workers = 1\nmax-empty-iterations = 1\nsleep-duration = 0.1\n"
    with pool_in(tmp_path, before) as pool:
        eventually(lambda: pool.workers_in("parked") == [1], what="one is parked")
        configure(tmp_path, "workers = 2\n")

        assert pool.command("reload").returncode == 0

        pool.ready(2)
        assert pool.workers_in("parked") == []


def test_watch_reloads_when_the_settings_change(tmp_path: Path):
    with pool_in(tmp_path, "workers = 1\n", "--watch") as pool:
        eventually(lambda: pool.pid_of("watcher"), what="somebody watches")
        eventually(
            lambda: any(
                s["role"] == "watcher" and s["state"] == "up" for s in pool.status()["services"]
            ),
            what="the watcher is up",
        )
        configure(tmp_path, "workers = 2\n")

        eventually(lambda: pool.status()["master"]["workers_wanted"] == 2, what="it is reloaded")
