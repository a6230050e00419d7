"""The store of evidence for engines that keep none: bounded, private, and never in a job's way."""

from __future__ import annotations

import stat
import time
from contextlib import closing
from dataclasses import replace

import msgspec
import pytest
from servers import Beanstalkd

from pulpo_pool.message import Message
from pulpo_pool.queues import evidence
from pulpo_pool.queues.adapter import BuryReason, JobState
from pulpo_pool.queues.beanstalkd import BeanstalkdQueueAdapter
from pulpo_pool.queues.evidence import EvidenceStore, JobName
from pulpo_pool.queues.history import MOST_NEWEST
from pulpo_pool.setback import Setback

BOOM = Setback(at=100.0, attempt=1, outcome="retried", reason="exception", error="boom", worker="w")
JOB = JobName.of("17", b"raw")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evidence.db"


@pytest.fixture
def store(path):
    store = EvidenceStore(path, "server")
    yield store
    store.close()


def failed(number, **fields):
    return msgspec.structs.replace(BOOM, attempt=number, at=100.0 + number, **fields)


def attempts(store, job=JOB, since=0.0):
    return [each.attempt for each in store.of(job, since=since).history]


def test_it_is_for_its_owner_alone(path, store):
    store.add(JOB, BOOM, kicks=0, reserves=1)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("evidence.db*")}

    assert modes == {0o600}


def test_who_only_reads_makes_no_file(path, store):
    past = store.of(JOB, since=0.0)
    store.forget(["17"])
    store.forget_before(1e12)

    assert (past.history, store.crashes(), store.jobs_after("", 10)) == ((), [], {})
    assert not path.exists()


def test_an_attempt_that_is_told_twice_is_kept_once(store):
    """A settlement whose answer was lost is made again; the keeper starts again."""
    store.add(JOB, failed(1), kicks=0, reserves=1)
    store.add(JOB, failed(1, error="told better"), kicks=0, reserves=1)
    store.add(JOB, failed(2, worker="x"), kicks=0)
    store.add(JOB, failed(2, worker="x", outcome="buried"), kicks=0)
    store.add(JOB, failed(2, worker="x"), kicks=0)
    past = store.of(JOB, since=0.0)

    assert [(each.error, each.outcome) for each in past.history] == [
        ("told better", "retried"),
        ("boom", "buried"),
    ]
    assert past.crashes == 1


def test_what_is_older_than_the_job_is_another_ones(store):
    """A server without a log counts its jobs from 1 again, and strangers repeat themselves."""
    store.add(JOB, failed(1), kicks=0, reserves=1)

    assert attempts(store, since=500.0) == []
    assert attempts(store, JobName.of("17", b"other")) == []
    assert attempts(store, JobName.of("18", b"raw")) == []


def test_crashes_are_counted_beyond_what_is_kept_of_them(store):
    """A kick forgives some, so that a job may have more than its history shows."""
    for number in range(1, 31):
        store.add(JOB, failed(number, worker=f"w{number}"), kicks=0)

    assert len(store.crashes()) == 30
    assert store.of(JOB, since=0.0).crashes == 30
    assert attempts(store) == [1, *range(31 - MOST_NEWEST, 31)]


def test_the_file_is_bounded_and_the_oldest_make_room(path, tmp_path, monkeypatch, caplog):
    small = msgspec.structs.replace(BOOM, error="x" * 10_000)
    settings = "PRAGMA max_page_count = 100"
    monkeypatch.setattr(evidence, "_SCHEMA", replace(evidence._SCHEMA, settings=settings))
    store = EvidenceStore(path, "server")
    for number in range(200):
        job = JobName.of(str(number), b"raw")
        store.add(job, msgspec.structs.replace(small, at=float(number)), kicks=0, reserves=1)
    kept = {number: attempts(store, JobName.of(str(number), b"raw")) for number in (0, 199)}
    store.close()

    assert path.stat().st_size <= 100 * 4_096
    assert kept == {0: [], 199: [1]}
    assert caplog.text == ""


@pytest.mark.parametrize("harm", ["garbage", "another database", "a directory"])
def test_a_store_that_cannot_be_used_costs_evidence_only(path, caplog, harm):
    """And is told once, however many jobs fail."""
    if harm == "garbage":
        path.write_bytes(b"no database" * 1_000)
    elif harm == "another database":
        from pulpo_pool.queues.file import FileQueueAdapter

        FileQueueAdapter(str(path)).close()
    else:
        path.mkdir()
    store = EvidenceStore(path, "server")
    for number in range(3):
        store.add(JOB, failed(number), kicks=0, reserves=number)

    assert store.of(JOB, since=0.0).history == ()
    assert caplog.text.count("evidence of failed jobs is neither kept in nor read from") == 1


def test_evidence_goes_with_its_job(path):
    """Deleted, done, purged, or forgotten by its server: what is gone has no past for long."""
    with (
        Beanstalkd() as server,
        BeanstalkdQueueAdapter(server.host, server.port, evidence_file=path) as queue,
        closing(EvidenceStore(path, "elsewhere")) as other,
    ):
        lately = msgspec.structs.replace(BOOM, at=time.time())
        ids = queue.enqueue_many([Message(request_type="x", body={"n": n}) for n in range(4)])
        for _ in ids:
            queue.bury(queue.dequeue(20), reason=BuryReason.FATAL, error="boom")
        queue.evidence.add(JobName.of("999", b"old"), BOOM, kicks=0, reserves=1)
        other.add(JobName.of("998", b"x"), lately, kicks=0, reserves=1)
        queue.delete(ids[0])
        deleted = set(queue.evidence.jobs_after("", 10))
        queue.kick([ids[1]])
        queue.commit(queue.dequeue(20))
        queue.tidy()
        left = set(queue.evidence.jobs_after("", 10))
        elsewhere = set(other.jobs_after("", 10))
        listed = [job.job_id for job in queue.list_jobs(JobState.BURIED)]

    assert deleted == {*ids[1:], "999"}
    assert left == set(ids[2:]) == set(listed)
    assert elsewhere == {"998"}
