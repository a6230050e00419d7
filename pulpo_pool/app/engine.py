"""Engine: the open queue behind an app, one for each process that uses it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol

from pulpo_pool.publishing import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pulpo_pool.clock import Clock
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import QueueAdapter


class Engine(Protocol):
    """Where an app's messages go, and the clock that dates them."""

    clock: Clock

    @property
    def adapter(self) -> QueueAdapter:
        """The open queue."""

    def publish(self, message: Message) -> Message:
        """Store a message; return it as stored."""

    def publish_many(self, messages: Iterable[Message]) -> list[Message]:
        """Store all messages or none; return them as stored."""

    def close(self) -> None:
        """Let go of what was opened in this process; the next use opens it again."""


class _Opened:
    """What one process has open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.adapter: QueueAdapter | None = None
        self.publisher: Publisher | None = None


class QueueEngine:
    """Opens a queue at first use, and again in a child after a fork. Safe for threads.

    What the parent had open stays referenced and untouched in the child: closing it there, or
    leaving it to the garbage collector, could speak on the parent's connection. The lock is new
    in the child too, since some thread of the parent may have held the old one.
    """

    def __init__(self, open_adapter: Callable[[], QueueAdapter], clock: Clock) -> None:
        self._open_adapter = open_adapter
        self.clock = clock
        self._by_process: dict[int, _Opened] = {}

    @property
    def adapter(self) -> QueueAdapter:
        """The open queue."""
        opened = self._here()
        with opened.lock:
            return self._adapter(opened)

    def publish(self, message: Message) -> Message:
        """Store a message; return it as stored. See publish_many."""
        opened = self._here()
        with opened.lock:
            return self._publisher(opened).publish(message)[0]

    def publish_many(self, messages: Iterable[Message]) -> list[Message]:
        """Store all messages or none; return them as stored.

        One thread at a time: an adapter's connection is not asked to know threads.
        """
        opened = self._here()
        with opened.lock:
            return [message for message, _ in self._publisher(opened).publish_many(messages)]

    def close(self) -> None:
        """Let go of what was opened in this process; the next use opens it again."""
        opened = self._by_process.pop(os.getpid(), None)
        if opened is None:
            return
        with opened.lock:
            if opened.adapter is not None:
                opened.adapter.close()

    def _here(self) -> _Opened:
        pid = os.getpid()
        # setdefault is atomic: threads that come first together agree on one.
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Opened())

    def _publisher(self, opened: _Opened) -> Publisher:
        if opened.publisher is None:
            opened.publisher = Publisher(self._adapter(opened), self.clock)
        return opened.publisher

    def _adapter(self, opened: _Opened) -> QueueAdapter:
        if opened.adapter is None:
            opened.adapter = self._open_adapter()
        return opened.adapter


class GivenEngine:
    """A queue that somebody else opened, and will close."""

    def __init__(self, adapter: QueueAdapter, clock: Clock) -> None:
        self.adapter = adapter
        self.clock = clock
        self._publisher = Publisher(adapter, clock)
        self._lock = threading.Lock()

    def publish(self, message: Message) -> Message:
        """Store a message; return it as stored."""
        with self._lock:
            return self._publisher.publish(message)[0]

    def publish_many(self, messages: Iterable[Message]) -> list[Message]:
        """Store all messages or none; return them as stored."""
        with self._lock:
            return [message for message, _ in self._publisher.publish_many(messages)]

    def close(self) -> None:
        """Leave it open: whoever opened it may still use it."""
