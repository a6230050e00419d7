"""SlotFile: the numbers of one slot in prometheus_client's file format, safe to reopen.

A slot's files outlive its processes, so that a recycled worker counts on where the last one
stopped. Therefore they are checked when they are opened, allocated before they are mapped (a
full tmpfs is then an OSError instead of SIGBUS in the middle of a job), and bounded.

The format: 4 bytes `used`, 4 of padding; then records of a 4-byte key length, the key as JSON
padded with spaces so that what follows lies on 8 bytes, the value and its timestamp as doubles.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

logger = logging.getLogger(__name__)

FIRST_SIZE: Final = 32 * 1024  # bytes; some 200 series
LARGEST_SIZE: Final = 8 * 1024 * 1024  # bytes, per kind of metric; some 50,000 series
QUARANTINE: Final = "quarantine"
QUARANTINED: Final = 8  # damaged files kept for people to look at

_USED: Final = struct.Struct("i")
_HEADER: Final = struct.Struct("ii")
_CELL: Final = struct.Struct("dd")
_KEY: Final = msgspec.json.Decoder(tuple[str, str, dict[str, str], str])


class DamagedFile(Exception):
    """The file's records cannot be read."""


def prepare_metrics_directory(directory: Path) -> None:
    """Make the pool's metrics directory, private and empty. The pool's lock must be held.

    Raises OSError if it cannot be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class SlotFile:
    """An open file of values; `cells` are its doubles, each written in one store.

    `cells` is replaced when the file grows, so it must be looked up for each write.
    """

    def __init__(self, path: Path | str) -> None:
        # A name, no Path, since every worker opens some: pathlib unshared 0.2 MB of each.
        self._path = path = str(path)
        self.was_damaged = False  # and so begins anew
        try:
            self._descriptor, self._positions = _open(path)
        except (DamagedFile, IsADirectoryError) as error:
            _quarantine(Path(path), error)
            self.was_damaged = True
            self._descriptor, self._positions = _open(path)
        try:
            self._map()
        except (OSError, ValueError):
            os.close(self._descriptor)
            raise

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys of its series."""
        return iter(self._positions)

    def __contains__(self, key: str) -> bool:
        return key in self._positions

    def cell_of(self, key: str) -> int:
        """Return the index of a series' value in `cells`, adding the series if it is new.

        Raises OSError if there is no room for it.
        """
        position = self._positions.get(key)
        if position is None:
            position = self._positions[key] = self._append(key)
        return position // 8

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        self.cells.release()
        self._memory.close()
        os.close(self._descriptor)

    def _append(self, key: str) -> int:
        encoded = key.encode()
        padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
        record = _USED.pack(len(encoded)) + padded + _CELL.pack(0.0, 0.0)
        used: int = _USED.unpack_from(self._memory)[0]
        end = used + len(record)
        if end > len(self._memory):
            self._grow(end)
        self._memory[used:end] = record
        self._memory[:4] = _USED.pack(end)  # last: a reader sees whole records only
        return end - _CELL.size

    def _grow(self, needed: int) -> None:
        size = len(self._memory)
        while size < needed:
            size *= 2
        if size > LARGEST_SIZE:
            raise OSError(f"{Path(self._path).name} would exceed {LARGEST_SIZE} bytes")
        _allocate(self._descriptor, size)
        old_cells, old_memory = self.cells, self._memory
        self._map()
        old_cells.release()
        old_memory.close()

    def _map(self) -> None:
        self._memory = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)
        self.cells = memoryview(self._memory).cast("d")


def used_bytes(content: bytes) -> int:
    """Return how much of a file is in use; raise DamagedFile if that is not certain."""
    if len(content) < _HEADER.size:
        raise DamagedFile("it is too short to have a header")
    used: int = _USED.unpack_from(content)[0]
    if not _HEADER.size <= used <= len(content) or used % 8:
        raise DamagedFile(f"it claims {used} of {len(content)} bytes")
    return used


def read_positions(content: bytes, known: Container[str] = ()) -> dict[str, int]:
    """Return where each series' value lies, in bytes; raise DamagedFile if that is not certain.

    Keys that are `known` are not examined again.
    """
    used = used_bytes(content)
    positions: dict[str, int] = {}
    at = _HEADER.size
    while at < used:
        (length,) = _USED.unpack_from(content, at)
        value_at = at + 4 + length + 8 - (length + 4) % 8
        if length <= 0 or value_at + _CELL.size > used:
            raise DamagedFile(f"the record at byte {at} leaves the file")
        raw = content[at + 4 : at + 4 + length]
        try:
            key = raw.decode()
            if key not in known:
                _KEY.decode(raw)
            positions[key] = value_at
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DamagedFile(f"the key at byte {at} is none: {error}") from error
        at = value_at + _CELL.size
    return positions


def _open(path: str) -> tuple[int, dict[str, int]]:
    """Return a descriptor and what lies where; the file is made if there is none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _create(path), {}
    try:
        size = os.fstat(descriptor).st_size
        content = os.pread(descriptor, LARGEST_SIZE + 1, 0)
        if size > LARGEST_SIZE or size % 8:
            raise DamagedFile(f"it has {size} bytes")  # noqa: TRY301 - closed below
        positions = read_positions(content)
        _allocate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, positions


def _create(path: str) -> int:
    """Make a file that appears whole: a scrape never meets one without a header."""
    directory, slash, name = path.rpartition("/")
    fresh = f"{directory}{slash}.{name}.new"
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(fresh, flags, 0o600)
    try:
        _allocate(descriptor, FIRST_SIZE)
        os.pwrite(descriptor, _HEADER.pack(_HEADER.size, 0), 0)
        os.rename(fresh, path)  # noqa: PTH104 - see SlotFile
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(fresh)  # noqa: PTH108 - see SlotFile
        raise
    return descriptor


def _allocate(descriptor: int, size: int) -> None:
    """Make the file `size` bytes long with real space behind each; raise OSError if it is full."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this filesystem cannot
                raise
        else:
            return
    present = os.fstat(descriptor).st_size
    if os.pwrite(descriptor, b"\0" * (size - present), present) < size - present:
        raise OSError("no space left for metrics")


def _quarantine(path: Path, error: Exception) -> None:
    """Put a damaged file aside; the newest few are kept."""
    shelf = path.parent / QUARANTINE
    shelf.mkdir(mode=0o700, exist_ok=True)
    kept = sorted(shelf.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for old in kept[: max(0, len(kept) - QUARANTINED + 1)]:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()
    aside = shelf / f"{path.name}.{os.getpid()}"
    path.rename(aside)
    logger.warning(
        "metrics file %s is damaged (%s): kept as %s, its counts begin again", path, error, aside
    )
