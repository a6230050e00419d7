"""What was found out about a job: its record, and the pools that may run it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pulpo_pool.cli.moments import span
from pulpo_pool.errors import UndecodableMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import JobRecord


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """A pool of this state directory, as its control socket answers."""

    master: Mapping[str, Any]
    workers: list[Mapping[str, Any]]
    same_queue: bool = True  # it works on the broker that we look at
    paused: list[Mapping[str, Any]] = field(default_factory=list)  # request_types, with why

    @property
    def name(self) -> str:
        """The name it was started with."""
        return str(self.master["name"])

    def pause_of(self, message: Message | None) -> str:
        """Return how its type is paused here, as a sentence; nothing if it is not."""
        kind = message.request_type if message else ""
        for each in self.paused:
            if each["request_type"] == kind:
                left = "one job finds out whether it works again"
                if each["state"] == "paused":
                    left = f"for another {span(each['seconds_left'])}"
                return f"Pool {self.name} has paused {kind} ({each['cause']}), {left}."
        return ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about a job. `handled` is None where nobody can tell; `told_by` says who.

    `in_front` are ready jobs of its queue that run before it, None if that is not known.
    """

    record: JobRecord
    now: float
    pools: list[PoolSeen] = field(default_factory=list)
    in_front: int | None = None
    handled: bool | None = None
    told_by: str = ""
    on_expired: str = "discard"

    @property
    def message(self) -> Message | None:
        """The message; None where the bytes are none."""
        try:
            return self.record.message()
        except UndecodableMessage:
            return None
