"""Scoreboard: shared memory in which every process of a pool tells the others how it is.

One anonymous mapping, made before the first fork. Each row has one writer and a sequence word:
the writer makes it odd, writes, and makes it even; a reader copies the row and retries while the
word is odd or changed (a sequence lock: Lameter, "Effective synchronization on Linux", 2005).
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Generic, TypeVar

from pulpo_pool.log import LEVELS
from pulpo_pool.states import Activity, ExitReason, ForkReason

READ_ATTEMPTS: Final = 1_000
LEDGER_SIZE: Final = 4_096  # deaths remembered; an older one is known to be dead, not how
MOST_CIRCUITS: Final = 256  # request_types that have ever paused; see circuits.py
_TEXT: Final = 64  # bytes
_TAG: Final = 8  # bytes
_LINE: Final = 64  # bytes that a CPU's cache takes at once


class _Header(ctypes.Structure):
    _fields_ = (
        ("started_at", ctypes.c_double),  # Unix seconds
        ("heartbeat", ctypes.c_double),  # the master's, monotonic seconds
        ("pool_state", ctypes.c_int64),
        ("generation", ctypes.c_int64),
        ("wanted_workers", ctypes.c_int64),
        ("parked_workers", ctypes.c_int64),
        ("crash_looping", ctypes.c_int64),
        ("reloads_done", ctypes.c_int64),
        ("reloads_failed", ctypes.c_int64),
        ("last_reload_ok", ctypes.c_int64),
        ("last_reload_at", ctypes.c_double),  # Unix seconds, of the last that succeeded
        ("out_of_work", ctypes.c_int64),  # burst: the keeper saw nothing ready, nothing held
        ("jobs_died_with", ctypes.c_int64),  # deaths so far of workers that had a job in hand
        ("queue_seen_at", ctypes.c_double),  # the keeper's last good look, monotonic seconds
        ("changes_seen", ctypes.c_int64),  # by the watcher, in the app's files
        ("jobs_of_the_dead", ctypes.c_int64),  # done in lives that have ended
        ("circuits_used", ctypes.c_int64),  # rows that have an owner
        ("circuits_open", ctypes.c_int64),  # 0: every request_type runs, and no row need be read
        ("loop_lag", ctypes.c_double),  # seconds, the worst of late: see master/lag.py
        ("log_lines", ctypes.c_int64 * len(LEVELS)),  # the master's own
        ("forks", ctypes.c_int64 * len(ForkReason)),
        ("exits", ctypes.c_int64 * len(ExitReason)),
    )


class LifeRow(ctypes.Structure):
    """What the master writes about a slot."""

    _fields_ = (
        ("seq", ctypes.c_uint64),
        ("state", ctypes.c_int64),
        ("pid", ctypes.c_int64),
        ("serial", ctypes.c_int64),
        ("generation", ctypes.c_int64),
        ("order", ctypes.c_int64),
        ("leave_as", ctypes.c_int64),  # an ExitReason, meant when order is LEAVE
        ("born", ctypes.c_double),  # monotonic seconds
        ("cpu_before", ctypes.c_double),  # seconds, of the slot's lives that have ended
    )


class WorkRow(ctypes.Structure):
    """What a process writes about itself; believed while `serial` is the life row's.

    What changes with each job comes first, in two lines of a CPU's cache: see JobRow.
    """

    _fields_ = (
        ("seq", ctypes.c_uint64),
        ("heartbeat", ctypes.c_double),  # monotonic seconds
        ("busy_since", ctypes.c_double),  # monotonic seconds; 0: no handler runs
        ("busy", ctypes.c_double),  # seconds inside handlers that ended; of all lives in the slot
        ("jobs_done", ctypes.c_int64),
        ("activity", ctypes.c_int64),
        ("job_started", ctypes.c_double),  # monotonic seconds
        ("job_deadline", ctypes.c_double),  # monotonic seconds; 0: none
        ("job_id", ctypes.c_char * _TEXT),
        # What follows changes seldom.
        ("serial", ctypes.c_int64),
        ("queue_up", ctypes.c_int64),  # a QueueLink
        ("exit_reason", ctypes.c_int64),  # an ExitReason, meant once LEAVING
        ("asks", ctypes.c_int64),  # to be replaced: an ExitReason; 0 for no
        ("asked_after", ctypes.c_int64),  # jobs
        ("fresh_memory", ctypes.c_int64),  # private bytes before the first job; 0: nobody looked
        ("memory", ctypes.c_int64),  # private bytes when it last was found over a limit
        ("queue", ctypes.c_char * _TEXT),
        ("request_type", ctypes.c_char * _TEXT),
        ("log_lines", ctypes.c_int64 * len(LEVELS)),  # of all lives in the slot
        ("_unused", ctypes.c_char * 32),  # so that no two rows share a line of a CPU's cache
    )


class Hand(ctypes.Structure):
    """The end of the job_id that a worker began last, side by side with the others'.

    Written before the row, so that what no hand has, no row says either. Eight workers' lie in
    one line of a CPU's cache: to search their rows took 1.3 us a job.
    """

    _fields_ = (("tag", ctypes.c_char * _TAG),)


class CircuitRow(ctypes.Structure):
    """Whether a request_type runs; circuits.py says who writes it, and when."""

    _fields_ = (
        ("seq", ctypes.c_uint64),
        ("key", ctypes.c_uint64),  # a digest of the whole name
        ("paused_until", ctypes.c_double),  # monotonic seconds; 0: it runs
        ("pause", ctypes.c_double),  # seconds that the present pause was to last
        ("changed_at", ctypes.c_double),  # monotonic seconds
        ("probe", ctypes.c_int64),  # the serial whose job finds out whether it runs again; 0: none
        ("pauses", ctypes.c_int64),  # so far
        ("request_type", ctypes.c_char * _TEXT),
        ("cause", ctypes.c_char * _TEXT),
    )


class _Death(ctypes.Structure):
    _fields_ = (
        ("serial", ctypes.c_int64),
        ("reason", ctypes.c_int64),
        ("wait_status", ctypes.c_int64),
        ("died_at", ctypes.c_double),  # Unix seconds
        ("max_rss", ctypes.c_int64),  # bytes
        ("cpu", ctypes.c_double),  # seconds
        ("slot", ctypes.c_int64),
        ("queue", ctypes.c_char * _TEXT),
        ("job_id", ctypes.c_char * _TEXT),  # empty: no job was in hand
        ("request_type", ctypes.c_char * _TEXT),
    )


@dataclass(frozen=True, slots=True)
class JobInHand:
    """The job that a worker died with, as its row said; texts may be cut."""

    slot: int
    queue: str
    job_id: str
    request_type: str


@dataclass(frozen=True, slots=True)
class Death:
    """How a life ended, as its master saw it."""

    serial: int
    reason: ExitReason
    wait_status: int
    died_at: float
    max_rss: int
    cpu: float
    job: JobInHand | None = None


Row = TypeVar("Row", LifeRow, WorkRow, CircuitRow)


class TornRow(Exception):
    """A row could not be read whole: its writer died in the middle of a write."""


class Scoreboard:
    """The shared rows. Made by the master; children reach the same memory after the fork."""

    def __init__(self, slots: int, *, ledger_size: int = LEDGER_SIZE) -> None:
        kinds = (
            _Header,
            LifeRow * slots,
            WorkRow * slots,
            _Death * ledger_size,
            CircuitRow * MOST_CIRCUITS,
            Hand * slots,
        )
        ends = list(accumulate(-(-ctypes.sizeof(kind) // _LINE) * _LINE for kind in kinds))
        self._memory = mmap.mmap(-1, ends[-1])
        self.slots = slots
        self.header = _Header.from_buffer(self._memory, 0)
        self._lives = (LifeRow * slots).from_buffer(self._memory, ends[0])
        self._works = (WorkRow * slots).from_buffer(self._memory, ends[1])
        self._ledger = (_Death * ledger_size).from_buffer(self._memory, ends[2])
        self._circuits = (CircuitRow * MOST_CIRCUITS).from_buffer(self._memory, ends[3])
        self._hands = (Hand * slots).from_buffer(self._memory, ends[4])
        self._hands_at = ends[4]

    def life(self, slot: int) -> LifeRow:
        """Return the master's row of a slot, as it is now: single fields may be read from it."""
        return self._lives[slot]

    def work(self, slot: int) -> WorkRow:
        """Return a process's own row, as it is now: single fields may be read from it."""
        return self._works[slot]

    def circuit(self, number: int) -> CircuitRow:
        """Return a request_type's row, as it is now."""
        return self._circuits[number]

    def read_life(self, slot: int) -> LifeRow:
        """Return a consistent copy of the master's row."""
        return read_row(self._lives[slot])

    def read_work(self, slot: int) -> WorkRow | None:
        """Return a consistent copy of a process's row; None if this life wrote none."""
        try:
            row = read_row(self._works[slot])
        except TornRow:
            return None
        return row if row.serial == self._lives[slot].serial else None

    def record_death(self, death: Death) -> None:
        """Note, once it is reaped, how a life ended. `serial` is written last, and so commits."""
        entry = self._ledger[death.serial % len(self._ledger)]
        entry.serial = 0
        entry.reason = death.reason
        entry.wait_status = death.wait_status
        entry.died_at = death.died_at
        entry.max_rss = death.max_rss
        entry.cpu = death.cpu
        job = death.job
        entry.job_id = as_text(job.job_id) if job else b""
        if job is not None:
            entry.slot = job.slot
            entry.queue, entry.request_type = as_text(job.queue), as_text(job.request_type)
        entry.serial = death.serial
        self.header.jobs_died_with += job is not None
        self.header.exits[death.reason] += 1

    def death_of(self, serial: int) -> Death | None:
        """Return how this life ended; None while it may still be alive.

        A death that newer ones have pushed out of the ledger is reported as one by a signal of
        which nothing is known: `wait_status` -1.
        """
        entry = _Death.from_buffer_copy(self._ledger[serial % len(self._ledger)])
        if entry.serial == serial:
            return _read_death(entry)
        if entry.serial > serial:
            return Death(serial, ExitReason.SIGNAL, -1, 0.0, 0, 0.0)
        return None

    def deaths_with_jobs(self) -> list[Death]:
        """Return the deaths in the ledger of workers that had a job in hand."""
        entries = [_Death.from_buffer_copy(entry) for entry in self._ledger if entry.job_id]
        return [_read_death(entry) for entry in entries if entry.serial]

    def hand(self, slot: int) -> Hand:
        """Return where a worker keeps the end of the job_id that it began last."""
        return self._hands[slot]

    def may_be_held(self, job_id: bytes) -> bool:
        """Tell whether some worker may have this job in hand, itself included; False is certain."""
        end = self._hands_at + self.header.wanted_workers * _TAG
        return job_id[-_TAG:] in self._memory[self._hands_at : end]

    def other_holders(self, job_id: bytes, slot: int) -> list[WorkRow]:
        """Return the rows of other workers that say they have this job in hand, dead or alive."""
        rows = (self._works[other] for other in range(self.header.wanted_workers) if other != slot)
        return [row for row in rows if row.job_id == job_id and row.activity == Activity.BUSY]


