"""--watch: a save is a reload; a broken one leaves the pool as it is until the next good one."""

from __future__ import annotations

import os

import pytest
from pool import PoolProcess, eventually

from pulpo_pool import watcher
from pulpo_pool.watcher import Tree

APP = """
    from helpers import VERSION
    from pulpo_pool import Pulpo
    pulpo = Pulpo()

    @pulpo.job()
    def mark():
        open("marks", "a").write(f"{VERSION} ")
"""


def save(pool, text):
    (pool.folder / "helpers.py").write_text(text)


def generations(pool):
    return {worker["generation"] for worker in pool.status()["workers"]}


def watches(pool):
    services = pool.status()["services"]
    return any(s["role"] == "watcher" and s["state"] == "up" for s in services)


def reload_of(pool):
    return pool.status()["master"]["reload"]


@pytest.fixture(params=["--preload", "--no-preload"])
def pool(request, tmp_path):
    (tmp_path / "helpers.py").write_text("VERSION = 1\n")
    with PoolProcess(tmp_path, "-w", "2", "--watch", request.param, app=APP) as pool:
        pool.ready()
        eventually(lambda: watches(pool), what="the watcher is up")
        yield pool


def test_a_save_reloads(pool):
    save(pool, "VERSION = 2\n")
    eventually(lambda: generations(pool) == {2}, what="every worker is new")
    pool.publish("mark", [{}])
    eventually(pool.empty, what="a job is done")
    pool.signal(15)

    assert pool.wait() == 0
    assert (pool.folder / "marks").read_text() == "2 "
    assert "helpers.py changed" in pool.log


def test_a_broken_save_leaves_the_pool_at_work_until_the_next_good_one(pool):
    pids = pool.worker_pids()
    save(pool, "VERSION = \n")
    eventually(lambda: reload_of(pool)["phase"] == "failed", what="the reload fails")
    left = set(pool.worker_pids())
    pool.publish("mark", [{}])
    eventually(pool.empty, what="the old generation works")
    save(pool, "VERSION = 3\n")
    eventually(lambda: reload_of(pool)["phase"] == "done", what="the mended app is reloaded")
    pool.publish("mark", [{}])
    eventually(pool.empty, what="the new generation works")

    # Without a template one worker has tried the new code, and there is no other to fork from.
    assert set(pids[1:]) <= left
    assert (pool.folder / "marks").read_text() == "1 3 "


def test_a_save_during_a_reload_is_not_lost(pool):
    save(pool, "import time; time.sleep(2); VERSION = 2\n")
    eventually(
        lambda: reload_of(pool)["phase"] in ("loading", "trying"), what="a slow reload is under way"
    )
    save(pool, "VERSION = 3\n")
    eventually(
        lambda: reload_of(pool)["generation"] == 3 and reload_of(pool)["phase"] == "done",
        what="the second save is reloaded, too",
    )
    pool.publish("mark", [{}])
    eventually(pool.empty, what="a job is done")

    assert (pool.folder / "marks").read_text() == "3 "


class TestTree:
    def test_only_what_an_app_is_made_of_counts(self, tmp_path):
        for name in (
            "shop.py",
            "pulpo-pool.toml",
            "shop/deep/er.py",
            "notes.txt",
            ".hidden.py",
            ".git/hooks/pre.py",
            "shop/__pycache__/x.py",
            "node_modules/gyp.py",
            "env/pyvenv.cfg",
            "env/lib/site.py",
            "state/run/x.py",
        ):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

        seen = Tree(tmp_path, tmp_path / "state").look()

        names = {os.path.relpath(path, tmp_path) for path in seen}
        assert names == {"shop.py", "pulpo-pool.toml", "shop/deep/er.py"}

    @pytest.mark.parametrize(
        "change",
        [
            lambda file: file.write_text("longer"),
            lambda file: os.utime(file, (1, 1)),
            lambda file: file.unlink(),
            lambda file: file.with_name("new.py").touch(),
            lambda file: file.with_name("other").rename(file),
        ],
        ids=["content", "time", "removed", "added", "replaced"],
    )
    def test_every_kind_of_change_shows(self, tmp_path, change):
        file = tmp_path / "shop.py"
        file.write_text("x")
        file.with_name("other").write_text("y")
        for each in (file, file.with_name("other")):
            os.utime(each, (5, 5))
        tree = Tree(tmp_path, tmp_path / ".pulpo")
        before = tree.look()
        again = tree.look()
        change(file)

        assert before == again
        assert tree.look() != before

    def test_a_tree_that_is_too_big_is_cut_off_at_the_same_place_each_time(self, tmp_path):
        for n in range(20):
            (tmp_path / f"{n}.py").touch()
        tree = Tree(tmp_path, tmp_path / ".pulpo", most=10)

        assert tree.look() == tree.look()
        assert len(tree.look()) == 10
        assert tree.is_cut_off

    def test_links_in_a_circle_and_a_missing_directory_end(self, tmp_path):
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / "dead.py").symlink_to(tmp_path / "nowhere")

        assert Tree(tmp_path, tmp_path / ".pulpo").look() == {}
        assert Tree(tmp_path / "gone", tmp_path).look() == {}


def test_a_tree_that_is_too_big_is_told_of(tmp_path):
    for n in range(watcher.MOST_ENTRIES + 1):
        (tmp_path / f"{n}.txt").touch()
    with PoolProcess(tmp_path, "-w", "1", "--watch") as pool:
        pool.ready()
        eventually(lambda: "not all are watched" in pool.log, what="it is said")
