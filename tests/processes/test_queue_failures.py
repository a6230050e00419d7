"""A database that goes bad under a running pool: workers stay, say what is wrong, and go on."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from itertools import count

import pytest
from pool import PoolProcess, eventually, publish_to
from shops import SHOP

from pulpo_pool.queues.adapter import JobState, QueueStats
from pulpo_pool.queues.opening import file_url, open_queue

OPTIONS = ("-w", "2", "--sleep-duration", "0.2")

FILES = ("queue.db", "queue.db-wal", "queue.db-shm")

# As root, permissions mean nothing: two capabilities are given up for good first (prctl(2)).
GIVE_UP = """
import ctypes, os, sys
for capability in (1, 2): ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
UNPRIVILEGED = (sys.executable, "-c", GIVE_UP)


class Patient:
    """A pool whose database is harmed and mended; its workers must outlive it."""

    def __init__(self, pool):
        self.pool = pool
        self.path = pool.folder / ".pulpo" / "queue.db"
        self.numbers = count()
        self.pids = sorted(pool.worker_pids())

    def remove(self):
        for name in FILES:
            self.path.with_name(name).unlink(missing_ok=True)

    def replace(self, content):
        """Put other bytes into the database's place, as a careless restore would."""
        draft = self.path.with_name("draft")
        draft.write_bytes(content)
        self.remove()
        draft.rename(self.path)

    def told(self, logged):
        """Wait for /readyz to say that the queue is away; return what the log says since then."""
        _, reasons = eventually(self.not_ready, what="/readyz says that the queue is away")
        assert "queue" in reasons
        return eventually(
            lambda: self.pool.log[logged:] if str(self.path) in self.pool.log[logged:] else None,
            what=f"the log names {self.path}",
        )

    def not_ready(self):
        status, reasons = self.pool.http("/readyz")
        return (status, reasons) if status == 503 else None

    def goes_on(self):
        """Publish a job, and wait until it is done and /readyz is content."""
        number = next(self.numbers)
        self.pool.publish("note", [{"n": number}])
        eventually(lambda: number in self.pool.numbers("done"), what="the job is done")
        eventually(lambda: self.pool.http("/readyz")[0] == 200, what="/readyz is content")
        return sorted(self.pool.worker_pids()) == self.pids


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patient")
    with PoolProcess(folder, *OPTIONS, app=SHOP) as pool:
        yield Patient(pool.ready())


def test_a_vanished_database_is_made_anew(patient):
    patient.remove()
    eventually(patient.path.exists, what="the database is made anew")
    same_workers = patient.goes_on()

    assert same_workers


def test_a_database_that_another_replaced_is_followed(patient):
    with closing(sqlite3.connect(patient.path)) as database:
        database.execute("VACUUM INTO ?", (str(patient.path.with_name("copy")),))
    patient.remove()
    patient.path.with_name("copy").rename(patient.path)
    same_workers = patient.goes_on()

    assert same_workers


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"garbage" * 10_000, "not a database"), (b"SQLite format 3\0" + b"\xff" * 9_000, "")],
    ids=["garbage", "garbage behind the header"],
)
def test_garbage_in_its_place_is_named_until_it_is_gone(patient, content, cause):
    logged = len(patient.pool.log)
    patient.replace(content)
    log = patient.told(logged)
    kept = patient.path.read_bytes() == content
    patient.remove()
    same_workers = patient.goes_on()

    assert cause in log
    assert "move it aside" in log
    assert kept, "expected what was found there to be left alone"
    assert same_workers


def test_another_programs_database_in_its_place_is_left_alone(patient):
    logged = len(patient.pool.log)
    with closing(sqlite3.connect(patient.path.with_name("other"))) as database, database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    patient.replace(patient.path.with_name("other").read_bytes())
    log = patient.told(logged)
    patient.remove()
    same_workers = patient.goes_on()

    assert "another program" in log
    assert "recipes" in log
    assert same_workers


