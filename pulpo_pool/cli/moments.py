"""Moments and spans of time in words, for people."""

from __future__ import annotations

from datetime import UTC, datetime


def date(at: float) -> str:
    """Return a date of UTC; `at` is Unix seconds, and may be no date at all."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%F %TZ}"
    except (OverflowError, OSError, ValueError):
        return f"Unix second {at:g}"


def moment(at: float, now: float) -> str:
    """Return a date, and how far it is from now."""
    gap = now - at
    return f"{date(at)} ({span(abs(gap))} {'ago' if gap >= 0 else 'from now'})"


def until(due: float | None, now: float) -> str:
    """Return when something that lies ahead is due."""
    if due is None:
        return "at a time that is not known"
    return f"at {date(due)} (in {span(max(0.0, due - now))})"


def span(seconds: float) -> str:
    """Return a length of time in the largest unit that fits."""
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"
