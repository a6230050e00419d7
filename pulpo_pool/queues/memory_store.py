"""The jobs of a memory queue: heaps behind a lock."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pulpo_pool.queues.adapter import BuryReason, JobState, Owner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pulpo_pool.setback import Setback

_FOREVER: Final = float("inf")


@dataclass(slots=True)
class Job:
    """A job and where it stands."""

    number: int
    queue: str
    raw: bytes
    priority: int
    state: JobState
    due: float | None = None
    attempts: int = 0
    crashes: int = 0
    token: int = 0
    owner: Owner | None = None
    reason: str | None = None
    error: str | None = None
    history: tuple[Setback, ...] = ()


class MemoryStore:
    """The jobs that the adapters of one process share. Hold `lock` to touch anything else."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: dict[int, Job] = {}
        self.bells: set[int] = set()  # descriptors to write to when there is something to see
        self._numbers = itertools.count(1)
        self._tokens = itertools.count(1)
        self._ready: dict[str, list[tuple[int, int]]] = {}  # heaps; what has left is skipped
        self._timed: list[tuple[float, int]] = []

    def add(self, queue: str, raw: bytes, priority: int, due: float | None) -> int:
        """Store a new job, delayed if it has a date; return its number."""
        job = Job(next(self._numbers), queue, raw, priority, JobState.READY)
        self.jobs[job.number] = job
        self.put_back(job, due)
        return job.number

    def put_back(self, job: Job, due: float | None) -> None:
        """Make a job ready, or delayed until `due`."""
        job.owner = None
        job.due = due
        if due is None:
            job.state = JobState.READY
            heapq.heappush(self._ready.setdefault(job.queue, []), (job.priority, job.number))
        else:
            job.state = JobState.DELAYED
            heapq.heappush(self._timed, (due, job.number))
        self.ring()

    def set_aside(self, job: Job, reason: BuryReason, error: str) -> None:
        """Bury a job."""
        job.state, job.due, job.owner = JobState.BURIED, None, None
        job.reason, job.error = reason.value, error

    def replace(self, job: Job, raw: bytes, priority: int) -> None:
        """Give a job other bytes and another priority; it stays where it is."""
        job.raw, job.priority = raw, priority
        if job.state is JobState.READY:
            self.put_back(job, None)

    def lease(self, job: Job, until: float) -> None:
        """Let a reservation last until this date."""
        job.due = until
        heapq.heappush(self._timed, (until, job.number))

    def promote(self, now: float) -> float:
        """Make ready what is due; return when the next job will be."""
        while self._timed:
            due, number = self._timed[0]
            job = self.jobs.get(number)
            current = (
                job is not None
                and job.state in (JobState.DELAYED, JobState.RESERVED)
                and job.due == due
            )
            if current and due > now:
                return due
            heapq.heappop(self._timed)
            if current and job is not None:
                self.put_back(job, None)
        return _FOREVER

    def take(self, queues: Iterable[str], owner: Owner | None, until: float) -> Job | None:
        """Reserve the first ready job of these queues."""
        heads = [head for queue in queues if (head := self._head(queue)) is not None]
        if not heads:
            return None
        job = self.jobs[min(heads)[1]]
        heapq.heappop(self._ready[job.queue])
        job.state, job.owner = JobState.RESERVED, owner
        job.attempts += 1
        job.token = next(self._tokens)
        self.lease(job, until)
        return job

    def _head(self, queue: str) -> tuple[int, int] | None:
        heap = self._ready.get(queue, [])
        while heap:
            job = self.jobs.get(heap[0][1])
            if job is not None and job.state is JobState.READY and job.priority == heap[0][0]:
                return heap[0]
            heapq.heappop(heap)
        return None

    def ring(self) -> None:
        """Wake every waiting adapter."""
        for bell in self.bells:
            with suppress(BlockingIOError):
                os.write(bell, b"!")
