"""Codec: what goes in comes out, the ancestor's messages are read, and garbage is only refused."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulpo_pool.codec import Codec
from pulpo_pool.errors import InvalidMessage, MessageTooLarge, UndecodableMessage
from pulpo_pool.message import DEFAULT_PRIORITY, LOWEST_PRIORITY, Message

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
HEADERS = st.dictionaries(
    st.sampled_from(
        ["request_type", "queue", "priority", "not_before", "delay", "expiration", "published_at"]
    ),
    VALUES | st.sampled_from(["2027-03-01", "2027-03-01T12:00:00Z", "0001-01-01T00:00:00+05:00"]),
)
DATES = st.datetimes(
    datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)  # noqa: DTZ001 - bounds are given naive
)  # fmt: skip


def wire(header: object, **more: object) -> bytes:
    return json.dumps({"header": header, "body": {"payload": "p"}, **more}).encode()


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@patient
@given(
    request_type=NAMES,
    queue=st.none() | NAMES,
    body=st.dictionaries(st.text(), VALUES, max_size=4),
    extra=st.dictionaries(st.sampled_from(["traceparent", "tenant", "v"]), VALUES),
    priority=st.none() | st.integers(0, LOWEST_PRIORITY),
    delay=st.none() | DATES,
    expiration=st.none() | DATES,
)
def test_a_message_comes_out_as_it_went_in(  # noqa: PLR0917 - hypothesis gives them by name
    serializer, request_type, queue, body, extra, priority, delay, expiration
):
    message = Message(
        request_type=request_type,
        queue=queue,
        body=body,
        header=extra,
        priority=priority,
        delay=delay,
        expiration=expiration,
    ).stamped(id="i", queue=queue or "default", published_at=1_800_000_000.25)

    assert Codec().decode(Codec(serializer).encode(message)) == message


@pytest.mark.parametrize("text", ["2027-03-01 12:00:00.250000", "2027-03-01 12:00:00"])
def test_the_ancestors_naive_dates_are_local_time(text):
    header = {"request_type": "echo", "delay": text, "expiration": text}
    message = Codec().decode(wire(header, id="7"))

    local = datetime.fromisoformat(text).astimezone()
    assert message.not_before == message.expiration == local
    assert message.not_before.utcoffset() == timedelta(0)
    assert message.payload == "p"
    assert "delay" not in message.header


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns"])
def test_the_ancestor_can_read_our_expirations(monkeypatch, zone):
    """As it does: naive local time in whole seconds. Nothing expires early, and ours is exact."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    exact = datetime(2027, 7, 1, 12, 0, 0, 250_000, UTC)
    try:
        raw = Codec().encode(Message(request_type="echo", expiration=exact))
        theirs = datetime.strptime(  # noqa: DTZ007 - naive is how they read it
            json.loads(raw)["header"]["expiration"], "%Y-%m-%d %H:%M:%S"
        )
        late = theirs.astimezone() - exact
    finally:
        monkeypatch.undo()
        time.tzset()

    assert late == timedelta(milliseconds=750)
    assert Codec().decode(raw).expiration == exact
    assert "expiration_utc" not in Codec().decode(raw).header


def test_a_message_of_the_ancestor_without_id_or_body_is_read():
    message = Codec().decode(b'{"header": {"request_type": "echo", "attempts": 2}}')

    assert (message.id, message.body, message.header["attempts"]) == (None, {}, 2)


def test_an_id_that_is_a_number_becomes_text():
    assert Codec().decode(wire({"request_type": "x"}, id=17)).id == "17"


@pytest.mark.parametrize(
    ("given", "read"), [(-5, 0), (2**32, LOWEST_PRIORITY), (9, 9), (None, DEFAULT_PRIORITY)]
)
def test_a_priority_out_of_range_is_brought_into_it(given, read):
    assert Codec().decode(wire({"request_type": "x", "priority": given})).priority == read


def test_header_fields_it_does_not_know_travel_on():
    header = {"request_type": "x", "group_key": {"a": [1]}, "v": 9}

    again = Codec().decode(Codec().encode(Codec().decode(wire(header))))

    assert dict(again.header) == header


