"""Options that say which jobs are meant, the same for every command that takes them."""

from __future__ import annotations

import re
import string
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from pulpo_pool.cli.options import queue_filter
from pulpo_pool.fingerprint import LENGTH
from pulpo_pool.queues.letters import JobFilter

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., object]")

_SHORTEST_FINGERPRINT: Final = 4  # digits: less is a slip of the hand, and meets by chance
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGE: Final = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_PART: Final = re.compile(r"([0-9]+)([smhdw])")


def filter_options(command: Command) -> Command:
    """Give a command -q and what narrows jobs down, as the parameters that `job_filter` takes."""
    for option in reversed(
        (
            click.option(
                "--request-type",
                multiple=True,
                metavar="T",
                help="Only jobs of this request_type; repeatable.",
            ),
            click.option(
                "--since",
                metavar="WHEN",
                callback=_since,
                help="Only jobs whose last failure is not older than this: 90m, 2h, 1d12h, or an "
                "ISO 8601 time, in UTC unless it says otherwise. Of a job without a history the "
                "time of publishing counts, of a done one its end; one without is left out.",
            ),
            click.option(
                "--error",
                metavar="TEXT",
                default="",
                help="Only jobs with this in the reason or text of the last error, in any case.",
            ),
            click.option(
                "--fingerprint",
                metavar="F",
                default="",
                callback=_fingerprint,
                help="Only jobs whose last error has this fingerprint, as `list --group` shows "
                f"it; the first {_SHORTEST_FINGERPRINT} digits are enough.",
            ),
        )
    ):
        command = option(command)
    return queue_filter(command)


def done_option(command: Command) -> Command:
    """Give a command --done, as the parameter `done`."""
    return click.option(
        "--done",
        is_flag=True,
        help="Jobs that are done and kept (`keep_done` in the broker's URL), the last one first.",
    )(command)


def limit_option(command: Command) -> Command:
    """Give a command --limit, as the parameter `limit`; None without it."""
    return click.option(
        "--limit", type=click.IntRange(min=0), metavar="N", help="At most so many, from the front."
    )(command)


def job_filter(options: dict[str, Any]) -> JobFilter:
    """Take the filter's options out of a command's; return the filter."""
    return JobFilter(
        queues=options.pop("queue"),
        request_types=options.pop("request_type"),
        since=options.pop("since"),
        error=options.pop("error"),
        fingerprint=options.pop("fingerprint"),
    )


def moment(text: str, now: float) -> float:
    """Return the Unix seconds that "2h" ago or an ISO 8601 time means; raise ValueError."""
    if _AGE.fullmatch(text):
        return now - sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    date = datetime.fromisoformat(text)
    return (date.replace(tzinfo=UTC) if date.tzinfo is None else date).timestamp()


def _since(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return moment(text, time.time())
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"expected an age, such as 90m, 2h or 1d12h, or a time, such as "
            f"2026-05-31T14:00Z, got {text!r}"
        ) from None


def _fingerprint(_: click.Context, __: click.Parameter, text: str) -> str:
    text = text.lower()
    sound = _SHORTEST_FINGERPRINT <= len(text) <= LENGTH and set(text) <= set(string.hexdigits)
    if text and not sound:
        raise click.BadParameter(
            f"expected {_SHORTEST_FINGERPRINT} to {LENGTH} of the digits 0-9 and a-f, got {text!r}"
        )
    return text
