"""What may happen to a file: each harm has an error that names it, and an end."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from queue_children import children

from pulpo_pool.contracts.bench import DEADLINE, LONG, drain, reserve
from pulpo_pool.errors import ConfigError, QueueCorrupt, QueueUnavailable
from pulpo_pool.message import Message
from pulpo_pool.queues import file_place
from pulpo_pool.queues.adapter import Commit, CrashLimit, Fate, QueueStats, Settled, Verdict
from pulpo_pool.queues.file import FileQueueAdapter
from pulpo_pool.queues.file_session import QUEUE, check_sqlite


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.db")


def say(text=""):
    return Message(request_type="say", body={"text": text})


def remove(path):
    for name in (path, path + "-wal", path + "-shm"):
        Path(name).unlink(missing_ok=True)


# -- paths ----------------------------------------------------------------------------------------


def test_a_directory_is_no_queue(tmp_path):
    with pytest.raises(ConfigError, match="is a directory; name a file in it"):
        FileQueueAdapter(str(tmp_path))


def test_a_file_where_a_directory_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="file is a file, not a directory"):
        FileQueueAdapter(str(tmp_path / "file" / "queue.db"))


def test_a_missing_directory_is_made_for_its_owner_only(tmp_path):
    FileQueueAdapter(str(tmp_path / "new" / "queue.db")).close()

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_path_that_misses_more_than_its_directory_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="does not exist; create it"):
        FileQueueAdapter(str(tmp_path / "no" / "such" / "queue.db"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_is_none_is_a_mistake(path):
    with pytest.raises(ConfigError, match="expected the path of a file"):
        FileQueueAdapter(path)


def test_a_relative_path_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with FileQueueAdapter("queue.db") as queue:
        monkeypatch.chdir(tmp_path / "elsewhere")
        queue.enqueue(say())

        assert queue.path == str(tmp_path / "queue.db")
        assert list((tmp_path / "elsewhere").iterdir()) == []


def test_everything_is_readable_for_the_owner_only(path, tmp_path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue(say())
        queue.dequeue()
        queue.dequeue(0.001)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.rglob("*")}

    assert modes.pop("queue.db.bells") == 0o700
    assert {"queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock"} < set(modes)
    assert set(modes.values()) == {0o600}


def test_what_lies_beside_the_database_has_its_permissions(path, tmp_path):
    """An operator who opens the file to a group opens the queue to it."""
    FileQueueAdapter(path).close()
    Path(path).chmod(0o660)
    with FileQueueAdapter(path) as queue:
        queue.dequeue(0.001)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.rglob("*")}

    assert modes.pop("queue.db.bells") == 0o770
    assert set(modes.values()) == {0o660}


def test_network_filesystems_are_refused_by_name():
    mounts = [("/", "ext4"), ("/mnt/share", "nfs4"), ("/mnt/share/local", "xfs")]

    file_place.refuse_network("/mnt/shared/queue.db", mounts)
    file_place.refuse_network("/mnt/share/local/queue.db", mounts)
    with pytest.raises(ConfigError, match=r"/mnt/share is a network filesystem \(nfs4\)"):
        file_place.refuse_network("/mnt/share/app/queue.db", mounts)


@pytest.mark.parametrize("kind", ["cifs", "smb3", "9p", "fuse.sshfs", "NFS"])
def test_each_kind_of_network_filesystem_is_refused(kind):
    with pytest.raises(ConfigError, match="local disk"):
        file_place.refuse_network("/queue.db", [("/", kind)])


def test_this_machines_own_mounts_are_understood(tmp_path):
    assert ("/", "") not in file_place.mounted()
    assert "/" in dict(file_place.mounted())


def test_an_old_sqlite_is_refused_with_what_to_do():
    check_sqlite((3, 35, 0))
    with pytest.raises(ConfigError, match=r"SQLite 3\.34\.1, and 3\.35\.0 or newer is needed"):
        check_sqlite((3, 34, 1))


# -- what is in the file --------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_left_alone(path):
    Path(path).write_text("my diary\n" * 1_000)

    with pytest.raises(QueueCorrupt, match=r"queue\.db: file is not a database; move it aside"):
        FileQueueAdapter(path)

    assert Path(path).read_text().startswith("my diary")


def test_another_programs_database_is_left_alone(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE customers (name)")
    before = Path(path).read_bytes()

    with pytest.raises(QueueCorrupt, match=r"another program \(it has customers\); name another"):
        FileQueueAdapter(path)

    assert Path(path).read_bytes() == before


def test_a_newer_versions_database_is_left_alone(path):
    FileQueueAdapter(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 2")

    with pytest.raises(QueueCorrupt, match=r"newer pulpo-pool \(schema 2, .* upgrade"):
        FileQueueAdapter(path)


def test_an_empty_file_becomes_a_queue(path):
    Path(path).touch()
    with FileQueueAdapter(path) as queue:
        queue.enqueue(say())

        assert queue.stats() == {"default": QueueStats(ready=1)}


def test_a_queue_is_marked_as_ours(path):
    FileQueueAdapter(path).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (QUEUE.application_id,)
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize("keep", [50, 4_096, 20_000])
def test_a_truncated_database_is_corrupt(path, keep):
    with FileQueueAdapter(path) as queue:
        queue.enqueue_many([say(n) for n in range(500)])
    os.truncate(path, keep)

    with pytest.raises(QueueCorrupt, match="move it aside"):
        read_all(path)


def read_all(path):
    with FileQueueAdapter(path) as queue:
        drain(queue)
        queue.stats()


def test_scribbled_pages_never_raise_an_error_of_sqlites(path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue_many([say(n) for n in range(2_000)])
    with Path(path).open("r+b") as file:
        for page in range(2, 60):
            file.seek(page * 4_096 + 8)
            file.write(b"\xff" * 64)

    with pytest.raises(QueueCorrupt):
        read_all(path)


# -- while it is open -----------------------------------------------------------------------------


def test_publishing_after_the_file_vanished_makes_a_new_one(path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue(say("old"))
        remove(path)
        queue.enqueue(say("new"))
        with FileQueueAdapter(path) as other:
            assert drain(other) == ["new"]


def test_publishing_goes_to_the_file_that_replaced_ours(path, tmp_path):
    with FileQueueAdapter(str(tmp_path / "other.db")) as other:
        other.enqueue(say("other"))
    with FileQueueAdapter(path) as queue:
        queue.enqueue(say("old"))
        remove(path)
        Path(tmp_path / "other.db").rename(path)
        queue.enqueue(say("new"))

        assert drain(queue) == ["other", "new"]


def test_an_idle_worker_follows_the_file(path):
    with FileQueueAdapter(path) as worker:
        assert worker.dequeue() is None
        remove(path)
        with FileQueueAdapter(path) as publisher:
            publisher.enqueue(say())
        worker.dequeue()

        assert worker.dequeue() is not None


def found_in_time(worker):
    """Let a worker wait in a thread; return its job, or fail before it would look by itself."""
    found = []
    thread = threading.Thread(target=lambda: found.append(worker.dequeue(LONG)), daemon=True)
    thread.start()
    thread.join(DEADLINE)

    assert not thread.is_alive(), "still waiting"
    return found[0]


def test_an_idle_worker_follows_its_whole_directory(tmp_path):
    path = str(tmp_path / "state" / "queue.db")
    with FileQueueAdapter(path) as worker:
        worker.dequeue(0.001)
        shutil.rmtree(tmp_path / "state")
        with FileQueueAdapter(path) as publisher:
            publisher.enqueue(say())

            assert found_in_time(worker) is not None


def test_an_idle_worker_hangs_up_new_bells_when_they_are_removed(path):
    """It notices at the end of a wait, and is woken by the next publisher."""
    with FileQueueAdapter(path) as worker, FileQueueAdapter(path) as publisher:
        worker.dequeue(0.001)
        shutil.rmtree(path + ".bells")
        worker.dequeue(0.001)
        worker.before_wait = lambda: publisher.enqueue(say()) and None

        assert found_in_time(worker) is not None


def test_a_settlement_for_a_replaced_file_hits_no_other_job(path):
    """Job 1 of the old file is not job 1 of the new one."""
    with FileQueueAdapter(path) as worker, FileQueueAdapter(path) as publisher:
        publisher.enqueue(say("old"))
        held = reserve(worker)
        remove(path)
        publisher.enqueue(say("new"))
        reserve(publisher)
        worker._store.follow()

        assert worker.settle_and_dequeue(Commit(held)) == (Settled.LOST, None)
        assert publisher.stats() == {"default": QueueStats(reserved=1)}


@pytest.mark.parametrize(
    "look",
    [
        lambda queue: queue.stats(),
        lambda queue: queue.kick_all(),
        lambda queue: queue._store.write(lambda _cursor: None),
        lambda queue: queue.rescue(lambda _owner: Verdict(Fate.GONE), CrashLimit()),
    ],
)
def test_housekeeping_follows_the_file(path, look):
    with FileQueueAdapter(path) as keeper:
        remove(path)
        look(keeper)

        assert Path(path).exists()


def test_publishing_into_a_deleted_log_is_noticed(path):
    with FileQueueAdapter(path) as queue:
        queue.enqueue(say())
        Path(path + "-wal").unlink()

        with pytest.raises(QueueUnavailable, match="-wal file was deleted"):
            queue.enqueue(say())

        assert queue.enqueue(say())


def test_a_file_replaced_in_the_middle_of_publishing_is_noticed(path):
    with FileQueueAdapter(path) as queue:
        with pytest.raises(QueueUnavailable, match="replaced while it was written"):
            queue._store.publish(lambda _cursor: Path(path).rename(path + ".old"))

        queue.enqueue(say("new"))
        assert drain(queue) == ["new"]


@pytest.mark.parametrize("harm", [remove, lambda path: Path(path).rename(path + ".old")])
def test_a_file_replaced_between_two_quick_publishings_is_followed(path, harm):
    """Also where the second one does not look before it writes: see FileStore.add."""
    with FileQueueAdapter(path, durability="normal") as queue:
        queue.enqueue(say("old"))
        harm(path)
        queue.enqueue(say("new"))

        assert drain(queue) == ["new"]


def test_a_directory_that_vanished_for_good_is_unavailable_until_it_is_back(tmp_path):
    path = str(tmp_path / "a" / "b" / "queue.db")
    (tmp_path / "a").mkdir()
    with FileQueueAdapter(path) as queue:
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(QueueUnavailable, match=r"queue\.db"):
            queue.enqueue(say())

        (tmp_path / "a").mkdir()
        queue.enqueue(say("back"))

        assert drain(queue) == ["back"]


def test_a_full_database_refuses_and_recovers(path):
    with FileQueueAdapter(path) as queue:
        first = queue.enqueue(say("first"))
        cursor = queue._store._session.cursor
        cursor.execute("PRAGMA max_page_count = 20")
        with pytest.raises(QueueUnavailable, match="disk is full"):
            queue.enqueue_many([say("x" * 1_000) for _ in range(200)])

        assert queue.stats() == {"default": QueueStats(ready=1)}

        cursor.execute("PRAGMA max_page_count = 100000")
        queue.enqueue(say("second"))

        assert queue.peek(first).job_id == first
        assert drain(queue) == ["first", "second"]


def test_a_disk_that_takes_no_more_refuses_and_recovers(path):
    """The kernel's own refusal, in the middle of a write."""

    def fill(tell, index):
        with FileQueueAdapter(path) as queue:
            queue.enqueue(say("before"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
            for _ in range(3):
                with pytest.raises(QueueUnavailable, match=path):
                    queue.enqueue_many([say("x" * 1_000) for _ in range(1_000)])
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            queue.enqueue(say("after"))
            return drain(queue)

    with children(1, fill) as (child,):
        assert child.result() == ["before", "after"]


def test_a_foreign_lock_is_waited_out_and_then_named(path, monkeypatch):
    monkeypatch.setattr("pulpo_pool.queues.file_session.BUSY_TIMEOUT", 0.01)
    with FileQueueAdapter(path) as queue, closing(sqlite3.connect(path)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueUnavailable, match="another program has kept it locked"):
            queue.enqueue(say())
        shell.rollback()

        assert queue.enqueue(say())


def test_a_failing_transaction_is_undone_and_the_next_one_works(path):
    def fail(cursor):
        cursor.execute("DELETE FROM jobs")
        raise KeyboardInterrupt

    with FileQueueAdapter(path) as queue:
        queue.enqueue(say("kept"))
        with pytest.raises(KeyboardInterrupt):
            queue._store.write(fail)

        assert drain(queue) == ["kept"]


# -- without permission ---------------------------------------------------------------------------

NOBODY = 65_534


@pytest.fixture
def open_directory():
    """Return a directory that another user can reach, unlike pytest's own."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


def as_nobody(tell, index, path):
    """Try to open and use a queue without privileges; return the error's text."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        with FileQueueAdapter(path) as queue:
            queue.enqueue(say())
    except QueueUnavailable as error:
        return str(error)
    return "worked"


def test_a_directory_that_may_not_be_written_is_named(open_directory):
    locked = open_directory / "locked"
    locked.mkdir(mode=0o555)
    with children(1, as_nobody, str(locked / "queue.db")) as (child,):
        told = child.result()

    assert f"{locked}/queue.db" in told
    assert "must be writable for user" in told


def test_a_database_that_may_not_be_written_is_named(open_directory):
    path = open_directory / "queue.db"
    FileQueueAdapter(str(path)).close()
    for made in (path, open_directory / "queue.db.lock"):
        made.chmod(0o444)
    with children(1, as_nobody, str(path)) as (child,):
        told = child.result()

    assert str(path) in told
    assert "must be writable for user" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files to others")
def test_a_queue_may_be_shared_by_users(open_directory):
    """What another user made beside the database need not be ours, only open to us."""
    path = open_directory / "queue.db"
    with FileQueueAdapter(str(path)) as queue:
        path.chmod(0o666)
        for name in ("queue.db.lock", "queue.db-wal", "queue.db-shm"):
            (open_directory / name).chmod(0o666)
        queue.enqueue(say())
        with children(1, as_nobody, str(path)) as (child,):
            told = child.result()

    assert told == "worked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files to others")
def test_a_look_as_root_leaves_the_queue_usable(open_directory):
    """The files that root's adapter makes belong to the database's owner."""
    path = open_directory / "queue.db"
    FileQueueAdapter(str(path)).close()
    os.chown(path, NOBODY, NOBODY)
    (open_directory / "queue.db.lock").unlink()
    with FileQueueAdapter(str(path)) as queue:
        queue.dequeue(0.001)
    owners = {entry.stat().st_uid for entry in open_directory.rglob("*")}
    with children(1, as_nobody, str(path)) as (child,):
        told = child.result()

    assert told == "worked"
    assert owners == {NOBODY}
