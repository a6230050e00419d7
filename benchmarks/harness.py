"""What every benchmark shares: what a contender is, turn-taking, and the kernel's accounting."""

from __future__ import annotations

import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

NANOSECONDS = 1e9
KIBIBYTES = 1_024  # in a MiB
LOOK = 0.002  # seconds between two looks at how far it is
PATIENCE = 120.0  # seconds that jobs may take


def body_of(number: int) -> dict[str, object]:
    """The work's payload: some 100 bytes of JSON."""
    return {
        "n": number,
        "to": f"customer-{number:08d}@example.org",
        "subject": "Your order is on its way",
    }


LINE = b"%020d\n"
# The handler appends when it began, monotonic nanoseconds, less the job's number: the size of the
# file tells how many jobs are done. A number is small, some nanoseconds, except where it is itself
# the time at which the job was due (`latency`): then the line is how long the job waited.


class Contender(ABC):
    """A queue and its workers, as its users run them. `folder` is new for each run.

    The harness calls `open`, `prepare`, `start`, measures, and calls `close`, whatever happened.
    The handler appends a LINE to `done` with one write.
    """

    name: str
    baseline: str = ""  # the contender that its ratios refer to
    enough: ClassVar[int] = sys.maxsize  # jobs that suffice to measure a slow one

    def __init__(self) -> None:
        self.folder = Path()

    @property
    def done(self) -> Path:
        return self.folder / "done"

    def jobs_done(self) -> int:
        try:
            return self.done.stat().st_size // len(LINE % 0)
        except FileNotFoundError:
            return 0

    @abstractmethod
    def open(self) -> None:
        """Start servers; nothing works yet."""

    @abstractmethod
    def prepare(self, jobs: int) -> None:
        """Publish jobs 0 to `jobs` - 1, with `body_of` each."""

    @abstractmethod
    def start(self) -> None:
        """Start the workers."""

    @abstractmethod
    def workers(self) -> Sequence[int]:
        """The pids of the processes that work; their CPU time is what a job costs."""

    def servers(self) -> Sequence[int]:
        """The pids of the server, if there is one."""
        return ()

    @abstractmethod
    def send(self, number: int) -> int:
        """Publish one job by an open connection; return when, in monotonic nanoseconds."""

    def producer(self) -> tuple[str, Mapping[str, str]]:
        """Return a Python and its environment, for a producer in a process of its own.

        In `folder`, its `from shop import publish` is the usual API: publish(n, to, subject).
        """
        raise NotImplementedError(f"{self.name} has no producer")

    @abstractmethod
    def close(self) -> None:
        """End all that was started."""


@dataclass(frozen=True)
class Run:
    """One measurement of one contender; a benchmark adds its figures."""

    contender: str
    baseline: str
    round: int

    columns: ClassVar[Mapping[str, str]]  # of its table: title to attribute, dotted in a part
    ratios: ClassVar[bool] = True  # whether each column is followed by the ratio to the baseline


class Entrant(Protocol):
    """What is measured in turns: a Contender, or whoever opens and closes like one."""

    folder: Path

    def open(self) -> None:
        """Start what it needs."""

    def close(self) -> None:
        """End it."""


AnyRun = TypeVar("AnyRun", bound=Run)
AnyEntrant = TypeVar("AnyEntrant", bound=Entrant)


def interleaved(
    contenders: Sequence[AnyEntrant], rounds: int, measure: Callable[[AnyEntrant, int], AnyRun]
) -> list[AnyRun]:
    """Measure A B C A B C: what disturbs a shared machine then disturbs all alike."""
    runs = []
    for number in range(rounds):
        for contender in contenders:
            with tempfile.TemporaryDirectory(prefix="pulpo-benchmark-") as folder:
                contender.folder = Path(folder)
                try:
                    contender.open()
                    run = measure(contender, number)
                finally:
                    contender.close()
            print(run, file=sys.stderr)
            runs.append(run)
    return runs


def until(contender: Contender, jobs: int) -> None:
    """Wait until so many jobs are done."""
    deadline = time.monotonic() + PATIENCE
    while contender.jobs_done() < jobs:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{contender.name}: {contender.jobs_done()} of {jobs} jobs are done")
        time.sleep(LOOK)


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU that these processes have used, their threads and ended children included.

    The scheduler's own count is in nanoseconds; `times` of ended children is in ticks of 10 ms.
    """
    return sum(map(cpu_of, pids))


def cpu_of(pid: int) -> float:
    """The same of one process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    own = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    times = psutil.Process(pid).cpu_times()
    return own / NANOSECONDS + times.children_user + times.children_system


def pss(pids: Iterable[int]) -> float:
    """MiB: what is shared is counted once, divided among those who share it."""
    return sum(_kibibytes(Path(f"/proc/{pid}/smaps_rollup")) for pid in pids) / KIBIBYTES


def _kibibytes(rollup: Path) -> int:
    lines = rollup.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
