"""A keyboard for a live view: keys without Enter, and the terminal as it was at the end."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

# What terminals send for keys that are no character (xterm, VT100 in both cursor modes).
_ESCAPES: Final = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}
_AT_ONCE: Final = 1_024  # bytes


def is_terminal() -> bool:
    """Tell whether a person sits at both ends."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


class Keys:
    """The keyboard, one key at a time; a change of the window's size counts as one, "resize"."""

    def __init__(self, keyboard: int, resized: int) -> None:
        self._keyboard = keyboard
        self._resized = resized

    def wait(self, seconds: float) -> list[str]:
        """Return keys as soon as there are some; raise EOFError when the terminal is gone."""
        ready, _, _ = select.select([self._keyboard, self._resized], [], [], max(0.0, seconds))
        keys = []
        if self._resized in ready:
            os.read(self._resized, _AT_ONCE)
            keys.append("resize")
        if self._keyboard in ready:
            keys += _split(self._read())
        return keys

    def _read(self) -> bytes:
        try:
            pressed = os.read(self._keyboard, _AT_ONCE)
        except OSError:  # the terminal was closed
            pressed = b""
        if not pressed:
            raise EOFError
        return pressed


@contextmanager
def keyboard() -> Iterator[Keys]:
    """Hand out keys as they are pressed, until the block is left in whatever way.

    TERM and HUP leave it as Ctrl-C does, and end the program with what a shell expects.
    """
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    resized, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers: dict[int, Any] = {
        signal.SIGWINCH: _noted,
        signal.SIGTSTP: _noted,  # a shell would come back to a screen that is not its own
        signal.SIGINT: signal.default_int_handler,  # whoever started us may ignore it
        signal.SIGTERM: _leave,
        signal.SIGHUP: _leave,
    }
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        tty.setcbreak(fd)
        yield Keys(fd, resized)
    finally:
        with suppress(termios.error):  # the terminal is gone, and its state with it
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.set_wakeup_fd(wakeup)
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(resized)
        os.close(writer)


def _noted(_number: int, _frame: object) -> None:
    """The wake-up descriptor has been written already."""


def _leave(number: int, _frame: object) -> NoReturn:
    raise click.exceptions.Exit(128 + number)


def _split(pressed: bytes) -> list[str]:
    keys = []
    while pressed:
        escape = next((each for each in _ESCAPES if pressed.startswith(each)), None)
        if escape is not None:
            keys.append(_ESCAPES[escape])
            pressed = pressed[len(escape) :]
        else:
            keys.append(chr(pressed[0]))
            pressed = pressed[1:]
    return keys
