"""Heap: makes it ready for many forks. Each page that a fork writes to is a copy of its own.

What a fork allocates would go into free places between the parent's objects. A connection to
SQLite took 1.4 MB of a worker for its 120 KB. Without holes it gets pages of its own, one after
the other: malloc's chunks, and the pools of small objects, of which each fork begins a new one.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_BYTES: Final = (*(32_768 >> shift for shift in range(5)), *range(1_024, 16, -16))
_SLACK: Final = 1_048_576  # bytes more than the holes seem to have: then something is odd
_COUNTS: Final = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                  "uordblks", "fordblks", "keepcost")  # fmt: skip
_POOL: Final = 16_384  # bytes; a pool of Python's own allocator has blocks of one size
_POOL_HEADER: Final = 48  # bytes
_IN_A_ROW: Final = 4  # blocks from a pool's first: it is new, since holes seldom come so
_SIZES: Final = range(16, 513, 16)  # bytes; what is larger is malloc's
_MOST_OF_A_SIZE: Final = 262_144  # bytes of holes; an app may leave any number, or use no pools


class _MallocInfo(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _COUNTS)


def ready_to_fork() -> None:
    """Have forks write to as few pages as can be; some 3 ms.

    With pandas, requests and SQLAlchemy a worker has 0.5 MB less of its own than with `fill_holes`
    alone. The pools without the names are worth nothing, the names without the pools 0.15.
    """
    if sys.version_info < (3, 12):
        # What is looked up in a class takes the place of another name in a cache, and that name's
        # count is in some page of the app's. Later Pythons seldom count names.
        sys._clear_type_cache()  # noqa: SLF001 - documented
    fill_holes()
    fill_pools()
    gc.freeze()  # the collector would write to every page; last, or forks collect what this made


def fill_pools() -> int:
    """Allocate every free block for good; return the bytes that this took: 0.3 MB, in 0.5 ms."""
    malloc = ctypes.pythonapi["PyObject_Malloc"]  # an object of its own: no other's types change
    malloc.restype = ctypes.c_void_p
    malloc.argtypes = [ctypes.c_size_t]
    taken = 0
    for size in _SIZES:
        most, following, in_a_row = taken + _MOST_OF_A_SIZE, 0, 0
        while taken < most and in_a_row < _IN_A_ROW:
            taken += size
            place: int = malloc(size) or 0
            is_first = place % _POOL == _POOL_HEADER
            in_a_row = 1 if is_first else in_a_row + 1 if in_a_row and place == following else 0
            following = place + size
    return taken


def fill_holes() -> int:
    """Allocate every hole for good; return the bytes that this took: 0.3 MB, in 2 ms.

    Does nothing without glibc 2.33. Whoever calls this is about to fork, and allocates little.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return 0
    libc.mallinfo2.restype = _MallocInfo
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    info = libc.mallinfo2()
    end = libc.sbrk(0) - info.keepcost  # from here on nothing is in use
    taken = 0
    for size in _BYTES:
        while (place := libc.malloc(size) or end) < end and taken < info.fordblks + _SLACK:
            taken += size
        libc.free(place if place != end else None)
    return taken
