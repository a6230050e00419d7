"""Circuits: while what a request_type depends on is down, its jobs wait, and one at a time probes.

    runs ──a failure that says pause──► paused ──time──► probing ──success──► runs
                                          ▲                 │
                                          └─the same failure┘   twice as long, up to 10 minutes

One row a request_type in the scoreboard's memory, seen by all workers of the pool. A job of a
paused type is put back unhandled; when the pause is over, the first worker to ask claims the
probe with its serial, and the others put back until that job has ended. A probe whose worker died,
or that failed in another way, is free for the next job. What began before the last change is old
news: it neither pauses nor resumes anything.

Rows have many writers, but change seldom: they take turns by a record lock on a file, which the
kernel gives back when its holder dies, however it does. Readers take no lock: a row's sequence
word tells them whether it is whole, and a row that a dying writer left half written counts as one
that runs, until the next change mends it. The lock is a courtesy: who cannot have it (a full disk,
no descriptors left, a holder that is stopped) goes on without, and the worst is a second probe.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import random
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pulpo_pool.scoreboard import (
    MOST_CIRCUITS,
    CircuitRow,
    Scoreboard,
    TornRow,
    as_text,
    read_row,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pulpo_pool.clock import Clock

logger = logging.getLogger(__name__)

CIRCUIT_LOCK: Final = "circuits.lock"  # in the run directory
LONGEST_PAUSE: Final = 600.0  # seconds that doubling leads to
_LONGEST_PROBE_WAIT: Final = 5.0  # seconds between two looks of a job at whether the probe ended
_WIDEST_SPREAD: Final = 15.0  # seconds over which jobs come back after a pause
_LOCK_TRIES: Final = 100
_LOCK_PAUSE: Final = 0.001  # seconds; a change takes microseconds


@dataclass(frozen=True, slots=True)
class Circuit:
    """A request_type that has paused on this pool at least once; its name may be cut."""

    request_type: str
    paused_until: float  # monotonic seconds; 0: it runs
    pause: float  # seconds the present pause was to last
    pauses: int  # so far
    probing: bool  # a job is finding out whether it runs again
    cause: str  # what the failure was called


def read_circuits(scoreboard: Scoreboard) -> list[Circuit]:
    """Return what is known of each request_type that has ever paused; torn rows are left out."""
    circuits = []
    for number in range(scoreboard.header.circuits_used):
        with suppress(TornRow):
            row = read_row(scoreboard.circuit(number))
            circuits.append(
                Circuit(
                    row.request_type.decode("utf-8", "replace"),
                    row.paused_until,
                    row.pause,
                    row.pauses,
                    row.probe != 0 and scoreboard.death_of(row.probe) is None,
                    row.cause.decode("utf-8", "replace"),
                )
            )
    return circuits


class Circuits:
    """What one worker asks before each job, and tells after it.

    While nothing is paused that costs a job the reading of one word.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        serial: int,
        lock: Path | None,
        clock: Clock,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`serial` is this life's number; without a `lock` file no other process writes."""
        self._scoreboard = scoreboard
        self._header = scoreboard.header
        self._serial = serial
        self._lock = lock
        self._clock = clock
        self._jitter = jitter
        self.is_probing = False  # whether the job in hand finds out if its type runs again

    @classmethod
    def alone(cls, clock: Clock) -> Circuits:
        """Return the circuits of a loop that shares its jobs with no other process."""
        return cls(Scoreboard(1, ledger_size=2), 1, None, clock)

    def hold_back(self, request_type: str) -> float | None:
        """Return for how many seconds a job has to go back; None if it is to run now.

        None may mean that it is the probe: `learn` must hear how it ended.
        """
        if not self._header.circuits_open:
            return None
        row = self._find(request_type)
        if row is None:
            return None
        try:
            seen = read_row(row)
        except TornRow:
            return None
        if not seen.paused_until:
            return None
        wait = self._time_left(seen)
        if wait > 0:
            return wait
        return None if self._claim(row) else self._until_next_look(seen)

    def learn(
        self,
        request_type: str,
        *,
        began: float,
        succeeded: bool = False,
        pause: float | None = None,
        cause: str = "",
    ) -> float:
        """Take note of how a job ended that began then; return how long it had better wait.

        `pause` is seconds: its failure says that what the type depends on is down.
        """
        was_probe, self.is_probing = self.is_probing, False
        if pause is None and not was_probe:
            return 0.0
        with self._alone():
            row = self._find(request_type)
            if row is None and pause is not None:
                row = self._take_row(request_type)
            if row is None:
                return 0.0
            _mend(row)
            is_probe = was_probe and row.probe == self._serial
            if pause is not None:
                self._pause(row, pause, began, cause, again=is_probe)
            elif is_probe and succeeded:
                self._resume(row)
            elif is_probe:
                with writing(row):
                    row.probe = 0
            self._header.circuits_open = sum(bool(each.paused_until) for each in self._rows())
            return self._time_left(row)

    # -- changes, made alone ------------------------------------------------------------------

    def _pause(
        self, row: CircuitRow, asked: float, began: float, cause: str, *, again: bool
    ) -> None:
        """Pause, unless that is so already or is no news."""
        if not again and (row.paused_until or began < row.changed_at):
            return
        seconds = asked
        if again:
            seconds = max(asked, min(2 * row.pause, LONGEST_PAUSE))
        self._header.circuits_open += 1  # first: whoever dies here makes others look for nothing
        now = self._clock.monotonic()
        with writing(row):
            row.paused_until, row.pause, row.changed_at = now + seconds, seconds, now
            row.probe = 0
            row.pauses += 1
            row.cause = as_text(cause)
        logger.warning(
            "%s %s for %g s: %s",
            _name(row),
            "is still not to be had, and pauses" if again else "pauses",
            seconds,
            cause,
        )

    def _resume(self, row: CircuitRow) -> None:
        with writing(row):
            row.paused_until = row.pause = 0.0
            row.changed_at = self._clock.monotonic()
            row.probe = 0
        logger.info("%s runs again", _name(row))

    def _claim(self, row: CircuitRow) -> bool:
        """Make this worker's job the probe; tell whether it now is, or none is needed any more."""
        with self._alone():
            _mend(row)
            if not row.paused_until:
                return True
            if row.paused_until > self._clock.monotonic() or self._is_probed(row):
                return False
            with writing(row):
                row.probe = self._serial
            self.is_probing = True
            return True

    def _is_probed(self, row: CircuitRow) -> bool:
        # A worker has one job at a time: what it claimed before has ended without a word.
        if row.probe in (0, self._serial):
            return False
        return self._scoreboard.death_of(row.probe) is None

    def _take_row(self, request_type: str) -> CircuitRow | None:
        number = self._header.circuits_used
        if number >= MOST_CIRCUITS:
            logger.error(
                "%s cannot pause: %d other request_types have, and there is no room for more "
                "until the pool starts again",
                request_type,
                MOST_CIRCUITS,
            )
            return None
        row = self._scoreboard.circuit(number)
        with writing(row):
            row.key = _key(request_type)
            row.request_type = as_text(request_type)
            row.paused_until = row.pause = row.changed_at = 0.0
            row.probe = row.pauses = 0
        self._header.circuits_used = number + 1  # last: from here on the row is there
        return row

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        try:
            file = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield
            return
        try:
            _wait_for(file)
            yield
        finally:
            os.close(file)

    # -- looking ------------------------------------------------------------------------------

    def _rows(self) -> list[CircuitRow]:
        return [self._scoreboard.circuit(n) for n in range(self._header.circuits_used)]

    def _find(self, request_type: str) -> CircuitRow | None:
        key = _key(request_type)
        return next((row for row in self._rows() if row.key == key), None)

    def _time_left(self, row: CircuitRow) -> float:
        """Return when a job shall be back: a little later than the pause ends, each at its time."""
        left: float = row.paused_until - self._clock.monotonic()
        if left <= 0:
            return 0.0
        return left + self._jitter(0.0, min(row.pause / 4, _WIDEST_SPREAD))

    def _until_next_look(self, row: CircuitRow) -> float:
        wait: float = min(row.pause, _LONGEST_PROBE_WAIT)
        return wait * self._jitter(0.5, 1.5)


def _mend(row: CircuitRow) -> None:
    """Forget what a writer left half written when it died: nobody else writes now."""
    if row.seq & 1:
        with writing(row):
            row.paused_until = row.pause = 0.0
            row.probe = 0


def _wait_for(file: int) -> None:
    """Wait for the lock, but not for ever: its holder may have been stopped."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(_LOCK_PAUSE)
        else:
            return


def _name(row: CircuitRow) -> str:
    return f"request_type {row.request_type.decode('utf-8', 'replace')}"


def _key(request_type: str) -> int:
    digest = hashlib.blake2b(request_type.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
