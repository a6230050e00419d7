"""The queue's address, its first opening, and who may share it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from pool import PoolProcess, eventually
from shops import SHOP

from pulpo_pool.queues.adapter import QueueStats
from pulpo_pool.queues.opening import file_url


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"garbage" * 1_000, "not a database"), (b"SQLite format 3\0" + b"\xff" * 9_000, "")],
    ids=["garbage", "garbage behind the header"],
)
def test_a_corrupt_database_at_the_start_ends_the_pool_with_its_path(tmp_path, content, cause):
    (tmp_path / ".pulpo").mkdir()
    path = tmp_path / ".pulpo" / "queue.db"
    path.write_bytes(content)
    with PoolProcess(tmp_path, "-w", "4", app=SHOP) as pool:
        code = pool.wait()

    assert code == 2
    assert f"file queue {path}" in pool.log
    assert cause in pool.log
    assert "move it aside" in pool.log
    assert path.read_bytes() == content


def test_a_path_that_can_hold_no_queue_ends_the_pool_before_it_forks(tmp_path):
    url = file_url(str(tmp_path / "no" / "such" / "place" / "queue.db"))
    with PoolProcess(tmp_path, "-w", "2", "--broker", url, app=SHOP) as pool:
        code = pool.wait()

    assert code == 2
    assert "does not exist; create it" in pool.log


def test_a_path_with_spaces_and_signs_works_for_pools_and_publishers(tmp_path):
    folder = tmp_path / "mein Ordner"
    folder.mkdir()
    url = file_url(str(folder / "käse ☃ 100% #1?.db"))
    with PoolProcess(tmp_path, "-w", "1", "--broker", url, app=SHOP) as pool:
        pool.ready()
        told = pool.command("publish", "note", "--body", '{"n": 7}', "--broker", url)
        eventually(lambda: pool.numbers("done") == [7], what="the job is done")
    databases = [path.name for path in folder.glob("*.db")]

    assert told.returncode == 0, told.stderr
    assert databases == ["käse ☃ 100% #1?.db"]


def test_a_message_over_the_limit_is_refused_with_both_sizes(tmp_path):
    (tmp_path / "pulpo-pool.toml").write_text("max-message-bytes = 1000\n")
    (tmp_path / "jobs.jsonl").write_text(
        '{"request_type": "note", "body": {"n": 1}}\n'
        f'{{"request_type": "note", "body": {{"text": "{"x" * 2_000}"}}}}\n'
    )
    pool = PoolProcess.__new__(PoolProcess)
    pool.folder = tmp_path
    told = pool.command("publish", "--from-file", "jobs.jsonl")
    stats = pool.stats()

    assert told.returncode == 2
    assert "the limit is 1,000" in told.stderr
    assert re.search(r"the message has 2,\d\d\d bytes", told.stderr)
    assert stats == QueueStats()


def test_pools_and_producers_share_one_file(tmp_path):
    """Three producers publish while two pools work; each job is done once."""
    produce = (
        "import sys, shop\n"
        "for n in range(int(sys.argv[1]), int(sys.argv[2])): shop.note.publish(n=n)\n"
    )
    with (
        PoolProcess(tmp_path, "-w", "2", "--name", "first", app=SHOP) as first,
        PoolProcess(tmp_path, "-w", "2", "--name", "second", app=SHOP) as second,
    ):
        first.ready()
        second.ready()
        producers = [
            subprocess.Popen(
                [sys.executable, "-c", produce, str(n), str(n + 100)],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))},
            )
            for n in (0, 100, 200)
        ]
        codes = [producer.wait() for producer in producers]
        eventually(lambda: len(first.numbers("done")) >= 300, what="every job is done")
        eventually(first.empty, what="every job is settled")
        workers = {int(pid) for _, pid in first.lines("done")}
        both = [workers & set(pool.worker_pids()) for pool in (first, second)]

    assert codes == [0, 0, 0]
    assert first.numbers("done") == list(range(300))
    assert all(both), "expected workers of both pools to have had a share"
