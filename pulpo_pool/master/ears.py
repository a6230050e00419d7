"""Ears: signals are kept from the first breath on, until the master's loop hears them.

Imports next to nothing: as PID 1 of a container a program without a handler never hears a TERM,
so this is loaded before all else.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

from pulpo_pool.master.wires import Pipe

if TYPE_CHECKING:
    from collections.abc import Iterable

INIT: Final = 1  # the pid to which the kernel sends no signal that has no handler: kill(2)
_ENDING: Final = (signal.SIGTERM, signal.SIGQUIT)


def ears_of_init() -> Pipe | None:
    """Begin to keep the signals that end a pool, if this process is PID 1.

    Elsewhere the default action is right until there is something to tidy up.
    """
    if os.getpid() != INIT:
        return None
    ears = Pipe.laid()
    keep(ears, _ENDING)
    return ears


def keep(ears: Pipe, numbers: Iterable[signal.Signals]) -> None:
    """Let the kernel write these signals' numbers into the pipe from now on."""
    signal.set_wakeup_fd(ears.writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _noted)


def shut(numbers: Iterable[signal.Signals]) -> None:
    """Hear these signals no more, now that the pool has ended and this process is about to.

    Python gives signals their default action back before it leaves: a platform that repeats its
    TERM until nobody is there would end a clean pool with another exit code.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _noted(_number: int, _frame: object) -> None:
    """The pipe has been written already; the loop acts."""
