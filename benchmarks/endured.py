"""What a long run says: each quantity in its second tenth and in its last, and how it changed."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Samples = Sequence[Mapping[str, Any]]

MEBIBYTE = 1024  # kiB
TENTHS = 10


def over_all(attribute: str) -> Callable[[Samples], float]:
    """The least that the pool's processes had together: what comes and goes is no growth."""
    return lambda samples: min(
        sum(member[attribute] for member in sample["members"]) for sample in samples
    )


def of_files(*attributes: str) -> Callable[[Samples], float]:
    """The least that these were together."""
    return lambda samples: min(
        sum(sample["files"][each] for each in attributes) for sample in samples
    )


def averaged(attribute: str) -> Callable[[Samples], float]:
    """The average of what was measured between samples; they are equally long."""
    return lambda samples: mean(sample[attribute] for sample in samples)


QUANTITIES: Mapping[str, Callable[[Samples], float]] = {
    "jobs/s": averaged("jobs_per_second"),
    "CPU": averaged("worker_cpu"),
    "CPU of other processes": averaged("other_cpu"),
    "memory": over_all("own"),
    "shared memory": over_all("pss"),
    "resident memory": over_all("rss"),
    "descriptors": over_all("descriptors"),
    "files": of_files("run_directory"),
    "bytes of files": of_files("run_directory_bytes"),
    "bytes of queue": of_files("queue_bytes", "log_ahead_bytes"),
    "bytes of log": of_files("log_bytes"),
    "server": lambda samples: min(sample["server_rss"] for sample in samples),
}
SHOWN = {
    "jobs/s": ("jobs/s", 1),
    "CPU": ("CPU of the workers, µs/job", 1),
    "CPU of other processes": ("CPU of the pool's other processes, µs/job", 1),
    "memory": ("PSS without files of all processes, MiB", MEBIBYTE),
    "shared memory": ("PSS of all processes, MiB", MEBIBYTE),
    "resident memory": ("RSS of all processes, MiB", MEBIBYTE),
    "descriptors": ("open descriptors of all processes", 1),
    "files": ("files in the run directory", 1),
    "bytes of files": ("their size, kB", 1_000),
    "bytes of queue": ("queue file and its -wal, kB", 1_000),
    "bytes of log": ("the pool's log, kB", 1_000),
    "server": ("RSS of the server, MiB", MEBIBYTE),
}


def second_and_last(samples: Samples) -> tuple[Samples, Samples]:
    """Return the samples of the second tenth, of ten minutes the second, and of the last."""
    size = len(samples) // TENTHS
    return samples[size : 2 * size], samples[-size:]


def change(samples: Samples, quantity: str) -> float:
    """Return a quantity's ratio, the last tenth over the second; 1 if it was nothing in both."""
    second, last = map(QUANTITIES[quantity], second_and_last(samples))
    if not second:
        return 1.0 if not last else float("inf")
    return last / second


def verdict(content: Mapping[str, Any]) -> str:
    """The table of a long run, and whether its processes stayed and its queue was never empty."""
    samples = content["runs"]
    lines = ["| | second tenth | last tenth | ratio |", "| --- | ---: | ---: | ---: |"]
    for quantity, (title, unit) in SHOWN.items():
        second, last = (QUANTITIES[quantity](part) / unit for part in second_and_last(samples))
        if not second and not last:
            continue  # a file that this engine does not have
        ratio = change(samples, quantity)
        lines.append(f"| {title} | {second:,.1f} | {last:,.1f} | {ratio:.3f} |")
    pids = [{member["pid"] for member in sample["members"]} for sample in samples]
    stayed = "The same processes throughout" if all(each == pids[0] for each in pids) else (
        "Processes were replaced"
    )  # fmt: skip
    waited = [sample["waiting"] for sample in samples]
    return "\n".join(lines) + (
        f"\n\n{stayed}; {samples[-1]['jobs']:,} jobs in {samples[-1]['at']:,.0f} s; "
        f"{min(waited):,} to {max(waited):,} jobs waited at each of {len(samples)} samples."
    )
