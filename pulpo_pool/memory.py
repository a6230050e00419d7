"""Memory: how much of it is a process's own, as sizes are written by people and read back."""

from __future__ import annotations

import re
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNIT_STEP: Final = 1_000  # "200M" are 200,000,000 bytes, "200MiB" 209,715,200
_BINARY_STEP: Final = 1_024
_OWN: Final = (b"Private_Clean:", b"Private_Dirty:")
_SHARE: Final = b"Pss:"


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """How much memory a process has for itself, and with its part of what it shares, in bytes."""

    private: int  # USS
    proportional: int | None  # PSS; None where the system does not tell


def memory_parts(pid: int | None = None) -> MemoryParts | None:
    """Return what the kernel says of a process's pages; None if nobody can say.

    The kernel walks the page tables for it: 0.5 ms for a small process, 30 ms for a gigabyte.
    """
    try:
        rollup = Path(f"/proc/{pid or 'self'}/smaps_rollup").read_bytes()
    except OSError:
        return _by_psutil(pid)
    sizes = {line.split()[0]: line for line in rollup.splitlines()[1:]}
    private = sum(_kilobytes(sizes[name]) for name in _OWN)
    return MemoryParts(private, _kilobytes(sizes[_SHARE]))


def _kilobytes(line: bytes) -> int:
    return int(line.split()[1]) * 1024


def private_memory(pid: int | None = None) -> int | None:
    """Return the bytes that would be free if this process ended (USS); None if nobody can say.

    Not the resident set, which counts the pages that all workers share with their template.
    """
    parts = memory_parts(pid)
    return parts.private if parts else None


def private_memory_over(limit: float, pid: int | None = None) -> int:
    """Return the private bytes of a process if they are more than the limit; 0 if not.

    Looks first at the resident set, which is never smaller: 10 us.
    """
    with suppress(OSError, ValueError, IndexError):
        resident = int(Path(f"/proc/{pid or 'self'}/statm").read_bytes().split()[1])
        if resident * resource.getpagesize() <= limit:
            return 0
    size = private_memory(pid) or 0
    return size if size > limit else 0


def parse_size(text: str) -> int:
    """Return the bytes in "200M" (a million each), "1GiB" or "4096"; raise ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    number, unit, binary = found.groups()
    if binary and not unit:
        raise ValueError(text)
    step = _BINARY_STEP if binary else _UNIT_STEP
    return int(float(number) * step ** _POWERS[unit.lower()])


def size_text(size: int) -> str:
    """Return bytes as people read them, such as "200 MB"."""
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if size >= _UNIT_STEP**power:
            return f"{size / _UNIT_STEP**power:.3g} {unit}"
    return f"{size} bytes"


def _by_psutil(pid: int | None) -> MemoryParts | None:
    """Ask where there is no such file: macOS, kernels before 4.14, some sandboxes."""
    import psutil

    with suppress(psutil.Error, OSError, AttributeError, NotImplementedError):
        full = psutil.Process(pid).memory_full_info()
        return MemoryParts(int(full.uss), getattr(full, "pss", None))
    return None