def test_a_database_cut_short_is_named_until_it_is_gone(patient):
    patient.pool.ask("pause")
    patient.pool.publish("note", [{"n": -1, "filler": "x" * 5_000}] * 50)
    with closing(sqlite3.connect(patient.path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    logged = len(patient.pool.log)
    os.truncate(patient.path, 8_192)
    patient.pool.ask("resume")
    log = patient.told(logged)
    patient.remove()
    same_workers = patient.goes_on()

    assert "malformed" in log
    assert same_workers


def test_a_directory_in_its_place_is_named_until_it_is_gone(patient):
    logged = len(patient.pool.log)
    patient.remove()
    patient.path.mkdir()
    log = patient.told(logged)
    patient.path.rmdir()
    same_workers = patient.goes_on()

    assert "directory" in log or "unable to open" in log
    assert same_workers


def test_a_row_that_was_written_by_hand_is_text_and_runs_like_any(patient):
    number = next(patient.numbers)
    text = f'{{"header": {{"request_type": "note"}}, "body": {{"n": {number}}}}}'
    with closing(sqlite3.connect(patient.path, timeout=10)) as database, database:
        database.execute(
            "INSERT INTO jobs (queue, state, priority, raw) VALUES ('default', 0, 1, ?)", (text,)
        )
    eventually(lambda: number in patient.pool.numbers("done"), what="the job is done")
    same_workers = patient.goes_on()

    assert same_workers


def test_a_row_that_is_no_message_is_buried_and_others_flow(patient):
    rows = [b"", b"garbage", b"{}", "text, not bytes", 42, b'{"header": {"request_type": 7}}']
    with closing(sqlite3.connect(patient.path, timeout=10)) as database, database:
        database.executemany(
            "INSERT INTO jobs (queue, state, priority, raw) VALUES ('default', 0, 1, ?)",
            [(row,) for row in rows],
        )
    same_workers = patient.goes_on()
    eventually(patient.pool.empty, what="every job is settled")
    buried = patient.pool.jobs(JobState.BURIED)
    with patient.pool.queue() as queue:
        queue.purge(JobState.BURIED)

    assert [record.reason for record in buried] == ["undecodable"] * len(rows)
    assert same_workers


@contextmanager
def small_disk(folder):
    """Mount a disk of 2 MB; skip the test where that is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4_096)
        except OSError:
            return


def test_a_full_disk_is_named_and_waited_for_without_haste(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        url = file_url(str(disk / "queue.db"))
        with PoolProcess(tmp_path, *OPTIONS, "--broker", url, app=SHOP) as pool:
            pool.ready()
            pids = sorted(pool.worker_pids())
            pool.ask("pause")
            with open_queue(url) as queue:
                publish_to(queue, "note", [{"n": n} for n in range(50)])
            fill(disk / "filler")
            pool.ask("resume")
            eventually(lambda: "the disk is full" in pool.log, what="the log says it")
            _, reasons = eventually(
                lambda: (answer := pool.http("/readyz"))[0] == 503 and answer,
                what="/readyz says that the queue is away",
            )
            done_meanwhile = len(pool.numbers("done"))
            (disk / "filler").unlink()
            eventually(lambda: len(pool.numbers("done")) >= 50, what="every job is done")
            tries = pool.log.count("the disk is full")
            same_workers = sorted(pool.worker_pids()) == pids

    assert "queue" in reasons
    assert done_meanwhile < 50
    assert same_workers
    assert str(disk / "queue.db") in pool.log
    assert tries < 200, "expected tries ever more seldom"


def test_a_database_that_may_not_be_written_is_named_until_it_may(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    arguments = (*OPTIONS, "--broker", file_url(str(data / "queue.db")))
    with PoolProcess(tmp_path, *arguments, app=SHOP, prefix=UNPRIVILEGED) as pool:
        pool.ready()
        pids = sorted(pool.worker_pids())
        data.chmod(0o500)  # first: what is taken away is not to be made anew
        for each in data.iterdir():
            each.unlink() if each.is_file() else shutil.rmtree(each)
        status, _ = eventually(lambda: (answer := pool.http("/readyz"))[0] == 503 and answer)
        eventually(lambda: "must be writable for user" in pool.log, what="it is said why")
        said = pool.log
        data.chmod(0o700)
        eventually(lambda: pool.http("/readyz")[0] == 200, what="/readyz is content")
        same_workers = sorted(pool.worker_pids()) == pids

    assert status == 503
    assert f"{data}/queue.db" in said
    assert same_workers


def test_a_job_that_is_done_but_not_settled_outlives_a_full_disk(tmp_path):
    """Even when the pool is told to stop meanwhile: repeating it would cost more than waiting."""
    with small_disk(tmp_path / "disk") as disk:
        url = file_url(str(disk / "queue.db"))
        arguments = ("-w", "1", "--drain-timeout", "600", "--broker", url)
        with PoolProcess(tmp_path, *arguments, app=SHOP) as pool, open_queue(url) as queue:
            publish_to(queue, "hold", [{"n": 1}])
            eventually(lambda: pool.lines("started"), what="the handler runs")
            fill(disk / "filler")
            pool.let_go()
            eventually(lambda: "the disk is full" in pool.log, what="settling fails")
            pool.signal(signal.SIGTERM)
            eventually(lambda: pool.status()["master"]["state"] == "draining", what="it drains")
            held = queue.stats()["default"]
            (disk / "filler").unlink()
            code = pool.wait()
            left = queue.stats()

    assert held == QueueStats(reserved=1)
    assert left == {}
    assert code == 0
    assert len(pool.lines("started")) == 1
