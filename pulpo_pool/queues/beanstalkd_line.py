"""Line: the way to a beanstalkd, by one connection after the other; what fails, in our words."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import greenstalk

from pulpo_pool.errors import QueueUnavailable
from pulpo_pool.queues.beanstalkd_link import Link
from pulpo_pool.queues.beanstalkd_people import HARMLESS
from pulpo_pool.queues.beanstalkd_wire import OutOfStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.queues.adapter import Reservation


class Line:
    """Reconnects when it must. `patience` is in seconds: who is silent for longer is away.

    `with line.talking as link` gives a connection in step; what fails on it is raised in our
    words. `with line.waiting` does too, and goes on with a wait that is outstanding. A wait that
    is ended for another command may have its job come at the last moment: `receive` makes a
    reservation of it, which is `granted` to whoever takes it next.
    """

    def __init__(
        self,
        host: str,
        port: int,
        patience: float,
        receive: Callable[[Link, int, bytes], Reservation],
    ) -> None:
        self.address = (host, port)
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.granted: Reservation | None = None
        self.talking = Talk(self, resumes=False)
        self.waiting = Talk(self, resumes=True)
        self._patience = patience
        self._receive = receive
        self.link: Link | None = None
        self.lock = threading.RLock()

    def begin(self, *, resumes: bool) -> Link:
        """Return a connection in step, see `connected`; let other threads in if there is none."""
        try:
            return self.connected(resumes=resumes)
        except BaseException as error:
            self.end(error)
            raise

    def end(self, error: BaseException | None) -> None:
        """Let other threads in; raise what the error means to a caller, if it means anything."""
        try:
            if error is not None:
                self.fail(error)
        finally:
            self.lock.release()

    def connected(self, *, resumes: bool) -> Link:
        """Return a connection in step, on which no wait is outstanding unless it `resumes`."""
        link = self.link
        if link is not None and link.parked is not None and not resumes:
            self._end_wait(link)
        elif link is not None and link.went_stale:
            self.drop()
        elif link is not None and link.parked is None and not link.held and link.wire.has_news():
            self.drop()  # the server has gone, perhaps come back, since the last call
        if self.link is None:
            try:
                self.link = Link(*self.address, self._patience)
            except Exception as error:
                raise _unavailable(self.where, error) or error from error
        return self.link

    def take_granted(self) -> Reservation | None:
        """Return the reservation that came when nobody waited for it any more, if there is one."""
        granted, self.granted = self.granted, None
        return granted

    def rest(self) -> None:
        """Have the server no longer wait on our behalf, unless other jobs are in hand."""
        with self.lock:
            granted, link = self.take_granted(), self.link
            if link is None:
                return
            others = [held for held in link.held.values() if held is not granted]
            if not others and (granted is not None or link.parked is not None):
                self.drop()  # which hands back what came, or is about to

    def drop(self) -> None:
        """Let go of the connection, and so of all that was reserved on it."""
        link, self.link = self.link, None
        self.granted = None
        if link is not None:
            link.close()

    def _end_wait(self, link: Link) -> None:
        if not link.held and not link.wire.has_news():
            self.drop()
            return
        granted = None
        while link.parked is not None and granted is None:
            granted = link.wait(time.monotonic() + self._patience, ())
        if granted is not None:
            self.granted = self._receive(link, *granted)

    def fail(self, error: BaseException) -> None:
        """Drop a connection that may be out of step; raise what the error means to a caller."""
        if isinstance(error, HARMLESS):
            return
        if not _keeps_step(error):
            self.drop()
        if isinstance(error, Exception):
            word = _unavailable(self.where, error)
            if word is not None:
                raise word from error


class Talk:
    """`with talk as link`: made once for many uses, since every turn of a worker is one."""

    __slots__ = ("_line", "_resumes")

    def __init__(self, line: Line, *, resumes: bool) -> None:
        self._line = line
        self._resumes = resumes

    def __enter__(self) -> Link:
        line = self._line
        line.lock.acquire()
        link = line.link
        if link is not None and link.parked is None and link.held:
            return link  # in step, as a worker's is at nearly every turn
        return line.begin(resumes=self._resumes)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._line.lock.release()
        else:
            self._line.end(error)


def _unavailable(where: str, error: Exception) -> QueueUnavailable | None:
    """Return our word for what went wrong on a connection; None for what is no failure of it."""
    match error:
        case greenstalk.DrainingError():
            text = "it drains: it takes no new jobs until it is restarted"
        case greenstalk.OutOfMemoryError():
            text = "it is out of memory, or the disk of its log is full"
        case greenstalk.UnknownResponseError():
            said = b" ".join([error.status, *error.values])[:80].decode("utf-8", "backslashreplace")
            text = f"it answers {said!r}: another program listens there, or replies are mixed up"
        case greenstalk.Error():
            text = f"it answers {type(error).__name__.removesuffix('Error')}"
        case ConnectionRefusedError():
            text = "nothing listens there"
        case TimeoutError() | OutOfStep() | OSError():
            text = str(error) or type(error).__name__
        case AssertionError() | ValueError() | KeyError() | TypeError():
            text = "a reply was cut off, or is none of beanstalkd's"
        case _:
            return None
    return QueueUnavailable(f"beanstalkd at {where}: {text}")


def _keeps_step(error: BaseException) -> bool:
    """Tell whether the connection is usable after an error: the server said a whole sentence."""
    return isinstance(error, greenstalk.DrainingError | greenstalk.OutOfMemoryError)
