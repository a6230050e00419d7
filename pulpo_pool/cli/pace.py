"""Doing many things at a rate, and stopping between two of them when somebody says so."""

from __future__ import annotations

import math
import os
import re
import select
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import click

from pulpo_pool.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pulpo_pool.clock import Clock

Command = TypeVar("Command", bound="Callable[..., object]")

AT_ONCE: Final = 500  # of what has no rate: between two of these it can be stopped
_ROUNDING: Final = 1e-9  # of a thing: who waited until one was allowed shall not wait again
_BURST: Final = 0.1  # seconds' worth that may be made up for after a pause
_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(?:/(s|sec|m|min|h|hour))?")
_SECONDS: Final = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3_600, "hour": 3_600}


def rate_option(command: Command) -> Command:
    """Give a command --rate, as how many a second; None without it."""
    return click.option(
        "--rate",
        metavar="N/s",
        callback=lambda _ctx, _param, text: None if text is None else parse_rate(text),
        help="At most so many a second (50/s), a minute (100/min) or an hour (600/h).",
    )(command)


def parse_rate(text: str) -> float:
    """Return how many a second; raise click.BadParameter for what is no rate, or none above 0."""
    found = _RATE.fullmatch(text)
    rate = float(found[1]) / _SECONDS[found[2] or "s"] if found else 0.0
    if rate <= 0:
        raise click.BadParameter(f"expected a rate above 0, such as 50/s or 100/min, got {text!r}")
    return rate


@dataclass(slots=True)
class Pace:
    """How many may be done now, and how long to wait for the next; `rate` None is without limit.

    A pause, in which others kept the queue or the machine slept, is not made up for.
    """

    rate: float | None
    clock: Clock = field(default_factory=SystemClock)
    _allowed: float = 1.0
    _counted_at: float = -math.inf

    def allowed(self) -> int:
        """Return how many may be done at this moment; they count as done."""
        if self.rate is None:
            return AT_ONCE
        now = self.clock.monotonic()
        most = max(1.0, self.rate * _BURST)
        if self._counted_at > -math.inf:
            self._allowed = min(most, self._allowed + (now - self._counted_at) * self.rate)
        self._counted_at = now
        whole = min(int(self._allowed + _ROUNDING), AT_ONCE)
        self._allowed -= whole
        return whole

    def wait(self) -> float:
        """Return the seconds until one more is allowed."""
        if self.rate is None:
            return 0.0
        return max(0.0, (1.0 - self._allowed) / self.rate)


class Brake:
    """Whether somebody has asked to stop, and waiting that ends when somebody does."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self.pulled_by: int | None = None  # the signal's number

    def wait(self, seconds: float) -> None:
        """Wait, unless somebody asks to stop."""
        if self.pulled_by is None:
            select.select([self._reader], [], [], seconds)

    def pull(self, number: int, _frame: object) -> None:
        """Ask to stop; who asks twice is not made to wait for what is under way."""
        self.pulled_by = number
        signal.signal(number, signal.default_int_handler)
        os.write(self._writer, b"!")


@contextmanager
def brake() -> Iterator[Brake]:
    """Turn INT and TERM into a wish to stop, until the block is left.

    A signal that is ignored stays so: a shell does that to what runs in the background.
    """
    reader, writer = os.pipe()
    pedal = Brake(reader, writer)
    old = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                old[number] = signal.signal(number, pedal.pull)
    try:
        yield pedal
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
