"""The queue of those who write to a file queue's database, of all processes."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Line:
    """Where writers wait asleep, and how long the first of them stays there if there is no room."""

    byte: int  # of the lock file
    patience: float  # seconds


# Bytes of the lock file, each of which one process holds at a time.
DOOR: Final = 0  # who writes
STEP: Final = 1  # who waits before the door, awake
# Who gets in at the end of his patience comes with cold caches, and sends one to sleep: 0.26
# context switches a job at 5 ms, 0.20 at 20. With 8 workers, 6 wait for one another.
WORKERS: Final = Line(2, 0.02)
# Publishers and people's tools. Four that publish without a pause leave workers a quarter of the
# turns; at 2 ms it was a tenth.
CALLERS: Final = Line(3, 0.01)
_AWAKE: Final = 0.0001  # seconds; a turn takes 40 to 60 us
_FIRST_NAP: Final = 0.0005  # seconds, some eight turns: of fewer, the half are free by chance
_LONGEST_NAP: Final = 0.005
# Numbers in the lock file, for who looks without asking the kernel; it alone is believed.
_INSIDE: Final = 0  # 1 while somebody is
WAITED: Final = 1  # turns for which somebody waited awake
_FREE: Final = 2  # turns whose writer found the door open
_NUMBERS: Final = 24  # bytes


class WriterQueue:
    """Record locks on a file beside the database, on which the writers of all processes wait.

    SQLite's own wait sleeps and starves. Here two keep going and the others sleep, because to wake
    somebody for each job costs as much as the job: two workers on two CPUs did 9,800 jobs/s at
    120 us of CPU each, and do 17,000 at 95.

    - Who finds the door closed waits on the step, awake, if nobody is there.
    - All others sleep in line. The first of it looks now and then whether at least half of the
      turns found the door open: then there is room for one more, and he waits for the step. So he
      does at the end of his patience; who finds the step taken then goes to the end of the line.
    - With 8 workers at full rate each sleeps there for up to 200 ms. Publishers must not: they
      have a line of their own, and wait for up to 20.

    It is a courtesy: SQLite's locks alone keep the data right, so where ours cannot be had (the
    kernel sees a deadlock between processes with two queues each, or another adapter in this
    process let go of it) the writer goes on without. A killed process holds nothing.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._file).st_size < _NUMBERS:
                os.pwrite(self._file, bytes(_NUMBERS), 0)
            # For who waits awake: to ask the kernel instead, over and over, cost 3 % of the jobs/s
            # and 4 us of CPU a job. What a killed process left here is wrong until the next turn.
            self._numbers = memoryview(mmap.mmap(self._file, _NUMBERS)).cast("Q")
        except BaseException:
            os.close(self._file)
            raise

    def enter(self, line: Line) -> None:
        """Wait until it is our turn."""
        try:
            if self._has(DOOR):
                self._numbers[_FREE] += 1
            elif self._has(STEP):
                self._wait_awake()
            else:
                self._wait_asleep(line)
        except OSError as error:
            if error.errno not in (errno.EDEADLK, errno.ENOLCK):
                raise
        self._numbers[_INSIDE] = 1

    def leave(self) -> None:
        """Let the next one in."""
        self._numbers[_INSIDE] = 0
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _has(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # POSIX lets the kernel choose
            return False
        return True

    def _wait_awake(self) -> None:
        """Wait on the step, which is ours, until the door is."""
        self._numbers[WAITED] += 1
        if not self._got_awake():
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, DOOR)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, STEP)

    def _got_awake(self) -> bool:
        """Wait awake for the door; tell whether it became ours."""
        end = time.monotonic() + _AWAKE
        while time.monotonic() < end:
            if not self._numbers[_INSIDE] and self._has(DOOR):
                return True
        return False

    def _wait_asleep(self, line: Line) -> None:
        """Wait in line until the door is ours."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, line.byte)
        self._sleep_until_there_is_room(line.patience)
        if not self._has(DOOR):
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, STEP)
            self._wait_awake()
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, line.byte)

    def _sleep_until_there_is_room(self, patience: float) -> None:
        """Sleep until at least half of the turns find the door open, or patience is at its end.

        The kernel would wake us for each turn of the others, for nothing. And to go in whenever the
        door is open, as it is at times even when two keep going, pushed one out each 34 turns.
        """
        numbers = self._numbers
        end, nap, has_room = time.monotonic() + patience, _FIRST_NAP, False
        while not has_room and time.monotonic() < end:
            waited, free = numbers[WAITED], numbers[_FREE]
            time.sleep(nap)
            has_room = numbers[WAITED] - waited <= numbers[_FREE] - free
            nap = min(2 * nap, _LONGEST_NAP)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Keep out all others that open or close, those of this process too.

        A record lock lets them in, and two that make one database each hold what the other waits
        for: SQLite lets both wait until the busy timeout.
        """
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn, and let the next one in afterwards."""
        self.enter(CALLERS)
        try:
            yield
        finally:
            self.leave()

    def close(self) -> None:
        """Forget the file."""
        self._numbers.release()
        os.close(self._file)
