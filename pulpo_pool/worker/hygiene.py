"""Hygiene: puts back what handlers closed, blocked or replaced."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pulpo_pool.stacks import STACK_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from pulpo_pool.stacks import StackFile


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
        self._directory = Path.cwd()
        self._copies = [_copy_of(fd) for fd in (1, 2)]

    def tidy_signals(self) -> None:
        """Take back the signals of the pool, and their wake-up. Done only before waiting: 5 us."""
        signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        for number, handler in self._signals.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if self._stacks is not None:
            self._stacks.keep_ready()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*self._signals, STACK_SIGNAL))

    def tidy_directory(self) -> None:
        """Go back to where the worker started; a handler's chdir must not reach the next job."""
        with suppress(OSError):
            os.chdir(self._directory)

    def tidy_streams(self) -> None:
        """Reopen standard output and error if a handler closed them. Costs 0.1 us a job."""
        if not sys.stdout.closed and not sys.stderr.closed:
            return
        for fd, name, copy in zip((1, 2), ("stdout", "stderr"), self._copies, strict=True):
            if getattr(sys, name).closed and copy is not None:
                os.dup2(copy, fd)
                stream = open(fd, "w", closefd=False, errors="replace")  # noqa: SIM115 - it stays
                setattr(sys, name, stream)


def _copy_of(fd: int) -> int | None:
    with suppress(OSError):
        return os.dup(fd)
    return None
