"""How fast kicks go, and how rates and times are written."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpo_pool.cli.filters import moment
from pulpo_pool.cli.pace import AT_ONCE, Pace, parse_rate
from pulpo_pool.clock import ManualClock

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50/s", 50),
        ("50", 50),
        ("100/min", 100 / 60),
        ("90/m", 1.5),
        ("1.5/s", 1.5),
        ("36/h", 0.01),
    ],
)
def test_rates(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "0/s", "0.0", "-5/s", "fast", "5/d", "5 /s", "1e9", "٣/s"])
def test_what_is_no_rate(text):
    with pytest.raises(click.BadParameter, match="expected a rate above 0"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", NOW - 5_400),
        ("2h", NOW - 7_200),
        ("1d12h", NOW - 129_600),
        ("1w", NOW - 604_800),
        ("2026-05-31", datetime(2026, 5, 31, tzinfo=UTC).timestamp()),
        ("2026-05-31T14:00Z", datetime(2026, 5, 31, 14, tzinfo=UTC).timestamp()),
        ("2026-05-31 14:00+02:00", datetime(2026, 5, 31, 12, tzinfo=UTC).timestamp()),
    ],
)
def test_moments(text, seconds):
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "2", "2x", "h", "-2h", "yesterday", "2h ago", "99-99-99"])
def test_what_is_no_moment(text):
    with pytest.raises(ValueError):
        moment(text, NOW)


def done_in(pace, clock, seconds, step):
    """Return how many are done, and when, by somebody who comes every `step` seconds or later."""
    done, end = 0, clock.monotonic() + seconds
    while clock.monotonic() < end:
        done += pace.allowed()
        clock.advance(max(step, pace.wait()))
    return done


@settings(deadline=None, derandomize=True)
@given(rate=st.floats(0.01, 2_000), step=st.floats(0.001, 0.09))
def test_a_rate_is_kept_and_not_exceeded(rate, step):
    clock = ManualClock()
    seconds = 20 / rate
    done = done_in(Pace(rate, clock), clock, seconds, min(step, 1 / rate))

    assert 19 <= done <= 21 + rate * 0.1


@pytest.mark.parametrize(("rate", "step"), [(1.5, 0.08), (5.849753707263284, 0.075651293673143)])
def test_a_wait_that_was_rounded_down_costs_no_second_one(rate, step):
    """Whoever came a billionth too early had to come again, up to a third of the rate lost."""
    clock = ManualClock()

    assert done_in(Pace(rate, clock), clock, 20 / rate, step) >= 19


def test_a_pause_is_not_made_up_for():
    """The machine slept: what comes after it is no burst."""
    clock = ManualClock()
    pace = Pace(50.0, clock)
    pace.allowed()
    clock.advance(3_600)

    assert pace.allowed() == 5
    assert pace.wait() == pytest.approx(0.02)


def test_without_a_rate_nothing_waits():
    assert (Pace(None).allowed(), Pace(None).wait()) == (AT_ONCE, 0.0)
