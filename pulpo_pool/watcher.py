"""Watcher: sees that the app's files changed, and says so; the master then reloads.

A process of its own, for development: looking at thousands of files, perhaps on a slow disk, is
nothing that the master may wait for.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from pulpo_pool.log import count_lines_in, set_up_logging
from pulpo_pool.service import Service
from pulpo_pool.settings.sources import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.clock import Clock
    from pulpo_pool.seat import Seat
    from pulpo_pool.settings import Settings

logger = logging.getLogger(__name__)

LOOK: Final = 0.5  # seconds between two looks
MOST_ENTRIES: Final = 20_000  # of directories, looked at each time: some 20 ms
_SHARE: Final = 20.0  # a look may take one part in so many of the time
_IGNORED: Final = frozenset({"__pycache__", "node_modules"})
_NAMED: Final = 3  # files that a log line names

Stamps: TypeAlias = dict[str, tuple[int, int, int]]  # by path: time, size and inode


def run_watcher(seat: Seat, *, settings: Settings, directory: Path, clock: Clock) -> int:
    """Watch until told to leave; return the exit status."""
    set_up_logging("watcher", level=settings.log_level, log_format=settings.log_format)
    count_lines_in(seat.work.log_lines)
    service = Service(seat, clock)
    tree = Tree(directory, Path(settings.state_dir))
    known = before = tree.look()
    if tree.is_cut_off:
        logger.warning(
            "there are more than %d files and directories in %s: not all are watched",
            tree.most,
            directory,
        )
    service.report_ready()
    pause = LOOK
    while not service.leaving:
        service.wait(pause)
        started = clock.monotonic()
        stamps = tree.look()
        pause = max(LOOK, _SHARE * (clock.monotonic() - started))
        # Only what stayed the same for two looks is whole: editors write in several steps.
        if stamps == before and stamps != known:
            logger.info("%s", _told(known, stamps, directory))
            known = stamps
            seat.scoreboard.header.changes_seen += 1
            seat.ring()
        before = stamps
    service.report_leaving()
    return 0


class Tree:
    """The files below a directory that an app is made of."""

    def __init__(self, directory: Path, state_dir: Path, most: int = MOST_ENTRIES) -> None:
        self.most = most
        self.is_cut_off = False  # there was more at the last look than may be looked at
        self._directory = os.fspath(directory)
        self._state_dir = os.path.abspath(state_dir)  # noqa: PTH100 - links stay what they are

    def look(self) -> Stamps:
        """Return what the files are like now. What cannot be read counts as not there."""
        stamps: Stamps = {}
        self.is_cut_off, left = False, self.most
        places = [self._directory]
        while places:
            entries = sorted(_entries(places.pop()), key=lambda entry: entry.name)
            if any(entry.name == "pyvenv.cfg" for entry in entries):
                continue  # a virtual environment, whatever it is called
            for entry in entries:
                left -= 1
                if left < 0:
                    self.is_cut_off = True
                    return stamps
                self._note(entry, stamps, places)
        return stamps

    def _note(self, entry: os.DirEntry[str], stamps: Stamps, places: list[str]) -> None:
        name = entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                hidden = name.startswith(".") or name in _IGNORED
                if not hidden and entry.path != self._state_dir:
                    places.append(entry.path)
            elif name == CONFIG_FILE or (name.endswith(".py") and not name.startswith(".")):
                status = entry.stat()
                stamps[entry.path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            return


def _entries(place: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            yield from entries
    except OSError:
        return


def _told(old: Stamps, new: Stamps, directory: Path) -> str:
    paths = sorted(path for path, _ in old.items() ^ new.items())
    names = list(dict.fromkeys(os.path.relpath(path, directory) for path in paths))
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "") + " changed"