def test_a_foreign_date_with_an_offset_becomes_utc():
    header = {"request_type": "x", "expiration": "2027-03-01T14:00:00+02:00"}

    assert Codec().decode(wire(header)).header["expiration"] == "2027-03-01T12:00:00+00:00"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"plain text",
        b"\x00\xff\xfe garbage",
        b"{}",
        b'{"header": null}',
        b'{"header": [], "body": {}}',
        b'{"header": {"request_type": 7}}',
        b'{"header": {"request_type": "' + b"x" * 201 + b'"}}',
        b'{"header": {"request_type": "x"}, "body": [1]}',
        b'{"header": {"request_type": "x"}, "body": "\xff"}',
        b'{"header": {"request_type": "x"}, "id": {}}',
        wire({"request_type": "x", "priority": "high"}),
        wire({"request_type": "x", "priority": True}),
        wire({"request_type": "x", "priority": 1.5}),
        wire({"request_type": "x", "queue": 3}),
        wire({"request_type": "x", "not_before": "tomorrow"}),
        wire({"request_type": "x", "expiration": 12}),
        wire({"request_type": "x", "expiration": "0001-01-01T00:00:00+23:00"}),
        wire({"request_type": "x", "expiration": "9999-12-31T23:59:59-23:00"}),
        b'{"header": {"request_type": "x"}, "body": ' + b'{"a":' * 200_000,
        b'{"header": {"request_type": "x"}, "body": {"a":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}}",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"header": {"request_type": None}}),
        b"\x81\xa6header" + b"\x81\xa1a" * 200_000,
    ],
)
def test_what_is_no_message_is_undecodable_and_nothing_else(raw):
    with pytest.raises(UndecodableMessage):
        Codec().decode(raw)


@patient
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_do_more_than_be_refused(raw):
    try:
        message = Codec().decode(raw)
    except UndecodableMessage:
        return

    assert isinstance(message.request_type, str)


@patient
@given(header=HEADERS, body=VALUES)
def test_what_is_decoded_can_be_asked_everything(header, body):
    raw = json.dumps({"header": header, "body": body}).encode()
    try:
        message = Codec().decode(raw)
    except UndecodableMessage:
        return

    assert 0 <= message.priority <= LOWEST_PRIORITY
    for date in (message.not_before, message.expiration, message.published_at):
        assert date is None or date.timestamp() is not None
    assert isinstance(message.queue, str)
    assert Codec().decode(Codec().encode(message)) == message


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize(
    "value", [object(), 1j, "\ud800", {object(): 1}], ids=["object", "complex", "surrogate", "key"]
)
def test_a_body_that_cannot_be_serialized_is_refused_at_the_publisher(serializer, value):
    with pytest.raises(InvalidMessage, match="send_email: cannot be serialized"):
        Codec(serializer).encode(Message(request_type="send_email", body={"a": value}))


def test_a_body_that_contains_itself_is_refused_at_the_publisher():
    body: dict[str, object] = {}
    body["self"] = body

    with pytest.raises(InvalidMessage, match="cannot be serialized"):
        Codec().encode(Message(request_type="x", body=body))


def test_a_message_over_the_limit_is_refused_with_both_numbers():
    message = Message(request_type="x", body={"a": "b" * 1000})
    exact = len(Codec().encode(message))

    assert Codec(largest_message=exact).encode(message)
    with pytest.raises(MessageTooLarge, match=f"{exact:,} bytes, the limit is {exact - 1:,}"):
        Codec(largest_message=exact - 1).encode(message)


@patient
@given(header=HEADERS)
def test_what_a_publisher_may_say_a_worker_can_read(header):
    try:
        message = Message(request_type="x", header=header)
    except InvalidMessage:
        return
    stamped = message.stamped(id="i", queue=message.queue, published_at=1_800_000_000)

    assert Codec().decode(Codec().encode(stamped)) == stamped


def test_the_ancestors_word_for_a_delay_is_understood_in_a_header():
    due = datetime(2027, 3, 1, tzinfo=UTC)
    message = Message(request_type="x", header={"delay": due})

    assert message.not_before == due
    with pytest.raises(InvalidMessage, match="not_before: expected a date, got 30"):
        Message(request_type="x", header={"delay": 30})
