"""Values that prometheus_client keeps in a slot's files, across the lives in that slot.

prometheus_client's own multiprocess mode is keyed by the process id and leaves files behind for
every process that ever was. This is the same mode with the slot as the key, by the same seam
(`values.ValueClass`) and in the same file format; beyond that it survives damaged files and full
disks, and a process forked by a handler lets go of the slot's files.
"""

from __future__ import annotations

import enum
import logging
import os
from array import array
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from prometheus_client import values
from prometheus_client.mmap_dict import mmap_key

from pulpo_pool.metrics.slot_files import SlotFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

logger = logging.getLogger(__name__)

MOST_SERIES: Final = 2_000  # that an app may add to one slot; each costs every scrape some 3 us
LONGEST_KEY: Final = 4_096  # characters of a series' names, labels and help together
OURS: Final = '["pulpo_'  # how the keys of the pool's own series begin: closed sets, never refused


class Loss(enum.StrEnum):
    """What may become of a metric when a slot's files cannot take or give it."""

    SERIES = "series"  # it is counted in memory only
    FILE = "file"  # it was damaged, and put aside


def enter_multiprocess(directory: Path, identity: str) -> None:
    """Keep every metric of this process in the files of slot `identity` from now on.

    Metrics made before the first call of this or of `enter_scratch` are not exported. `identity`
    holds no underscore (file names are split at it) and belongs to one living process at a time.
    A directory that cannot be written costs the metrics, never a job.
    """
    if not identity or "_" in identity or "/" in identity:
        raise ValueError(f"identity: expected text without underscores, got {identity!r}")
    ending = f"_{identity}.db"
    with suppress(OSError):
        # Not glob, which compiles an expression in each worker: 1 ms of its start.
        for name in os.listdir(directory):  # noqa: PTH208 - the names are all that is wanted
            if name.startswith("gauge_live") and name.endswith(ending):
                (directory / name).unlink()  # it speaks of a process that is dead
    _store().bind(directory, identity)


def enter_scratch() -> None:
    """Keep every metric of this process in memory until `enter_multiprocess`.

    For a process that imports the application but has no slot of its own.
    """
    _store()


def tell_losses_to(count: Callable[[Loss], None]) -> None:
    """Call this for every loss, those that there were already included.

    For the metric that counts them, which needs a place in the same files.
    """
    _store().tell_losses_to(count)


def making_sleepers() -> AbstractContextManager[list[SlotValue]]:
    """Make values that no file gets before one of them counts something, or `wake`."""
    return _store().making_sleepers()


def wake(sleepers: Sequence[SlotValue]) -> None:
    """Give every value that still sleeps its place in the files, and its zero."""
    for value in sleepers:
        value.rise()


class _Place(Protocol):
    """Where a value lives."""

    cells: memoryview[float]  # replaced as a file grows


class _Memory:
    """A place nobody else sees."""

    __slots__ = ("cells",)

    def __init__(self) -> None:
        self.cells: memoryview[float] = memoryview(array("d", (0.0, 0.0)))


class _Asleep:
    """A place in no file: the first number that is written to it wakes all that sleep together.

    A histogram with some of its buckets would be wrong.
    """

    __slots__ = ("_together", "_value", "cells")

    def __init__(self, value: SlotValue, together: Sequence[SlotValue]) -> None:
        self._value = value
        self._together = together
        self.cells: Any = self

    def __getitem__(self, _index: int) -> float:
        return 0.0

    def __setitem__(self, _index: int, number: float) -> None:
        for each in self._together:
            each.store.wake(each, number if each is self._value else 0.0)


