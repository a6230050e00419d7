"""CountFiles: what all slots counted, added up; keys are read once, numbers with every scrape.

prometheus_client's own merge reads and sorts the keys of every file anew: 0.8 s for 256 slots with
sixty pairs of queue and request_type. Keys only ever join a file, at its end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from pulpo_pool.metrics.slot_files import LARGEST_SIZE, DamagedFile, read_positions, used_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

KINDS: Final = ("counter", "histogram", "summary")  # whose numbers are simply added up
_CELL: Final = 8  # bytes

Series: TypeAlias = tuple[str, str]  # kind, and the key in the files


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the numbers of one file lie; true while the file has this inode and this size."""

    inode: int
    used: int
    series: tuple[int, ...]
    numbers: Callable[[Any], tuple[float, ...]]


class CountFiles:
    """Remembers the layout of each file. For one thread at a time."""

    def __init__(self) -> None:
        self._layouts: dict[str, _Layout] = {}
        self._index: dict[Series, int] = {}
        self._keys: set[str] = set()  # that were read in some file
        self._series: list[Series] = []

    def add_up(
        self, paths: Iterable[Path], refuse: Callable[[str, Exception], None]
    ) -> list[Metric]:
        """Return the families of all files; `refuse` is told of what is left out, and why."""
        sums: dict[int, float] = {}
        for path in paths:
            try:
                self._add(path, sums)
            except FileNotFoundError:
                continue  # removed since it was listed
            except (OSError, DamagedFile) as error:
                self._layouts.pop(path.name, None)
                refuse(str(path), error)
        return self._families(sums, refuse)

    def _add(self, path: Path, sums: dict[int, float]) -> None:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(LARGEST_SIZE + 1)
        used = used_bytes(content)
        layout = self._layouts.get(path.name)
        if layout is None or (layout.inode, layout.used) != (status.st_ino, used):
            layout = self._layouts[path.name] = self._read(path, status.st_ino, content[:used])
        if not layout.series:
            return
        numbers = layout.numbers(memoryview(content)[:used].cast("d"))
        for series, number in zip(layout.series, numbers, strict=True):
            sums[series] = sums.get(series, 0.0) + number

    def _read(self, path: Path, inode: int, content: bytes) -> _Layout:
        kind = path.name.partition("_")[0]
        positions = read_positions(content, self._keys)
        self._keys.update(positions)
        series = tuple(self._index_of((kind, key)) for key in positions)
        cells = [position // _CELL for position in positions.values()]
        # With one item itemgetter would return that, and no tuple of it.
        numbers: Callable[[Any], tuple[float, ...]] = (
            itemgetter(*cells) if len(cells) > 1 else lambda all_: tuple(all_[at] for at in cells)
        )
        return _Layout(inode, len(content), series, numbers)

    def _index_of(self, series: Series) -> int:
        index = self._index.setdefault(series, len(self._series))
        if index == len(self._series):
            self._series.append(series)
        return index

    def _families(
        self, sums: dict[int, float], refuse: Callable[[str, Exception], None]
    ) -> list[Metric]:
        families: dict[str, Metric] = {}
        for index, number in sums.items():
            kind, key = self._series[index]
            metric_name, name, labels, help_text = msgspec.json.decode(key)
            family = families.get(metric_name)
            if family is None:
                family = families[metric_name] = Metric(metric_name, help_text, kind)
            if family.type != kind:  # a reload brought another metric of the same name
                refuse(f"metric {metric_name!a} as a {kind}", ValueError("it is of two kinds"))
                continue
            family.add_sample(name, tuple(sorted(labels.items())), number)  # type: ignore[arg-type]
        # Left to it is what it is good at: buckets that add up, and labels in their places.
        added = MultiProcessCollector._accumulate_metrics(families, accumulate=True)  # type: ignore[no-untyped-call] # noqa: SLF001
        return list(added)
