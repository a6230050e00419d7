"""Publisher: what a message gets on its way into a queue."""

from __future__ import annotations

import pytest

from pulpo_pool.clock import ManualClock
from pulpo_pool.codec import Codec
from pulpo_pool.errors import InvalidMessage, MessageTooLarge
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import JobState
from pulpo_pool.queues.memory import MemoryQueueAdapter


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def adapter(clock):
    with MemoryQueueAdapter(clock=clock, codec=Codec(largest_message=500)) as adapter:
        yield adapter


@pytest.fixture
def publisher(adapter):
    return Publisher(adapter)


def test_a_message_gets_id_queue_and_date(publisher, adapter, clock):
    message, job_id = publisher.publish(Message(request_type="echo", body={"a": 1}))

    assert message.id
    assert message.header["queue"] == "default"
    assert message.published_at.timestamp() == clock.now()
    assert adapter.peek(job_id).message() == message


def test_a_chosen_id_and_queue_stay(publisher, adapter):
    message, job_id = publisher.publish(Message(request_type="echo", id="order-7", queue="mail"))

    assert (message.id, message.queue) == ("order-7", "mail")
    assert adapter.peek(job_id).queue == "mail"


def test_every_message_of_many_gets_an_id_of_its_own(publisher, adapter):
    message = Message(request_type="echo")

    published = publisher.publish_many([message] * 3)

    assert len({stored.id for stored, _ in published}) == 3
    assert [job_id for _, job_id in published] == [
        record.job_id for record in adapter.list_jobs(JobState.READY)
    ]
    assert message.id is None


def test_the_date_is_the_given_clocks(adapter):
    other = ManualClock(now=1_000.0)

    message, _ = Publisher(adapter, other).publish(Message(request_type="echo"))

    assert message.published_at.timestamp() == 1_000.0


@pytest.mark.parametrize(
    ("body", "error"), [({"a": object()}, InvalidMessage), ({"a": "x" * 600}, MessageTooLarge)]
)
def test_of_many_messages_all_are_stored_or_none(publisher, adapter, body, error):
    good, bad = Message(request_type="echo"), Message(request_type="echo", body=body)

    with pytest.raises(error):
        publisher.publish_many([good, bad])

    assert adapter.stats() == {}


def test_checking_counts_what_the_stamp_adds(publisher, adapter):
    bare = Message(request_type="echo", body={"a": "x" * 400})
    Codec(largest_message=500).encode(bare)

    with pytest.raises(MessageTooLarge):
        publisher.check(bare)

    assert adapter.stats() == {}
