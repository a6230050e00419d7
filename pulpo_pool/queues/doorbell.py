"""The doorbell: how a publisher wakes exactly one of the processes that wait at a queue's file.

There is a FIFO for each queue name, since a wake-up that goes to one waiter must not go to one
that listens elsewhere. Who waits holds its FIFO open for reading and writing; who rings writes a
byte and goes on. A byte means no more than "look": bytes are never counted.
"""

from __future__ import annotations

import enum
import errno
import functools
import hashlib
import os
import select
import selectors
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pulpo_pool.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

_A_LOT: Final = 65_536  # bytes: all that a FIFO holds


class Heard(enum.Enum):
    """What ended a wait."""

    BELL = "bell"
    INTERRUPT = "interrupt"
    SILENCE = "silence"


class Waiter(Protocol):
    """Waits for descriptors; bells may be given to one of several waiters only."""

    def add_bell(self, descriptor: int) -> None:
        """Listen to this FIFO from now on."""

    def wait(self, seconds: float, interrupts: Sequence[int]) -> set[int]:
        """Return the readable descriptors, none when the time is over."""

    def close(self) -> None:
        """Stop listening."""


class ExclusiveWaiter:
    """Linux: the kernel hands each ring to one waiting process."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def add_bell(self, descriptor: int) -> None:
        """Listen to this FIFO from now on."""
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def wait(self, seconds: float, interrupts: Sequence[int]) -> set[int]:
        """Return the readable descriptors, none when the time is over."""
        # Registered anew for each wait: a number closed and used again in between is no trap.
        for descriptor in interrupts:
            self._epoll.register(descriptor, select.EPOLLIN)
        try:
            return {descriptor for descriptor, _ in self._epoll.poll(seconds)}
        finally:
            for descriptor in interrupts:
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop listening."""
        self._epoll.close()


class SharedWaiter:
    """Elsewhere: a ring wakes every waiting process, and all but one look in vain."""

    def __init__(self) -> None:
        self._bells: list[int] = []

    def add_bell(self, descriptor: int) -> None:
        """Listen to this FIFO from now on."""
        self._bells.append(descriptor)

    def wait(self, seconds: float, interrupts: Sequence[int]) -> set[int]:
        """Return the readable descriptors, none when the time is over."""
        with selectors.DefaultSelector() as selector:
            for descriptor in {*self._bells, *interrupts}:
                selector.register(descriptor, selectors.EVENT_READ)
            return {key.fd for key, _ in selector.select(seconds)}

    def close(self) -> None:
        """Stop listening."""
        self._bells.clear()


def _waiter() -> Waiter:
    return ExclusiveWaiter() if hasattr(select, "EPOLLEXCLUSIVE") else SharedWaiter()


class Doorbell:
    """The bells of one database, as one process rings and hears them."""

    def __init__(
        self,
        directory: str,
        *,
        entrust: Callable[[str], None] = lambda _path: None,
        waiter: Callable[[], Waiter] = _waiter,
    ) -> None:
        self._directory = Path(directory)
        self._prefix = f"{self._directory}/"
        self._entrust = entrust  # gives a new file its owner and permissions
        self._new_waiter = waiter
        self._waiter: Waiter | None = None
        self._fifos: dict[str, int] = {}  # what we listen to, by queue
        self._no_bell = False  # the last ring found no FIFO

    def ring(self, queue: str) -> None:
        """Wake one process that waits at this queue; nobody waiting is fine."""
        fifo = self._fifos.get(queue)
        if fifo is not None:
            with suppress(BlockingIOError):  # full: it rings already
                os.write(fifo, b"!")
            return
        path = self._path(queue)
        if self._no_bell and not os.access(path, os.F_OK):
            return  # at a third of what to open and to fail costs, for who fills a queue in advance
        try:
            fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            # ENOENT, ENXIO: nobody listens; whatever else it is, waiters look by themselves.
            self._no_bell = error.errno == errno.ENOENT
            return
        try:
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(fifo, b"!")
        finally:
            os.close(fifo)

    def listen(self, queues: Collection[str]) -> bool:
        """Begin to listen, and return True if that was new: then look before you wait.

        Raises QueueUnavailable where FIFOs cannot be made.
        """
        if self._waiter is not None:
            return False
        waiter = self._waiter = self._new_waiter()
        try:
            with suppress(FileExistsError):
                self._directory.mkdir(mode=0o700)
                self._entrust(str(self._directory))
            for queue in queues:
                self._fifos[queue] = self._open(self._path(queue))
                waiter.add_bell(self._fifos[queue])
        except OSError as error:
            self.close()
            raise QueueUnavailable(
                f"doorbell {self._directory}: {error.strerror}; FIFOs must be possible there"
            ) from error
        return True

    def moved(self) -> bool:
        """Tell whether the FIFOs we hear are no longer those that publishers will find."""
        for queue, fifo in self._fifos.items():
            try:
                if not os.path.samestat(os.fstat(fifo), os.stat(self._path(queue))):  # noqa: PTH116
                    return True
            except OSError:
                return True
        return False

    def wait(self, seconds: float, interrupts: Sequence[int]) -> Heard:
        """Wait for a ring, at most so long; take all rings there are as one.

        A ring that comes together with an interrupt is passed on to the next waiter.
        """
        assert self._waiter is not None, "listen first"
        ready = self._waiter.wait(seconds, interrupts)
        rung = [queue for queue, fifo in self._fifos.items() if fifo in ready]
        for queue in rung:
            with suppress(BlockingIOError):
                os.read(self._fifos[queue], _A_LOT)
        if not ready.isdisjoint(interrupts):
            for queue in rung:
                self.ring(queue)
            return Heard.INTERRUPT
        return Heard.BELL if rung else Heard.SILENCE

    def close(self) -> None:
        """Stop listening; ringing still works."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.close()
        while self._fifos:
            os.close(self._fifos.popitem()[1])

    def _path(self, queue: str) -> str:
        return self._prefix + _file_name(queue)

    def _open(self, path: str) -> int:
        try:
            os.mkfifo(path, 0o600)
            self._entrust(path)
        except FileExistsError:
            pass
        fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
            os.close(fifo)
            raise OSError(errno.EEXIST, f"{path} is in the way of a FIFO; remove it")
        return fifo


@functools.lru_cache(maxsize=1_000)  # each publish asks, and most apps have a few queues
def _file_name(queue: str) -> str:
    # Hashed: a queue's name may be longer than a file's, or hold a slash.
    return hashlib.blake2b(queue.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