class SlotStore:
    """All values of a process, and the files they are written to."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._values: list[SlotValue] = []
        self._directory: Path | None = None
        self._identity = ""
        self._files: dict[str, SlotFile] = {}
        self._complained = False
        self._theirs = 0  # series in the files that are not the pool's own
        self._losses: list[Loss] = []  # not told yet
        self._count_loss: Callable[[Loss], None] | None = None
        self._sleepers: list[SlotValue] | None = None  # while values are made asleep

    @contextmanager
    def making_sleepers(self) -> Iterator[list[SlotValue]]:
        """Have the values made meanwhile sleep, until one of them counts something."""
        sleepers: list[SlotValue] = []
        self._sleepers = sleepers
        try:
            yield sleepers
        finally:
            self._sleepers = None

    def wake(self, value: SlotValue, number: float = 0.0) -> None:
        """Give a sleeper its place and add a number to it. The lock must be held."""
        place, index = self._place(value)
        value.settle_in(place, index)
        self._values.append(value)
        value.start_from(value.get() + number)

    def tell_losses_to(self, count: Callable[[Loss], None]) -> None:
        """Tell these, and what is lost from now on."""
        self._count_loss = count
        self._tell_losses()

    def bind(self, directory: Path, identity: str) -> None:
        """Continue all values in this slot's files."""
        with self.lock:
            files, self._files = self._files, {}
            self._directory, self._identity, self._complained = directory, identity, False
            self._theirs = 0
            for value in self._values:
                value.settle_in(*self._place(value))
            for file in files.values():
                file.close()
        self._tell_losses()

    def admit(self, value: SlotValue) -> None:
        """Give a new value its place."""
        with self.lock:
            if self._sleepers is not None:
                self._sleepers.append(value)
                value.settle_in(_Asleep(value, self._sleepers), 0)
                return
            place, index = self._place(value)
            value.settle_in(place, index)
            if self._directory is None or not isinstance(place, _Memory):
                self._values.append(value)  # what was refused would be kept for nothing
        self._tell_losses()

    def detach(self) -> None:
        """Let go of the files, in a process that was forked from the slot's.

        The lock is made anew, since a thread that no longer exists may have held the old one.
        """
        self.lock = Lock()
        if self._directory is None:
            return  # a template's: its values are in memory, of which the fork has a copy
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
            file = self._files.get(value.kind) or self._open(value.kind, self._directory)
            if value.key not in file and not value.key.startswith(OURS):
                self._admit_series(value, file)
            return file, file.cell_of(value.key)
        except OSError as error:
            self._losses.append(Loss.SERIES)
            if not self._complained:
                self._complained = True
                logger.warning("some metrics of this process are not exported: %s", error)
            return _Memory(), 0

    def _open(self, kind: str, directory: Path) -> SlotFile:
        file = self._files[kind] = SlotFile(f"{directory}/{kind}_{self._identity}.db")
        self._theirs += sum(not key.startswith(OURS) for key in file)
        if file.was_damaged:
            self._losses.append(Loss.FILE)
        return file

    def _admit_series(self, value: SlotValue, file: SlotFile) -> None:
        """Count a new series of the app; raise OSError if there are too many."""
        key = value.key
        # A histogram comes whole or not at all: with some of its buckets it would be wrong.
        over = value.first not in file if value.first else self._theirs >= MOST_SERIES
        if over:
            raise OSError(
                f"this slot has {MOST_SERIES:,} series of the app already, and {key:.200} would be "
                "one more: give its labels fewer values"
            )
        if len(key) > LONGEST_KEY:
            raise OSError(f"the names and labels of {key:.200} are over {LONGEST_KEY:,} characters")
        self._theirs += 1

    def _tell_losses(self) -> None:
        """Done without the lock: whoever counts them has values here as well."""
        if self._count_loss is None:
            return
        losses, self._losses = self._losses, []
        for loss in losses:
            self._count_loss(loss)


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
        self.first = ""  # of a histogram's buckets: the key that was made before them
        if typ == "histogram" and name.endswith("_bucket"):
            names, given = list(labelnames)[:-1], list(labelvalues)[:-1]
            self.first = mmap_key(metric_name, f"{metric_name}_sum", names, given, help_text)
        self._value = 0.0
        self.store.admit(self)

    def settle_in(self, place: _Place, index: int) -> None:
        """Continue with the number found in this place."""
        self._place = place
        self._index = index
        self._value = place.cells[index]

    def rise(self) -> None:
        """Take a place in the files, if it has none yet."""
        with self.store.lock:
            if isinstance(self._place, _Asleep):
                self.store.wake(self)

    def start_from(self, number: float) -> None:
        """Replace the number; the store's lock is held."""
        self._value = number
        self._place.cells[self._index] = number

    def inc(self, amount: float) -> None:
        """Add to the number."""
        with self.store.lock:
            self.add(amount)

    def add(self, amount: float) -> None:
        """Add to the number, for who holds the store's lock: it is taken once for several."""
        self._value = value = self._value + amount
        self._place.cells[self._index] = value

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
