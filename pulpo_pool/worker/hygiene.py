"""Hygiene: puts back what handlers closed, blocked, replaced or left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pulpo_pool.signals import handler_of, set_handler, set_mask
from pulpo_pool.stacks import STACK_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from pulpo_pool.stacks import StackFile

_PRIVATE_FD: Final = 100  # out of the way of handlers that close what they did not open
_NO_READING: Final = getattr(os, "O_PATH", os.O_RDONLY)  # a directory may be closed to readers


class Hygiene:
    """Knows how this process started out, and brings it back there between jobs."""

    def __init__(
        self,
        signals: Mapping[signal.Signals, Callable[[int, FrameType | None], None]],
        wakeup_end: int,
        stacks: StackFile | None = None,
    ) -> None:
        self._signals = signals
        self._wakeup_end = wakeup_end
        self._stacks = stacks
        self._copies = [_copy_of(fd) for fd in (1, 2)]
        self._home = _copy_of_directory()
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._has_worked = True  # since the signals were looked at

    def tidy_signals(self) -> None:
        """Take back the signals of the pool, and their wake-up. Done only before waiting: 20 us.

        Nothing is done for a worker that has only waited since: none but a job can have them.
        """
        if not self._has_worked:
            return
        self._has_worked = False
        signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        for number, handler in self._signals.items():
            if handler_of(number) is not handler:
                set_handler(number, handler)
        if self._stacks is not None:
            self._stacks.keep_ready()
        set_mask(signal.SIG_UNBLOCK, (*self._signals, STACK_SIGNAL))

    def tidy_up(self) -> None:
        """Undo what would reach the next job: directory, umask, alarm and streams. 2 us a job."""
        self._has_worked = True
        signal.alarm(0)  # the timer of setitimer, too: it would end somebody else's job
        os.umask(self._umask)
        try:
            if self._home is not None:
                os.fchdir(self._home)
        except OSError:
            pass
        try:
            # What the descriptor is does not matter: a closed one raises.
            if not (sys.stdout.closed or sys.stderr.closed):
                os.get_inheritable(1)
                os.get_inheritable(2)
                return
        except Exception:  # noqa: BLE001, S110 - None, gone, closed, or an object that is no file
            pass
        self._reopen_streams()

    def _reopen_streams(self) -> None:
        for fd, name, copy in zip((1, 2), ("stdout", "stderr"), self._copies, strict=True):
            if copy is None:
                continue
            if not _is_open(fd):
                os.dup2(copy, fd)
            stream: object = getattr(sys, name, None)
            if not hasattr(stream, "write") or getattr(stream, "closed", False):
                stream = open(fd, "w", closefd=False, errors="replace")  # noqa: SIM115 - it stays
                setattr(sys, name, stream)


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _copy_of(fd: int) -> int | None:
    with suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _PRIVATE_FD)
    with suppress(OSError):  # the limit of descriptors is low
        return os.dup(fd)
    return None


def _copy_of_directory() -> int | None:
    try:
        directory = os.open(".", _NO_READING | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    copy = _copy_of(directory)
    os.close(directory)
    return copy
