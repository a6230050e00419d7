"""A memory cgroup for a test, of either version, where this machine lets one be made."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from pool import eventually

PLACES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),  # version 1
    (Path("/sys/fs/cgroup"), "memory.max"),  # version 2
)
ENTER = "import os, sys; open(sys.argv[1], 'w').write('0'); os.execv(sys.argv[2], sys.argv[2:])"


@contextmanager
def memory_group(limit):
    """Yield the prefix of a command that shall have `limit` bytes; None where that cannot be."""
    group = _made(limit)
    if group is None:
        yield None
        return
    try:
        yield (sys.executable, "-c", ENTER, str(group / "cgroup.procs"))
    finally:
        eventually(lambda: _removed(group), what=f"{group} is empty")


def _made(limit):
    for place, name in PLACES:
        group = place / f"pulpo-pool-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            # Opened as it is: a regular file must not appear where the controller is missing.
            with (group / name).open("r+") as file:
                file.write(str(limit))
        except OSError:
            group.rmdir()
            continue
        return group
    return None


def _removed(group):
    with suppress(OSError):
        group.rmdir()
    return not group.exists()
