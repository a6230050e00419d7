"""A host that loses power: what was accepted is there afterwards, and nothing is there by half."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from servers import found

from pulpo_pool import Message
from pulpo_pool.clock import SystemClock
from pulpo_pool.queues.adapter import BuryReason, JobState
from pulpo_pool.queues.file import FileQueueAdapter

LOG_HEADER, FRAME_HEADER = 32, 24  # bytes; see https://www.sqlite.org/fileformat2.html#walformat

PUBLISHER = """
import os, sys
from pulpo_pool import Message
from pulpo_pool.queues.file import FileQueueAdapter

queue = FileQueueAdapter(sys.argv[1])
for n in range(60):  # more pages than the log holds before they are moved into the database
    queue.enqueue(Message(request_type="say", body={"text": "x" * 100_000}))
    os.write(1, b"accepted")
    if n % 10 == 9:
        queue.commit(queue.dequeue())
queue.close()
"""


def say(*texts):
    now = SystemClock().now()
    return [
        Message(request_type="say", body={"text": text}).stamped(
            id=f"id-{text[:8]}", queue="default", published_at=now
        )
        for text in texts
    ]


# -- every prefix of the log ------------------------------------------------------------------


@dataclass
class Story:
    """What a queue went through, step by step, with the length of its log after each."""

    path: Path
    steps: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    def note(self, queue):
        """Write down which jobs are there, and how they stand, once a step has returned."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT id, state, attempts, error FROM jobs").fetchall()
        log = Path(f"{self.path}-wal")
        self.steps.append((log.stat().st_size, {str(row[0]): repr(row[1:]) for row in rows}))


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A queue whose log holds all that ever happened to it: nothing was moved out of it."""
    story = Story(tmp_path_factory.mktemp("power") / "queue.db")
    with FileQueueAdapter(str(story.path)) as queue:
        for text in ("first", "y" * 30_000):
            queue.enqueue_many(say(text))
            story.note(queue)
        queue.enqueue_many(say(*("z" * 9_000 for _ in range(5))))
        story.note(queue)
        for settle in (
            queue.commit,
            lambda held: queue.rollback(held, delay=600, error="e" * 9_000),
            lambda held: queue.bury(held, reason=BuryReason.FATAL, error="f" * 9_000),
        ):
            held = queue.dequeue()
            story.note(queue)
            settle(held)
            story.note(queue)
        queue.enqueue_many(say("last"))
        story.note(queue)
        shutil.copy(story.path, f"{story.path}.before")
        shutil.copy(f"{story.path}-wal", f"{story.path}.log")
        yield story


def revived(story, folder, length, tail=b""):
    """Return which jobs a queue has of whose log only so many bytes reached the disk."""
    path = folder / f"{length}-{len(tail)}.db"
    shutil.copy(f"{story.path}.before", path)
    log = Path(f"{story.path}.log").read_bytes()[:length]
    Path(f"{path}-wal").write_bytes(log + tail)
    with FileQueueAdapter(str(path)) as queue:
        records = [record for state in JobState for record in queue.list_jobs(state)]
        assert all(record.message().body["text"] for record in records)
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = database.execute("SELECT id, state, attempts, error FROM jobs").fetchall()
        accepted = queue.enqueue_many(say("afterwards"))
        assert queue.peek(accepted[0])
    return {str(row[0]): repr(row[1:]) for row in rows}


def lengths(story):
    """Return where each frame of the log ends."""
    log = Path(f"{story.path}.log").read_bytes()
    page = int.from_bytes(log[8:12], "big")
    return range(LOG_HEADER, len(log) + 1, FRAME_HEADER + page)


def expected(story, length):
    """Return how things stood after the last step whose frames are all there."""
    return next((jobs for end, jobs in reversed(story.steps) if end <= length), {})


def test_every_prefix_of_the_log_is_a_moment_of_the_queue(story, tmp_path):
    """What was accepted by then is there, and no step has happened by half."""
    seen = {length: revived(story, tmp_path, length) for length in lengths(story)}

    assert len(seen) > len(story.steps) > 8, "expected steps of several frames"
    assert seen == {length: expected(story, length) for length in seen}


@pytest.mark.parametrize("tail", [b"\0" * 4_120, b"\xff" * 4_120, b"\0" * 100], ids=len)
def test_what_a_torn_write_left_behind_a_prefix_changes_nothing(story, tmp_path, tail):
    ends = list(lengths(story))[::3]
    seen = {length: revived(story, tmp_path, length, tail) for length in ends}

    assert seen == {length: expected(story, length) for length in ends}


def test_a_frame_that_was_written_in_part_changes_nothing(story, tmp_path):
    cuts = [(end, (end + after) // 2) for end, after in list(pairwise(lengths(story)))[::3]]
    seen = {cut: revived(story, tmp_path, cut) for _, cut in cuts}

    assert seen == {cut: expected(story, end) for end, cut in cuts}


# -- the order of writes and syncs ------------------------------------------------------------

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((\w+)(?:<([^>]*)>)?(.*)")


def traced(script, path):
    """Run a script under strace; return (call, file, rest) of each write and sync."""
    strace = found("strace")
    if strace is None:
        pytest.skip("strace is not installed, so the order of system calls cannot be seen")
    trace = path.with_suffix(".trace")
    calls = "trace=openat,write,pwrite64,pwritev,fsync,fdatasync"
    command = [strace, "-f", "-y", "-s", "16", "-o", str(trace), "-e", calls]
    done = subprocess.run(
        [*command, sys.executable, "-c", script, str(path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip(f"this machine lets nobody be traced: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    found_calls = (CALL.match(line) for line in trace.read_text().splitlines())
    return [match.groups() for match in found_calls if match]


def test_a_job_is_accepted_after_its_sync_and_moved_only_between_syncs(tmp_path):
    """The log is synced before publish returns and before the database is written; the database
    is synced before the log begins anew. The log's name is on the disk before all that."""
    path = tmp_path / "queue.db"
    unsynced = {"db": 0, "log": 0, "directory": 0}
    names = {str(path): "db", f"{path}-wal": "log", str(tmp_path): "directory"}
    counts = {"accepted": 0, "moved": 0, "begun anew": 0}
    for call, _, file, rest in traced(PUBLISHER, path):
        name = names.get(file)
        if call in ("fsync", "fdatasync"):
            unsynced[name] = 0
        elif call == "openat":
            unsynced["directory"] |= f'{path}-wal", O_RDWR|O_CREAT' in rest
        elif "accepted" in rest:
            counts["accepted"] += 1
            assert unsynced["log"] == 0, "accepted before its sync"
            assert unsynced["directory"] == 0, "accepted before the log's name was synced"
        elif name == "db":
            assert unsynced["log"] == 0, "moved before the log was synced"
            unsynced["db"] += 1
            counts["moved"] += 1
        elif name == "log":
            if rest.rstrip().endswith(f", {LOG_HEADER}, 0) = {LOG_HEADER}"):
                assert unsynced["db"] == 0, "the log begins anew before the database was synced"
                counts["begun anew"] += 1
            unsynced["log"] += 1

    assert counts["accepted"] == 60
    assert counts["moved"] > 100, "expected a checkpoint"
    assert counts["begun anew"] > 1
