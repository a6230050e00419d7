"""The doctor looks at the disk: the state directory, the embedded queue's, and who runs there."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool import __version__
from pulpo_pool.cli.control_client import ask
from pulpo_pool.cli.findings import ok, problem, warning
from pulpo_pool.errors import ConfigError, PoolNotRunning
from pulpo_pool.memory import size_text
from pulpo_pool.queues.file_place import mounted, refuse_network
from pulpo_pool.queues.opening import check_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.cli.findings import Finding
    from pulpo_pool.settings import Settings

# Metrics files are laid out when the pool starts, and jobs are accepted only on a disk with room.
_FULL: Final = 64 * 1_048_576
_TIGHT: Final = 1_073_741_824
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class Disks:
    """What is mounted here, and how much room there is."""

    def mounts(self) -> list[tuple[str, str]]:
        """Return mount points with their filesystem types."""
        return mounted()

    def free(self, place: Path) -> int:
        """Return the bytes that may be written to the filesystem of a directory."""
        return shutil.disk_usage(place).free


def state_directory(settings: Settings, disks: Disks) -> Iterator[Finding]:
    """Look at the state directory, and at the embedded queue's if that is elsewhere."""
    places = {Path(settings.state_dir).absolute(): "state-dir"}
    address = check_url(settings.broker_url)
    if address.scheme == "file":
        places.setdefault(Path(address.target).absolute().parent, "queue-dir")
    for place, subject in places.items():
        yield _directory(subject, place, disks)


def _directory(subject: str, place: Path, disks: Disks) -> Finding:
    there = next((each for each in (place, *place.parents) if each.exists()), Path("/"))
    another = "choose another with --state-dir, or mend this one"
    if not there.is_dir():
        return problem(subject, f"{there} is a file where a directory has to be", another)
    try:
        refuse_network(str(there), disks.mounts())
    except ConfigError as error:
        return problem(subject, str(error).partition(": ")[2], "use a disk of this machine")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        said = f"{there} cannot be written: {error.strerror}"
        return problem(subject, said, another)
    return _room_and_rights(subject, place, there, disks.free(there))


def _room_and_rights(subject: str, place: Path, there: Path, free: int) -> Finding:
    facts: dict[str, Any] = {
        "path": str(place),
        "exists": place == there,
        "free": shutil.disk_usage(there).free,
    }
    room = f"{size_text(facts['free'])} free"
    said = f"{place}: {room}" if facts["exists"] else f"{place} will be made: {room}"
    if free < _FULL:
        return problem(subject, said, "make room: nothing can be published", **facts)
    if free < _TIGHT:
        return warning(subject, said, "make room before the jobs need it", **facts)
    if not facts["exists"]:
        return ok(subject, said, **facts)
    found = place.stat()
    facts |= {"mode": f"{stat.S_IMODE(found.st_mode):o}", "uid": found.st_uid}
    if found.st_mode & _OTHERS_WRITE:
        said = f"{place} can be written by others (mode {facts['mode']})"
        advice = "they could steer the pool: chmod go-w"
        return warning(subject, said, advice, **facts)
    if found.st_uid != os.geteuid():
        said = f"{place} belongs to user {found.st_uid}, and you are {os.geteuid()}"
        advice = "a pool of yours leaves files there that its own user cannot open"
        return warning(subject, said, advice, **facts)
    return ok(subject, said, **facts)


def pool(settings: Settings) -> Iterator[Finding]:
    """Ask the pool, if one runs."""
    try:
        master = ask(settings, "status")["master"]
    except PoolNotRunning as error:
        if not isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
            yield problem("pool", str(error), "look at it with ps, and at its log")
            return
        yield ok("pool", f"none named {settings.name!r} runs from {settings.state_dir}")
        return
    said = f"{master['name']!r} is {master['state']}, pid {master['pid']}"
    facts: dict[str, Any] = {
        "pid": master["pid"],
        "state": master["state"],
        "version": master["version"],
    }
    if master["crash_looping"]:
        yield warning("pool", f"{said}, and its workers keep dying", "read its log", **facts)
    elif master["version"] != __version__:
        said += f", version {master['version']}, and {__version__} is installed"
        yield warning("pool", said, "start it again: a reload keeps the old master", **facts)
    else:
        yield ok("pool", said, **facts)
