"""Endurance: a pool at full rate for minutes. Does anything grow, or get slower?

A feeder, a process of its own, keeps some thousand jobs waiting by `publish_many`. Sixty samples
are taken, every 10 s of 10 minutes. What is compared is the second tenth of the run (the second
minute) with the last: in the first, caches fill and files find their size.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

from benchmarks.contenders.pulpo import PulpoOnBeanstalkd, PulpoOnFile
from benchmarks.harness import Run, cpu, until
from pulpo_pool.queues.opening import open_queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.contenders.pulpo import PulpoContender

ENGINES = {"beanstalkd": PulpoOnBeanstalkd, "file": PulpoOnFile}
SAMPLES = 60
WAITING = 3_000  # jobs that wait at least, and a thousand more when the feeder has just fed
KIBIBYTE = 1024
MEMORY = re.compile(r"^(\w+): +(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Member:
    """A process of the pool; memory in kiB.

    `own` is the PSS of what is no file's. The rest of `pss` is shared with whatever else runs
    Python on this machine, so that it changes as strangers come and go.
    """

    role: str
    pid: int
    pss: int
    own: int
    rss: int
    descriptors: int


@dataclass(frozen=True)
class Files:
    """How many, and their bytes; `queue` and `log_ahead` are the queue's file and its -wal."""

    run_directory: int
    run_directory_bytes: int
    queue_bytes: int
    log_ahead_bytes: int
    log_bytes: int


@dataclass(frozen=True)
class Sample(Run):
    """What was so `at` seconds after the start, and what happened since the sample before.

    CPU is microseconds a job: of the workers, of the pool's other processes, of the feeder, and of
    the server. `server_rss` is kiB.
    """

    at: float
    jobs: int
    waiting: int
    jobs_per_second: float
    worker_cpu: float
    other_cpu: float
    feeder_cpu: float
    server_cpu: float
    server_rss: int
    members: tuple[Member, ...]
    files: Files

    columns: ClassVar[Mapping[str, str]] = {
        "jobs/s": "jobs_per_second",
        "worker CPU us/job": "worker_cpu",
        "other CPU": "other_cpu",
        "feeder CPU": "feeder_cpu",
        "server CPU": "server_cpu",
    }


def endurance(engine: str, workers: int, seconds: float) -> Iterator[Sample]:
    """Run a pool of `workers` for `seconds` on a new queue, and yield samples as they are taken."""
    contender = ENGINES[engine](workers)
    with tempfile.TemporaryDirectory(prefix="pulpo-benchmark-") as folder:
        contender.folder = Path(folder)
        try:
            contender.open()
            yield from _fed(contender, seconds)
        finally:
            contender.close()


def _fed(contender: PulpoContender, seconds: float) -> Iterator[Sample]:
    assert contender.pool is not None
    contender.start()
    contender.workers()
    arguments = [contender.pool.broker, str(contender.done), str(WAITING)]
    feeder = subprocess.Popen([sys.executable, "-m", "benchmarks.feeder", *arguments])
    try:
        until(contender, 1)
        yield from _samples(contender, feeder, seconds)
    finally:
        feeder.kill()
        feeder.wait()


def _samples(
    contender: PulpoContender, feeder: subprocess.Popen[bytes], seconds: float
) -> Iterator[Sample]:
    began = time.monotonic()
    before, jobs, then = _spent(contender, feeder), contender.jobs_done(), began
    for number in range(1, SAMPLES + 1):
        time.sleep(max(0.0, began + number * seconds / SAMPLES - time.monotonic()))
        assert feeder.poll() is None, "the feeder has ended"
        spent, done, now = _spent(contender, feeder), contender.jobs_done(), time.monotonic()
        worker, other, feeding, server = (
            (new - old) / (done - jobs) * 1e6 for new, old in zip(spent, before, strict=True)
        )
        sample = Sample(
            contender.name, contender.baseline, 0, now - began, done, _waiting(contender),
            (done - jobs) / (now - then), worker, other, feeding, server, _server_rss(contender),
            _members(contender), _files(contender),
        )  # fmt: skip
        yield sample
        before, jobs, then = spent, done, now


def _roles(contender: PulpoContender) -> dict[int, str]:
    """Return all processes of the pool, by pid."""
    assert contender.pool is not None
    status = contender.pool.status()
    roles = {status["master"]["pid"]: "master"}
    roles |= {each["pid"]: each["role"] for each in status["services"] if each["pid"]}
    return roles | {w["pid"]: f"worker {w['slot']}" for w in status["workers"] if w["pid"]}


def _spent(contender: PulpoContender, feeder: subprocess.Popen[bytes]) -> tuple[float, ...]:
    roles = _roles(contender)
    workers = [pid for pid, role in roles.items() if role.startswith("worker")]
    others = [pid for pid in roles if pid not in workers]
    return tuple(cpu(pids) for pids in (workers, others, [feeder.pid], contender.servers()))


def _waiting(contender: PulpoContender) -> int:
    assert contender.pool is not None
    with open_queue(contender.pool.broker) as queue:
        return sum(each.ready for each in queue.stats().values())


def _server_rss(contender: PulpoContender) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in contender.servers()) // KIBIBYTE


def _members(contender: PulpoContender) -> tuple[Member, ...]:
    members = []
    for pid, role in sorted(_roles(contender).items(), key=lambda item: item[1]):
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
        memory = {name: int(size) for name, size in MEMORY.findall(told)}
        own = memory["Pss_Anon"] + memory["Pss_Shmem"]
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        members.append(Member(role, pid, memory["Pss"], own, memory["Rss"], descriptors))
    return tuple(members)


def _files(contender: PulpoContender) -> Files:
    state = contender.folder / ".pulpo"
    ran = [path for path in (state / "run").rglob("*") if not path.is_dir()]
    named = (state / "queue.db", state / "queue.db-wal", contender.folder / "log")
    sizes = [path.stat().st_size if path.exists() else 0 for path in named]
    return Files(len(ran), sum(path.stat().st_size for path in ran), *sizes)
