"""What every benchmark shares: what a contender is, turn-taking, and the kernel's accounting."""

from __future__ import annotations

import sys
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NANOSECONDS = 1e9


def body_of(number: int) -> dict[str, object]:
    """The work's payload: some 100 bytes of JSON."""
    return {
        "n": number,
        "to": f"customer-{number:08d}@example.org",
        "subject": "Your order is on its way",
    }


LINE = (
    b"%020d\n"  # the handler appends when it began, monotonic nanoseconds: the size tells how many
)


class Contender(ABC):
    """A queue and its workers, as its users run them. `folder` is new for each run.

    The harness calls `open`, `prepare`, `start`, measures, and calls `close`, whatever happened.
    The handler appends a LINE to `done` with one write.
    """

    name: ClassVar[str] | str
    baseline: ClassVar[str] = ""  # the contender that its ratios refer to
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
    def close(self) -> None:
        """End all that was started."""


@dataclass(frozen=True)
class Run:
    """One measurement of one contender."""

    contender: str
    baseline: str
    round: int
    jobs_per_second: float
    worker_cpu: float  # microseconds a job
    server_cpu: float  # microseconds a job


def interleaved(
    contenders: Sequence[Contender],
    rounds: int,
    measure: Callable[[Contender], tuple[float, float, float]],
) -> list[Run]:
    """Measure A B C A B C: what disturbs a shared machine then disturbs all alike."""
    runs = []
    for number in range(rounds):
        for contender in contenders:
            with tempfile.TemporaryDirectory(prefix="pulpo-benchmark-") as folder:
                contender.folder = Path(folder)
                try:
                    contender.open()
                    rate, worker_cpu, server_cpu = measure(contender)
                finally:
                    contender.close()
            run = Run(contender.name, contender.baseline, number, rate, worker_cpu, server_cpu)
            print(f"round {number}: {run.contender:30} {rate:10,.0f}/s {worker_cpu:7.1f} us",
                  file=sys.stderr)  # fmt: skip
            runs.append(run)
    return runs


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU that these processes have used, their threads and ended children included.

    The scheduler's own count is in nanoseconds; `times` of ended children is in ticks of 10 ms.
    """
    total = 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0]) / NANOSECONDS
        times = psutil.Process(pid).cpu_times()
        total += times.children_user + times.children_system
    return total
