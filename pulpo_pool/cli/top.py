"""`pulpo-pool top`: a pool at work, live, over its control socket alone."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from pulpo_pool.cli.control_client import CommandRefused, ask
from pulpo_pool.cli.options import examples, pool_address, pool_options
from pulpo_pool.cli.terminal import is_terminal, keyboard
from pulpo_pool.errors import ExitCode, PoolNotRunning

if TYPE_CHECKING:
    from pulpo_pool.cli.terminal import Keys
    from pulpo_pool.cli.top_view import Snapshot
    from pulpo_pool.settings import Settings


@click.command(epilog=examples("pulpo-pool top", "pulpo-pool top --interval 5 | tee pool.log"))
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3_600),
    default=1.0,
    metavar="SECONDS",
    help="Seconds between two looks.  [default: 1]",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after so many looks.")
@pool_options
def top(*, interval: float, count: int | None, **flags: Any) -> ExitCode:
    """Watch the pool and its workers; keys pause, scale and recycle them.

    Where there is no terminal, it prints a line for each look.
    """
    watch = Watch(pool_address(flags), interval, count)
    if is_terminal():
        with suppress(KeyboardInterrupt), keyboard() as keys:
            watch.live(keys)
    else:
        watch.lines()
    return ExitCode.CLEAN


class Watch:
    """Looks at one pool, again and again."""

    def __init__(self, settings: Settings, interval: float, count: int | None) -> None:
        self._settings = settings
        self._interval = interval
        self._left = count
        self._snapshot: Snapshot | None = None
        self._selected: int | None = None
        self._said = ""

    def lines(self) -> None:
        """Print a line for each look, until there were enough or the pool is gone."""
        from pulpo_pool.cli.top_view import plain_line

        while True:
            click.echo(plain_line(self._look()))
            if self._is_enough():
                return
            time.sleep(self._interval)

    def live(self, keys: Keys) -> None:
        """Show the pool on a screen of its own, and do what keys say, until `q`."""
        from rich.console import Console
        from rich.live import Live

        from pulpo_pool.cli.top_view import screen

        console = Console(highlight=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            snapshot, due = self._look(), time.monotonic() + self._interval
            while True:
                shown = screen(snapshot, self._selected, self._said, console.height)
                live.update(shown, refresh=True)
                try:
                    pressed = keys.wait(due - time.monotonic())
                except EOFError:
                    return
                if "q" in pressed:
                    return
                acted = True in [self._press(key) for key in pressed]
                if acted or time.monotonic() >= due:
                    if not acted and self._is_enough():
                        return
                    snapshot, due = self._look(), time.monotonic() + self._interval

    def _is_enough(self) -> bool:
        if self._left is not None:
            self._left -= 1
        return self._left == 0

    def _look(self) -> Snapshot:
        from pulpo_pool.cli.top_view import Snapshot

        before = self._snapshot
        try:
            status = ask(self._settings, "status")
        except PoolNotRunning as error:
            if before is None:
                raise
            raise PoolNotRunning(f"the pool {self._settings.name!r} has ended") from error
        self._snapshot = Snapshot.of(status, time.monotonic(), before, self._interval / 2)
        return self._snapshot

    # -- keys ---------------------------------------------------------------------------------

    def _press(self, key: str) -> bool:
        """Do what a key means; tell whether the pool was asked for something."""
        assert self._snapshot is not None
        match key:
            case "p":
                resting = self._snapshot.master["state"] in ("paused", "quiet")
                self._ask("resume" if resting else "pause")
            case "+" | "=":
                self._ask("scale", "+1")
            case "-":
                self._ask("scale", "-1")
            case "r":
                self._ask("recycle", "" if self._selected is None else str(self._selected))
            case "up" | "k":
                self._select(-1)
                return False
            case "down" | "j":
                self._select(+1)
                return False
            case _:
                return False
        return True

    def _ask(self, command: str, argument: str = "") -> None:
        try:
            answer = ask(self._settings, command, argument)
        except CommandRefused as refusal:
            self._said = str(refusal)
            return
        what = ", ".join(f"{key} {_words(value)}" for key, value in answer.items())
        self._said = f"{command}: {what}"

    def _select(self, step: int) -> None:
        """Move the selection; above the first worker there is none, which means all."""
        assert self._snapshot is not None
        self._said = ""
        slots = [worker["slot"] for worker in self._snapshot.workers]
        here = slots.index(self._selected) if self._selected in slots else -1
        place = min(here + step, len(slots) - 1)
        self._selected = slots[place] if place >= 0 else None


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
