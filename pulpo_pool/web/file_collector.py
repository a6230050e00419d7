"""What the slots' files hold, as metrics: a damaged file costs its own numbers, never a scrape."""

from __future__ import annotations

import logging
from threading import Lock
from typing import TYPE_CHECKING, Final

from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from pulpo_pool.metrics import catalogue as metrics
from pulpo_pool.metrics.catalogue import CATALOGUE, Source
from pulpo_pool.metrics.slot_files import LARGEST_SIZE, read_positions
from pulpo_pool.states import Role, SlotState
from pulpo_pool.web.collector import single
from pulpo_pool.web.count_files import KINDS, CountFiles
from pulpo_pool.web.health import queue_is_seen, worker_slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from prometheus_client.core import Metric

    from pulpo_pool.clock import Clock
    from pulpo_pool.scoreboard import Scoreboard

logger = logging.getLogger(__name__)

_OURS: Final = "pulpo_"
_OF_THE_QUEUE: Final = frozenset((metrics.QUEUE_JOBS.name, metrics.QUEUE_OLDEST_READY.name))
_IN_FILES: Final = frozenset(
    spec.name.removesuffix("_total")
    for spec in CATALOGUE
    if spec.source in (Source.WORKER, Source.KEEPER)
)


class FileCollector(Collector):
    """Adds up the files of the pool's slots; files of anybody else are not read."""

    def __init__(self, directory: Path, scoreboard: Scoreboard, clock: Clock) -> None:
        self._directory = directory
        self._scoreboard = scoreboard
        self._clock = clock
        workers = worker_slots(scoreboard)
        self._slot_of = {str(slot): slot for slot in workers}
        self._slot_of[Role.KEEPER.name.lower()] = workers.stop
        self._counts = CountFiles()
        self._reading = Lock()
        self._lock = Lock()
        self._skipped = 0
        self._named: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of workers, keeper and handlers."""
        queue_seen = queue_is_seen(self._scoreboard, self._clock.monotonic())
        named: set[str] = set()
        for family in self._families():
            if family.name.startswith(_OURS) and family.name not in _IN_FILES:
                continue  # a handler's metric that would hide one of the pool's
            if family.name in _OF_THE_QUEUE and not queue_seen:
                continue
            if family.name in named:  # a reload brought another metric of the same name
                self.skip(f"metric {family.name!a} as a gauge", ValueError("it is of two kinds"))
                continue
            named.add(family.name)
            yield family
        yield single(metrics.FILES_SKIPPED, self._skipped)

    def _families(self) -> list[Metric]:
        paths = list(self._files())
        with self._reading:
            counted = [path for path in paths if path.name.startswith(KINDS)]
            families = self._counts.add_up(counted, self.skip)
            return [*families, *self._merged([path for path in paths if path not in set(counted)])]

    def skip(self, what: str, error: Exception) -> None:
        """Count something that cannot be exported, and log it the first time."""
        with self._lock:
            self._skipped += 1
            if what in self._named:
                return
            self._named.add(what)
        logger.warning("%s is left out of the metrics: %s", what, error)

    def _files(self) -> Iterator[Path]:
        try:
            present = sorted(self._directory.glob("*_*.db"))
        except OSError as error:
            self.skip(str(self._directory), error)
            return
        for path in present:
            kind, _, identity = path.stem.rpartition("_")
            slot = self._slot_of.get(identity)
            if slot is None or (kind.startswith("gauge_live") and not self._lives(slot)):
                continue
            yield path

    def _lives(self, slot: int) -> bool:
        return self._scoreboard.life(slot).state in (
            SlotState.BOOTING, SlotState.UP, SlotState.STOPPING, SlotState.KILLED,
        )  # fmt: skip

    def _merged(self, paths: list[Path]) -> Iterable[Metric]:
        """Merge the files of gauges; only when that fails, look for those that are at fault."""
        try:
            return _merge(paths)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of the reader
            sound = [path for path in paths if self._is_sound(path)]
            failure = error
        try:
            return _merge(sound)
        except Exception:  # noqa: BLE001 - sound files that do not fit together
            self.skip(str(self._directory), failure)
            return []

    def _is_sound(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                read_positions(file.read(LARGEST_SIZE + 1))
            _merge([path])
        except FileNotFoundError:
            return False  # removed since it was listed
        except Exception as error:  # noqa: BLE001 - see _merged
            self.skip(str(path), error)
            return False
        return True


def _merge(paths: list[Path]) -> Iterable[Metric]:
    merged: Iterable[Metric] = MultiProcessCollector.merge([str(path) for path in paths])  # type: ignore[no-untyped-call]
    return merged
