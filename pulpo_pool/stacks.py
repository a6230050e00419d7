"""Stacks: on SIGUSR2 a process writes where all its threads are, to a file of its own.

It does the same as its last act when a fault in C code ends it. It is faulthandler's C code that
writes, so also a process that never returns to Python shows it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
from contextlib import suppress
from typing import Final

from pulpo_pool.signals import handler_of, set_handler
from pulpo_pool.states import Role

STACK_SIGNAL: Final = signal.SIGUSR2
FAULTS: Final = frozenset(
    (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)
)  # after which the file ends with FAULT_TITLE and the stacks
FAULT_TITLE: Final = "Fatal Python error"
_PRIVATE_FD: Final = 100  # out of the way of handlers that close what they did not open


def stack_name(role: Role, slot: int) -> str:
    """Return what a slot's file is called."""
    return f"{slot}.txt" if role is Role.WORKER else f"{role.name.lower()}-{slot}.txt"


def fault_of(wait_status: int) -> int | None:
    """Return the signal of a fault, of a process that ended by one; None for any other end."""
    number = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else None
    return number if number in FAULTS else None


class StackFile:
    """The file of this process, kept open: there may be no descriptor left when it is needed.

    Without a file the signal does nothing; a pool works on a full disk, too.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        # What a parent registered must not write to its number, which is another file's by now.
        faulthandler.unregister(STACK_SIGNAL)
        faulthandler.disable()
        set_handler(STACK_SIGNAL, _nothing)
        self._open()
        self._register()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child must close."""
        return (self._fd,) if self._identity is not None else ()

    def keep_ready(self) -> None:
        """Take back the file and the signal if somebody closed or replaced them. Costs 2 us."""
        if self._identity is None or _identity_of(self._fd) != self._identity:
            self._open()
        if handler_of(STACK_SIGNAL) is not _nothing:
            faulthandler.unregister(STACK_SIGNAL)
            set_handler(STACK_SIGNAL, _nothing)
        self._register()

    def _open(self) -> None:
        self._identity = None
        if self._path is None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        with suppress(OSError):
            low = os.open(self._path, flags, 0o600)
            try:
                self._fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _PRIVATE_FD)
            finally:
                os.close(low)
            self._identity = _identity_of(self._fd)

    def _register(self) -> None:
        if self._identity is None:
            faulthandler.unregister(STACK_SIGNAL)
            faulthandler.disable()
        else:
            faulthandler.register(STACK_SIGNAL, self._fd, all_threads=True, chain=False)
            faulthandler.enable(self._fd, all_threads=True)


def _identity_of(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _nothing(_number: int, _frame: object) -> None:
    """Stand behind faulthandler: the signal must never end a process."""
