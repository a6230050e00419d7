"""JobContext: what a handler can learn about the job it is working on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pulpo_pool.clock import Deadline
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import Reservation


class JobContext:
    """One attempt at one job. A handler with a parameter annotated JobContext is given it."""

    __slots__ = ("_reservation", "_stopping", "began", "deadline", "message")

    message: Message
    deadline: Deadline | None  # monotonic; the time limit of this attempt
    began: float  # monotonic seconds

    def __init__(
        self,
        reservation: Reservation,
        stopping: Callable[[], bool],
        deadline: Deadline | None = None,
        began: float = 0.0,
    ) -> None:
        # Given by place: by keyword it takes twice the time, 0.1 us a job.
        self.message = reservation.message
        self.deadline = deadline
        self.began = began
        self._reservation = reservation
        self._stopping = stopping

    @property
    def id(self) -> str:
        """The message's id, the same at every attempt: the key for doing something only once."""
        return self.message.id or self._reservation.job_id

    @property
    def job_id(self) -> str:
        """The queue's handle, for `pulpo-pool peek` and friends."""
        return self._reservation.job_id

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._reservation.queue

    @property
    def request_type(self) -> str:
        """Which handler the publisher asked for."""
        return self.message.request_type

    @property
    def header(self) -> Mapping[str, Any]:
        """The message's header, with any field a publisher added."""
        return self.message.header

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._reservation.attempt

    @property
    def crashes(self) -> int:
        """How many workers died with this job in hand."""
        return self._reservation.crashes

    @property
    def stopping(self) -> bool:
        """Whether the pool is draining: a long handler may stop early and raise Transient."""
        return self._stopping()

    @property
    def logger(self) -> logging.Logger:
        """The logger of this kind of job; the pool's log lines say which job it was."""
        return logging.getLogger(f"pulpo_pool.job.{self.request_type}")

    def __repr__(self) -> str:
        return f"JobContext(job_id={self.job_id!r}, request_type={self.request_type!r})"
