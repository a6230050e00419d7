"""The doctor looks at the machine: its clock, and what is installed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Final

from pulpo_pool import __version__
from pulpo_pool.cli.findings import ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pulpo_pool.cli.findings import Finding
    from pulpo_pool.clock import Clock

_EARLIEST: Final = 1_767_225_600  # 2026-01-01: before this program was written
_LOOKS: Final = 5
_BETWEEN_LOOKS: Final = 0.02  # seconds
_STEP: Final = 0.5  # seconds; slewing after NTP moves a clock by 0.5 ms a second


def clock(machine: Clock, sleep: Callable[[float], None]) -> Iterator[Finding]:
    """See whether the wall clock has a sane date, and goes as the one that only grows."""
    offsets = []
    for _ in range(_LOOKS):
        offsets.append(_offset(machine))
        sleep(_BETWEEN_LOOKS)
    jump = max(offsets) - min(offsets)
    now = machine.now()
    if now < _EARLIEST:
        said = f"it is {now:.0f} s since 1970, which is before this program was written"
        yield problem("clock", said, "set it: delays and expirations are dates", now=now)
    elif jump > _STEP:
        said = f"the wall clock jumped by {jump:.1f} s while it was looked at"
        advice = "let NTP slew it: a jump makes delayed jobs early or late"
        yield warning("clock", said, advice, now=now, jump=jump)
    else:
        yield ok("clock", "the wall clock goes as the monotonic one", now=now, jump=jump)


def _offset(machine: Clock) -> float:
    """Return wall minus monotonic time, from the look that was least disturbed."""
    looks = []
    for _ in range(_LOOKS):
        before = machine.monotonic()
        wall = machine.now()
        after = machine.monotonic()
        looks.append((after - before, wall - (before + after) / 2))
    return min(looks)[1]


def versions() -> Iterator[Finding]:
    """Tell what is installed."""
    found = {"pulpo-pool": __version__, "python": platform.python_version()}
    found["kernel"] = f"{platform.system()} {platform.release()}"
    missing = []
    for requirement in requires("pulpo-pool") or ():
        name, _, condition = requirement.partition(";")
        if "extra" in condition:
            continue
        name = _package(name)
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    said = ", ".join(f"{name} {number}" for name, number in found.items())
    if missing:
        advice = "install pulpo-pool again: pip install --force-reinstall pulpo-pool"
        yield problem("versions", f"{said}; missing: {', '.join(missing)}", advice, **found)
    else:
        yield ok("versions", said, **found)


def _package(requirement: str) -> str:
    """Return the name in "click>=8.1"."""
    name = requirement.strip()
    for index, char in enumerate(name):
        if not (char.isalnum() or char in "-_."):
            return name[:index]
    return name
