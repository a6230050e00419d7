"""Publish: one process sends jobs, one at a time or 1,000 a call, while no worker runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from benchmarks.harness import Run, body_of, cpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders.publishers import Publishing

WARM_UP = 1_000  # jobs that are sent first: imports, connections, the beginning of a log
SEND = """
import json, sys, time
from sender import publish

bodies = json.loads(sys.stdin.readline())
many, warm_up = int(sys.argv[1]), int(sys.argv[2])


def send(some):
    if many == 1:
        for body in some:
            publish(body)
    else:
        for first in range(0, len(some), many):
            publish(some[first : first + many])


send(bodies[:warm_up])
print("ready", flush=True)
sys.stdin.readline()
used, began = time.process_time(), time.perf_counter()
send(bodies[warm_up:])
print(time.perf_counter() - began, time.process_time() - used, flush=True)
"""


@dataclass(frozen=True)
class Published(Run):
    """CPU is microseconds a job, of the process that publishes and of the server."""

    jobs_per_second: float
    cpu: float
    server_cpu: float

    columns: ClassVar[Mapping[str, str]] = {
        "jobs/s": "jobs_per_second",
        "CPU us/job": "cpu",
        "server CPU": "server_cpu",
    }


def publish(contender: Publishing, number: int, jobs: int) -> Published:
    """Measure round `number`; `jobs` are less for a slow contender."""
    jobs = min(jobs, contender.enough)
    bodies = json.dumps([body_of(n) for n in range(WARM_UP + jobs)])
    (contender.folder / "sender.py").write_text(contender.sender)
    arguments = ["-c", SEND, str(contender.many), str(WARM_UP)]
    with subprocess.Popen(
        [contender.python, *arguments], cwd=contender.folder, env=contender.environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as sender:  # fmt: skip
        assert sender.stdin is not None
        assert sender.stdout is not None
        sender.stdin.write(bodies + "\n")
        sender.stdin.flush()
        if sender.stdout.readline() != "ready\n":
            raise RuntimeError(f"{contender.name}: the publishing process failed")
        served = cpu(contender.servers())
        sender.stdin.write("go\n")
        sender.stdin.flush()
        seconds, used = map(float, sender.stdout.readline().split())
        served = cpu(contender.servers()) - served
    prices = used / jobs * 1e6, served / jobs * 1e6
    print(f"{contender.name}: {jobs / seconds:,.0f} jobs/s", file=sys.stderr)
    return Published(contender.name, contender.baseline, number, jobs / seconds, *prices)
