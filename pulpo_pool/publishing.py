"""Publisher: the one way into a queue; gives a message its id, its queue and its date."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pulpo_pool.clock import Clock
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import QueueAdapter

Published: TypeAlias = "tuple[Message, str]"  # the message as it was stored, and its job_id

_ID_BYTES: Final = 16  # random, as many as a UUID has; its class would take three times as long


class Publisher:
    """Stamps messages and stores them in an open adapter.

    A message keeps an id that its publisher chose; every other one gets a new one. `clock` is
    the adapter's unless given.
    """

    def __init__(self, adapter: QueueAdapter, clock: Clock | None = None) -> None:
        self._adapter = adapter
        self._clock = clock or adapter.clock

    def publish(self, message: Message) -> Published:
        """Store one message; return it as stored, and its job_id.

        Raises InvalidMessage for what cannot be serialized, MessageTooLarge, QueueUnavailable.
        """
        stamped = self._stamped(message)
        return stamped, self._adapter.enqueue(stamped)

    def publish_many(self, messages: Iterable[Message]) -> list[Published]:
        """Store all messages or none; return each as stored, and its job_id, in order.

        They have one date, the call's.

        Raises what publish raises, and nothing was published then; or PartlyPublished, which
        says what was.
        """
        messages, now = list(messages), self._clock.now()
        ids = os.urandom(len(messages) * _ID_BYTES).hex()
        stamped = [
            message.stamped(
                id=ids[place : place + 2 * _ID_BYTES], queue=message.queue, published_at=now
            )
            for place, message in zip(range(0, len(ids), 2 * _ID_BYTES), messages, strict=True)
        ]
        return list(zip(stamped, self._adapter.enqueue_many(stamped), strict=True))

    def check(self, message: Message) -> None:
        """Raise what publishing this message would raise for its content, without storing it."""
        self._adapter.codec.encode(self._stamped(message))

    def _stamped(self, message: Message) -> Message:
        new_id = os.urandom(_ID_BYTES).hex()
        return message.stamped(id=new_id, queue=message.queue, published_at=self._clock.now())
