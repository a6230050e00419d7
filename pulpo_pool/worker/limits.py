"""The soft time limit: an exception inside the handler, and nowhere else."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, TypeVar

from pulpo_pool.app.results import SoftTimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def run_within(seconds: float, call: Callable[[], T]) -> T:
    """Return what `call` returns; raise SoftTimeLimit inside it once the seconds are over.

    Code that does not return to Python is not interrupted: the hard limit is for that. Outside
    the main thread, as in a test, there is no alarm and so no limit. Costs 4 us a job.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    armed = True

    def ring(_number: int, _frame: object) -> None:
        if armed:
            raise SoftTimeLimit(seconds)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return call()
    finally:
        armed = False  # from here on an alarm comes too late to matter
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
