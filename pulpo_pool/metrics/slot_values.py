"""Values that prometheus_client keeps in a slot's files, across the lives in that slot.

prometheus_client's own multiprocess mode is keyed by the process id and leaves files behind for
every process that ever was. This is the same mode with the slot as the key, by the same seam
(`values.ValueClass`) and in the same file format; beyond that it survives damaged files and full
disks, and a process forked by a handler lets go of the slot's files.
"""

from __future__ import annotations

import logging
import os
from array import array
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from prometheus_client import values
from prometheus_client.mmap_dict import mmap_key

from pulpo_pool.metrics.slot_files import SlotFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)


def enter_multiprocess(directory: Path, identity: str) -> None:
    """Keep every metric of this process in the files of slot `identity` from now on.

    Metrics made before the first call of this or of `enter_scratch` are not exported. `identity`
    holds no underscore (file names are split at it) and belongs to one living process at a time.
    A directory that cannot be written costs the metrics, never a job.
    """
    if not identity or "_" in identity or "/" in identity:
        raise ValueError(f"identity: expected text without underscores, got {identity!r}")
    for leftover in directory.glob(f"gauge_live*_{identity}.db"):
        with suppress(OSError):
            leftover.unlink()  # it speaks of a process that is dead
    _store().bind(directory, identity)


def enter_scratch() -> None:
    """Keep every metric of this process in memory until `enter_multiprocess`.

    For a process that imports the application but has no slot of its own.
    """
    _store()


class _Place(Protocol):
    """Where a value lives."""

    cells: memoryview[float]  # replaced as a file grows


class _Memory:
    """A place nobody else sees."""

    __slots__ = ("cells",)

    def __init__(self) -> None:
        self.cells: memoryview[float] = memoryview(array("d", (0.0, 0.0)))


class SlotStore:
    """All values of a process, and the files they are written to."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._values: list[SlotValue] = []
        self._directory: Path | None = None
        self._identity = ""
        self._files: dict[str, SlotFile] = {}
        self._complained = False

    def bind(self, directory: Path, identity: str) -> None:
        """Continue all values in this slot's files."""
        with self.lock:
            files, self._files = self._files, {}
            self._directory, self._identity, self._complained = directory, identity, False
            for value in self._values:
                value.settle_in(*self._place(value))
            for file in files.values():
                file.close()

    def admit(self, value: SlotValue) -> None:
        """Give a new value its place."""
        with self.lock:
            self._values.append(value)
            value.settle_in(*self._place(value))

    def detach(self) -> None:
        """Let go of the files, in a process that was forked from the slot's.

        The lock is made anew, since a thread that no longer exists may have held the old one.
        """
        self.lock = Lock()
        self._directory = None
        for value in self._values:
            value.settle_in(_Memory(), 0)
        files, self._files = self._files, {}
        for file in files.values():
            file.close()

    def _place(self, value: SlotValue) -> tuple[_Place, int]:
        if self._directory is None:
            return _Memory(), 0
        try:
            file = self._files.get(value.kind)
            if file is None:
                path = self._directory / f"{value.kind}_{self._identity}.db"
                file = self._files[value.kind] = SlotFile(path)
            return file, file.cell_of(value.key)
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning("some metrics of this process are not exported: %s", error)
            return _Memory(), 0


class SlotValue:
    """One number of one series, as prometheus_client's metrics use it."""

    _multiprocess: Final = True  # read by prometheus_client
    store: ClassVar[SlotStore]

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_kwargs: object,
    ) -> None:
        self.kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        self.key = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
        self._value = 0.0
        self.store.admit(self)

    def settle_in(self, place: _Place, index: int) -> None:
        """Continue with the number found in this place."""
        self._place = place
        self._index = index
        self._value = place.cells[index]

    def inc(self, amount: float) -> None:
        """Add to the number."""
        with self.store.lock:
            self._value += amount
            self._place.cells[self._index] = self._value

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace the number; the youngest `timestamp` wins among slots."""
        with self.store.lock:
            self._value = value
            self._place.cells[self._index] = value
            self._place.cells[self._index + 1] = timestamp or 0.0

    def get(self) -> float:
        """Return the number as this process knows it."""
        return self._value

    def set_exemplar(self, exemplar: object) -> None:
        """Do nothing: the file format has no place for exemplars."""

    def get_exemplar(self) -> None:
        """Return None: see set_exemplar."""


def _store() -> SlotStore:
    """Return this process's store; the first call makes it prometheus_client's value class."""
    current = values.ValueClass
    if isinstance(current, type) and issubclass(current, SlotValue):
        return current.store
    store = SlotStore()
    values.ValueClass = type("BoundSlotValue", (SlotValue,), {"store": store})
    os.register_at_fork(after_in_child=store.detach)
    return store
