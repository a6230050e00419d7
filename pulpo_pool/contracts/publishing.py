"""The contract of publishing: what is accepted, and in which order it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pulpo_pool.codec import Codec
from pulpo_pool.contracts.bench import Bench, counts, drain, reserve, said
from pulpo_pool.errors import ConfigError, InvalidMessage, MessageTooLarge, UndecodableMessage
from pulpo_pool.message import LOWEST_PRIORITY, Message
from pulpo_pool.queues.adapter import BuryReason, JobState, QueueStats

if TYPE_CHECKING:
    from collections.abc import Mapping

BODIES: tuple[Mapping[str, Any], ...] = (
    {},
    {"text": ""},
    {"text": "größer 漢字 🐙 \0 \x7f \u2028 \r\n"},
    {"number": -(2**63), "fraction": 1e-300, "truth": False, "nothing": None},
    {"deep": [[[{"list": [1, "2", None, {}]}]]], "": {"": ""}},
    {"quotes": "'; DROP TABLE jobs; -- \" \\ %s ?1 {x}"},
    {"large": "x" * 300_000},
)


class PublishingContract(Bench):
    """enqueue, enqueue_many and the order of dequeue."""

    @pytest.mark.parametrize("body", BODIES, ids=lambda body: ",".join(body)[:20])
    def test_a_message_comes_back_as_it_was_published(self, body: Mapping[str, Any]) -> None:
        """Id, header and body survive the engine, whatever text is in them."""
        queue = self.queue()
        message = self.say("same", body=body, priority=7, expiration=3_600)

        queue.enqueue(message)

        assert reserve(queue).message == message

    def test_header_fields_that_nobody_knows_travel_on(self) -> None:
        """A field of a later version is not lost here."""
        queue = self.queue()
        queue.enqueue(self.say(header={"request_type": "say", "traceparent": "00-1-2"}))

        assert reserve(queue).message.header["traceparent"] == "00-1-2"

    def test_the_job_id_is_the_stores_handle_of_the_job(self) -> None:
        """What enqueue returns is what reservations and records are known by."""
        queue = self.queue()

        job_id = queue.enqueue(self.say())

        assert queue.peek(job_id).job_id == job_id
        assert reserve(queue).job_id == job_id

    def test_enqueue_many_returns_the_job_ids_in_order(self) -> None:
        """The nth id is the nth message's."""
        queue = self.queue()

        job_ids = queue.enqueue_many([self.say(n, priority=5 - n) for n in range(5)])

        assert [queue.peek(job_id).message().body["text"] for job_id in job_ids] == [0, 1, 2, 3, 4]

    def test_enqueue_many_takes_any_iterable(self) -> None:
        """A generator is read once."""
        queue = self.queue()
        queue.enqueue_many(self.say(n) for n in range(3))

        assert drain(queue) == [0, 1, 2]

    def test_enqueue_many_of_nothing_is_nothing(self) -> None:
        """No messages, no ids, no error."""
        queue = self.queue()

        assert queue.enqueue_many([]) == []
        assert queue.stats() == {}

    def test_enqueue_many_stores_nothing_if_one_is_too_large(self) -> None:
        """All or none: the ones before the bad one are not there either."""
        queue = self.queue(codec=Codec(largest_message=1_000))

        with pytest.raises(MessageTooLarge):
            queue.enqueue_many([self.say("a"), self.say("x" * 1_000), self.say("b")])

        assert queue.stats() == {}

    def test_enqueue_many_stores_nothing_if_one_cannot_be_serialized(self) -> None:
        """All or none, for a body that is no data too."""
        queue = self.queue()

        with pytest.raises(InvalidMessage):
            queue.enqueue_many([self.say("a"), self.say(object()), self.say("b")])

        assert queue.stats() == {}

    def test_job_ids_are_not_used_again(self) -> None:
        """An old id never means a new job, even when the queue was empty in between."""
        queue = self.queue()
        old = queue.enqueue(self.say())
        queue.delete(old)

        assert queue.enqueue(self.say()) != old

    def test_equal_priorities_come_first_in_first_out(self) -> None:
        """The order of publishing is the order of reserving."""
        queue = self.queue()
        queue.enqueue_many([self.say(n) for n in range(20)])
        queue.enqueue(self.say(20))

        assert drain(queue) == list(range(21))

    def test_smaller_priorities_come_first(self) -> None:
        """0 is the most urgent; within one priority it stays first in, first out."""
        queue = self.queue()
        for text, priority in (("c", LOWEST_PRIORITY), ("b1", 5), ("a", 0), ("b2", 5)):
            queue.enqueue(self.say(text, priority=priority))

        assert drain(queue) == ["a", "b1", "b2", "c"]

    def test_priorities_hold_across_the_queues_of_an_adapter(self) -> None:
        """Which queue is named first does not matter."""
        queue = self.queue(queues=["b", "a", "c"])
        for text, name, priority in (("3", "b", 9), ("1", "a", 1), ("4", "c", 9), ("2", "c", 2)):
            queue.enqueue(self.say(text, queue=name, priority=priority))

        assert drain(queue) == ["1", "2", "3", "4"]

    def test_only_the_queues_of_an_adapter_are_served(self) -> None:
        """What is published elsewhere stays there."""
        queue = self.queue(queues=["mine", "ours"])
        queue.enqueue_many([self.say(name, queue=name) for name in ("theirs", "ours", "mine")])

        assert drain(queue) == ["ours", "mine"]
        assert queue.stats() == {"theirs": QueueStats(ready=1)}

    @pytest.mark.parametrize("name", ["a", "q" * 200, "größe/漢字 x", "'; --", "..", "a|b:c"])
    def test_any_printable_name_is_a_queue(self, name: str) -> None:
        """A name is data to the engine, or refused by name before anything is done."""
        if name in self.refused_names:
            with pytest.raises(ConfigError, match="queue"):
                self.queue(queues=[name])
            with pytest.raises(InvalidMessage, match="queue"):
                self.queue().enqueue(self.say(queue=name))
            return
        queue = self.queue(queues=[name])
        queue.enqueue(self.say("here", queue=name))
        reservation = reserve(queue)

        assert (reservation.queue, said(reservation)) == (name, "here")

    def test_a_delayed_job_is_not_seen_before_its_time(self) -> None:
        """It is counted as delayed until then, and ready afterwards without anybody's help."""
        queue = self.queue()
        queue.enqueue(self.say("later", delay=2 * self.moment))
        self.pass_time(self.moment)

        assert queue.dequeue() is None
        assert counts(queue) == QueueStats(delayed=1)

        self.pass_time(1.5 * self.moment)

        assert counts(queue) == QueueStats(ready=1)
        assert said(queue.dequeue()) == "later"

    def test_a_job_that_is_due_takes_its_place_by_priority(self) -> None:
        """Having waited is no disadvantage and no privilege."""
        queue = self.queue()
        queue.enqueue(self.say("urgent", delay=self.moment, priority=1))
        queue.enqueue(self.say("idle", delay=self.moment, priority=9))
        queue.enqueue(self.say("usual", priority=5))
        self.pass_time(1.5 * self.moment)

        assert drain(queue) == ["urgent", "usual", "idle"]

    def test_a_date_in_the_past_is_no_delay(self) -> None:
        """A message that was written long ago is ready at once."""
        queue = self.queue()
        message = self.say("old", delay=self.moment)
        self.pass_time(1.5 * self.moment)
        queue.enqueue(message)

        assert said(queue.dequeue()) == "old"

    @pytest.mark.parametrize("raw", [b"{", b"\x00\xff", b"[]", b'{"header": {}}', b"text"])
    def test_bytes_that_are_no_message_can_be_reserved_and_buried(self, raw: bytes) -> None:
        """They come as a reservation that says so when it is read; nothing crashes on them."""
        queue = self.queue()
        self.put_raw("default", raw)
        reservation = reserve(queue)

        with pytest.raises(UndecodableMessage):
            _ = reservation.message

        queue.bury(reservation, reason=BuryReason.UNDECODABLE)
        record = queue.peek(reservation.job_id)

        assert (record.state, record.raw) == (JobState.BURIED, raw)
        with pytest.raises(UndecodableMessage):
            record.message()

    def test_a_message_without_an_id_or_stamp_is_accepted(self) -> None:
        """The adapter stores what it is given."""
        queue = self.queue()
        queue.enqueue(Message(request_type="say"))

        assert reserve(queue).message.id is None