def _read_death(entry: _Death) -> Death:
    job = None
    if entry.job_id:
        texts = (entry.queue, entry.job_id, entry.request_type)
        job = JobInHand(entry.slot, *(text.decode("utf-8", "replace") for text in texts))
    return Death(
        entry.serial,
        ExitReason(entry.reason),
        entry.wait_status,
        entry.died_at,
        entry.max_rss,
        entry.cpu,
        job,
    )


class writing(Generic[Row]):  # noqa: N801 - reads as a verb: with writing(row)
    """Write a row as one change. Only its one writer may; a torn start is healed."""

    __slots__ = ("_row",)

    def __init__(self, row: Row) -> None:
        self._row: Row = row

    def __enter__(self) -> Row:
        self._row.seq |= 1
        return self._row

    def __exit__(self, *_failure: object) -> None:
        self._row.seq += 1


def read_row(row: Row) -> Row:
    """Return a copy in which no write is half done; raise TornRow if there never is one."""
    kind = type(row)
    for _ in range(READ_ATTEMPTS):
        before = row.seq
        if before & 1:
            continue
        copy = kind.from_buffer_copy(row)
        if copy.seq == before and row.seq == before:
            return copy
    raise TornRow


def as_text(value: str) -> bytes:
    """Return text cut to what a row holds, never in the middle of a character."""
    raw = value.encode("utf-8", "replace")
    if len(raw) < _TEXT:
        return raw
    return raw[: _TEXT - 1].decode("utf-8", "ignore").encode()
