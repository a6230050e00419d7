"""Which jobs a filter means, and what they have in common."""

from __future__ import annotations

import dataclasses

import pytest

from pulpo_pool.clock import ManualClock
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import BuryReason, JobState
from pulpo_pool.queues.letters import (
    JobFilter,
    fingerprint_of,
    group_by_error,
    last_setback,
)
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.queues.records import describe
from pulpo_pool.setback import Setback

HOUR = 3_600.0


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def queue(clock):
    with MemoryQueueAdapter(queues=("default", "mail"), clock=clock) as queue:
        yield queue


@pytest.fixture
def letters(queue, clock):
    """Five buried jobs, an hour apart, and one that is ready."""
    failures = [
        ("send", "mail", BuryReason.FATAL, "ValueError: no customer 1"),
        ("send", "mail", BuryReason.FATAL, "ValueError: no customer 2"),
        ("bill", "default", BuryReason.FATAL, "ValueError: no customer 3"),
        ("bill", "default", BuryReason.EXPIRED, "it expired before a worker was free"),
        ("sync", "default", BuryReason.UNKNOWN_TYPE, ""),
    ]
    publisher = Publisher(queue)
    for request_type, name, reason, error in failures:
        publisher.publish(Message(request_type=request_type, queue=name))
        queue.bury(queue.dequeue(), reason=reason, error=error)
        clock.advance(HOUR)
    publisher.publish(Message(request_type="send"))
    return {record.job_id: record for record in queue.list_jobs(JobState.BURIED)}


@pytest.mark.parametrize(
    ("narrowed", "found"),
    [
        ({}, "12345"),
        ({"queues": ("mail",)}, "12"),
        ({"request_types": ("send", "sync")}, "125"),
        ({"since": 1_800_000_000.0 + 2 * HOUR}, "345"),
        ({"error": "CUSTOMER"}, "123"),
        ({"error": "unknown_TYPE"}, "5"),
        ({"error": "customer", "queues": ("default",)}, "3"),
        ({"error": "nothing like it"}, ""),
        ({"fingerprint": "ffffffffffff"}, ""),
    ],
)
def test_what_is_said_of_jobs_must_all_hold(queue, letters, narrowed, found):
    records = JobFilter(**narrowed).search(queue, [JobState.BURIED])

    assert "".join(record.job_id for record in records) == found


def test_a_fingerprint_finds_what_failed_alike_and_may_be_cut_short(queue, letters):
    whole = fingerprint_of(letters["1"])
    for mark in (whole, whole[:4]):
        records = JobFilter(fingerprint=mark).search(queue, [JobState.BURIED])

        assert [record.job_id for record in records] == ["1", "2", "3"]


def test_a_filter_of_a_queue_alone_need_not_look_inside():
    assert not JobFilter(queues=("mail",)).looks_inside
    assert JobFilter(error="x").looks_inside


def test_the_last_setback_counts_where_there_is_a_history(letters):
    """Its time, its reason and its text, whatever else the record says."""
    history = (
        Setback(at=1.0, attempt=1, outcome="retried", reason="exception", error="OSError: early"),
        Setback(at=9.0, attempt=2, outcome="buried", reason="crashed", error="OSError: late"),
    )
    record = dataclasses.replace(letters["1"], history=history)

    assert last_setback(record) == history[-1]
    assert JobFilter(since=9.0, error="late").matches(record)
    assert not JobFilter(since=9.5).matches(record)
    assert not JobFilter(error="early").matches(record)
    assert not JobFilter(error="customer").matches(record)


def test_without_a_history_publishing_is_the_time(letters):
    record = dataclasses.replace(letters["2"], history=())

    assert last_setback(record).at == 1_800_000_000.0 + HOUR
    assert last_setback(record).error == letters["2"].error


def test_what_is_no_message_has_no_time_and_no_type(queue, clock):
    """Nobody knows that it is new, so --since leaves it out."""
    with queue.store.lock:
        queue.store.add("default", b"\xff", 5, None)
    queue.bury(queue.dequeue(), reason=BuryReason.UNDECODABLE, error="no message")
    [kept] = queue.list_jobs(JobState.BURIED)
    record = dataclasses.replace(kept, history=())

    assert JobFilter(since=clock.now()).matches(kept)
    assert JobFilter().matches(record)
    assert not JobFilter(since=0.1).matches(record)
    assert not JobFilter(request_types=("send",)).matches(record)


def test_groups_tell_how_many_failed_alike_when_and_of_which_types(letters):
    groups = group_by_error(letters.values())

    assert [group.count for group in groups] == [3, 1, 1]
    largest = groups[0]
    assert largest.fingerprint == fingerprint_of(letters["1"])
    assert largest.request_types == {"send": 2, "bill": 1}
    assert (largest.first, largest.last) == (1_800_000_000.0, 1_800_000_000.0 + 2 * HOUR)
    assert (largest.example, largest.error) == ("3", "ValueError: no customer 3")
    assert [group.reason for group in groups] == ["fatal", "unknown_type", "expired"]


def test_a_job_that_never_failed_is_in_no_group(queue, letters):
    [ready] = queue.list_jobs(JobState.READY)

    assert fingerprint_of(ready) == ""
    assert group_by_error([ready]) == []
    assert describe(ready)["fingerprint"] is None
    assert describe(letters["1"])["fingerprint"] == fingerprint_of(letters["1"])
