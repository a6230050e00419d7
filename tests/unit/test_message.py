"""Message: what may be said, in which form it travels, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pulpo_pool.clock import ManualClock
from pulpo_pool.errors import InvalidMessage
from pulpo_pool.message import DEFAULT_PRIORITY, LOWEST_PRIORITY, Message

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON.timestamp())


def test_what_is_not_given_has_a_default():
    message = Message(request_type="send_email")

    assert message.id is None
    assert message.body == {}
    assert message.queue == "default"
    assert message.priority == DEFAULT_PRIORITY
    assert message.not_before is message.expiration is message.published_at is None
    assert dict(message.header) == {"request_type": "send_email"}


@pytest.mark.parametrize(
    "delay", [90, 90.0, timedelta(minutes=1, seconds=30), NOON + timedelta(seconds=90)]
)
def test_a_delay_travels_as_an_absolute_date(delay, clock):
    message = Message(request_type="x", delay=delay, clock=clock)

    assert message.not_before == NOON + timedelta(seconds=90)
    assert message.header["not_before"] == "2027-03-01T12:01:30+00:00"


def test_a_date_of_another_time_zone_travels_as_utc():
    local = datetime(2027, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))

    assert Message(request_type="x", expiration=local).header["expiration"] == NOON.isoformat()


def test_an_expiration_may_be_over_already():
    assert Message(request_type="x", expiration=NOON - timedelta(days=999)).expiration is not None


def test_dates_in_a_given_header_are_brought_to_the_same_form():
    message = Message(request_type="x", header={"not_before": NOON, "tenant": "a"})

    assert message.header["not_before"] == NOON.isoformat()
    assert message.header["tenant"] == "a"


@pytest.mark.parametrize("priority", [0, LOWEST_PRIORITY])
def test_zero_is_a_priority(priority):
    assert Message(request_type="x", priority=priority).priority == priority


def test_payload_is_a_body_with_one_key():
    message = Message(request_type="x", payload=0, body={"other": 1})

    assert message.payload == 0
    assert message.body == {"other": 1, "payload": 0}


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"request_type": None}, "request_type"),
        ({"request_type": ""}, "request_type"),
        ({"request_type": "x" * 201}, "request_type"),
        ({"request_type": "two\nlines"}, "printable"),
        ({"queue": ""}, "queue"),
        ({"queue": 7}, "queue"),
        ({"priority": -1}, "priority"),
        ({"priority": 2**32}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"delay": -1}, "0 seconds or more"),
        ({"delay": timedelta(seconds=-1)}, "0 seconds or more"),
        ({"delay": float("nan")}, "0 seconds or more"),
        ({"delay": float("inf")}, "no date"),
        ({"delay": 1e30}, "no date"),
        ({"delay": "soon"}, "seconds or a datetime"),
        ({"delay": True}, "seconds or a datetime"),
        ({"delay": NOON.replace(tzinfo=None)}, "naive"),
        ({"expiration": -5}, "0 seconds or more"),
        ({"header": {"not_before": "tomorrow"}}, "ISO 8601"),
        ({"header": {"expiration": 12}}, "date"),
        ({"header": [1]}, "header: expected a mapping"),
        ({"header": {1: 2}}, "text as keys"),
        ({"body": "text"}, "body: expected a mapping"),
        ({"body": {1: 2}}, "text as keys"),
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"id": "x" * 201}, "id"),
    ],
)
def test_what_cannot_be_published_is_refused_by_name(said, complaint):
    with pytest.raises(InvalidMessage, match=complaint):
        Message(**{"request_type": "x", **said})


def test_a_message_is_frozen():
    message = Message(request_type="x")

    with pytest.raises(AttributeError, match="frozen"):
        message.id = "y"
    with pytest.raises(TypeError):
        message.header["queue"] = "y"


def test_the_mappings_it_was_made_from_stay_the_callers_own():
    body, header = {"a": 1}, {"tenant": "t"}
    message = Message(request_type="x", body=body, header=header)
    body["a"] = header["tenant"] = "changed"

    assert message.body == {"a": 1}
    assert message.header["tenant"] == "t"


def test_publishing_stamps_a_copy_and_keeps_a_chosen_id():
    plain, chosen = Message(request_type="x"), Message(request_type="x", id="mine", queue="mail")

    stamped = plain.stamped(id="new", queue=plain.queue, published_at=NOON.timestamp())
    kept = chosen.stamped(id="new", queue=chosen.queue, published_at=NOON.timestamp())

    assert (stamped.id, stamped.queue, stamped.published_at) == ("new", "default", NOON)
    assert (kept.id, kept.queue) == ("mine", "mail")
    assert plain.id is None
    assert plain.published_at is None


def test_messages_that_say_the_same_are_equal():
    one, same = (Message(request_type="x", body={"a": 1}, id="i") for _ in range(2))

    assert one == same
    assert hash(one) == hash(same)
    assert one != Message(request_type="x", body={"a": 2}, id="i")
    assert one != "x"
