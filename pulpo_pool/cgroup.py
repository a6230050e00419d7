"""Cgroup: what a container may use, and whether the kernel killed in it for want of memory.

Both versions of cgroups(7) are read. A container may see its own path or its host's, so a file
is looked for in the group's directory and in all above it; what cannot be read says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_V2: Final = ""  # what /proc/self/cgroup names as the controllers of the second version
_NO_LIMIT: Final = 2**60  # bytes; the first version writes "none" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The groups of this process; the paths are other ones only in tests."""

    membership: Path = Path("/proc/self/cgroup")
    mounted: Path = Path("/sys/fs/cgroup")

    def cpus(self) -> int | None:
        """Return the CPU quota, rounded up to whole CPUs; None without one.

        The groups above have quotas too, and the smallest one holds.
        """
        quotas = [
            quota
            for directory in self._directories("cpu")
            if (quota := _quota_v2(directory) or _quota_v1(directory)) is not None
        ]
        return max(1, math.ceil(min(quotas))) if quotas else None

    def memory(self) -> int | None:
        """Return the bytes that the group may use, the smallest limit above it; None without."""
        return self._smallest("memory", ("memory.max", "memory.limit_in_bytes"))

    def processes(self) -> int | None:
        """Return how many processes and threads there may be; None without a limit."""
        return self._smallest("pids", ("pids.max",))

    def _smallest(self, controller: str, names: tuple[str, ...]) -> int | None:
        found = [
            int(text)
            for directory in self._directories(controller)
            for name in names
            if (text := _read(directory / name).strip()).isdigit()
        ]
        limit = min(found, default=_NO_LIMIT)
        return None if limit >= _NO_LIMIT else limit

    def oom_kills(self) -> int | None:
        """Return how many processes of this group the kernel has killed for want of memory."""
        for directory in self._directories("memory"):
            for name in ("memory.events", "memory.oom_control"):
                for line in _read(directory / name).splitlines():
                    word, _, number = line.partition(" ")
                    if word == "oom_kill" and number.isdigit():
                        return int(number)
        return None

    def _directories(self, controller: str) -> Iterator[Path]:
        """Yield where files of this controller may be, from the group's own directory upwards."""
        for line in _read(self.membership).splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers == _V2:
                mounts = [self.mounted]
            elif controller in controllers.split(","):
                mounts = [self.mounted / controller, self.mounted / controllers]
            else:
                continue
            for mount in dict.fromkeys(mounts):
                group = mount / path.strip("/")
                yield group
                yield from (above for above in group.parents if above.is_relative_to(mount))


def _quota_v2(directory: Path) -> float | None:
    limit, _, period = _read(directory / "cpu.max").strip().partition(" ")
    return _ratio(limit, period)


def _quota_v1(directory: Path) -> float | None:
    limit = _read(directory / "cpu.cfs_quota_us").strip()
    return _ratio(limit, _read(directory / "cpu.cfs_period_us").strip())


def _ratio(limit: str, period: str) -> float | None:
    """Return limit by period; None where there is no limit ("max", or -1)."""
    if not (limit.isdigit() and period.isdigit()) or int(period) == 0:
        return None
    return int(limit) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
