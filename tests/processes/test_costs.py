"""What a job costs, in counts that are the same on every machine: system calls, instructions."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

from loops import Bench
from pool import PoolProcess, publish, publish_to
from servers import Beanstalkd, needed

from pulpo_pool.queues.opening import file_url, open_queue
from pulpo_pool.worker.observer import Observer

JOBS = 600
FIRST, LAST = 100, 500  # between these the worker does nothing but jobs
APP = """
import os
from pulpo_pool import Pulpo
pulpo = Pulpo()
out = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@pulpo.job()
def mark(n):
    os.write(out, b"#")
"""
PUBLISHED = 10  # one at a time
PUBLISH = f"""
import os, sys
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.opening import open_queue

with open_queue(sys.argv[1]) as queue:
    publisher, message = Publisher(queue), Message(request_type="mark", body={{"n": 1}})
    publisher.publish(message)
    os.write(1, b"#")
    for _ in range({PUBLISHED}):
        publisher.publish(message)
    os.write(1, b"#")
    publisher.publish_many([message] * 1_000)
    os.write(1, b"#")
"""
MARK = re.compile(r'^write\(\d+, "#", 1\)')


def calls_per_job(traces):
    """Return the worker's system calls for each job, by name, from the strace of all processes."""
    for trace in traces:
        lines = trace.read_text().splitlines()
        marks = [number for number, line in enumerate(lines) if MARK.match(line)]
        if len(marks) == JOBS:
            calls = Counter(line.partition("(")[0] for line in lines[marks[FIRST] : marks[LAST]])
            return {name: count / (LAST - FIRST) for name, count in calls.items()}
    raise AssertionError(f"no process did {JOBS} jobs")


def traced(folder, *arguments):
    """Run a pool of one worker until there is nothing left to do; return what it cost a job."""
    prefix = (
        needed("strace"),
        "--follow-forks",
        "--output-separately",
        "-o",
        str(folder / "trace"),
    )
    with PoolProcess(folder, "-w", "1", "--burst", *arguments, app=APP, prefix=prefix) as pool:
        pool.wait(120)
    return calls_per_job(folder.glob("trace.*"))


def test_system_calls_of_a_job_on_the_file_queue(tmp_path):
    """One transaction a job, its locks and pages; nothing is opened, looked up or waited for."""
    publish(tmp_path, "mark", [{"n": n} for n in range(JOBS)])
    calls = traced(tmp_path)
    ours = {name: calls.pop(name, 0) for name in ("write", "getpid", "alarm", "umask", "fchdir")}

    assert ours["write"] <= 1.05, "the handler's"
    assert ours["getpid"] <= 2.05
    assert calls.pop("fcntl") <= 10.5, "eight of SQLite's locks and ours, two of open streams"
    assert calls.pop("pwrite64") <= 8, "two for each page that the transaction changed"
    assert sum(calls.values()) <= 0.5, calls


def calls_of_publishing(folder, durability):
    """Return the system calls, by name, of publishing some jobs one by one and of 1,000 at once."""
    trace = folder / durability
    prefix = [needed("strace"), "-o", str(trace), sys.executable, "-c", PUBLISH]
    url = file_url(str(folder / f"{durability}.db"))
    subprocess.run([*prefix, f"{url}?durability={durability}"], check=True, capture_output=True)
    lines = trace.read_text().splitlines()
    first, second, third = (number for number, line in enumerate(lines) if MARK.match(line))
    parts = lines[first + 1 : second], lines[second + 1 : third]
    return [Counter(line.partition("(")[0] for line in part) for part in parts]


def test_system_calls_of_publishing_to_the_file_queue(tmp_path):
    """The disk is waited for once a call, or never; the path is looked at, the bell tried."""
    one_by_one, at_once = calls_of_publishing(tmp_path, "full")
    swift, swift_at_once = calls_of_publishing(tmp_path, "normal")

    assert (one_by_one["fdatasync"], one_by_one["fsync"]) == (PUBLISHED, 0)
    assert (at_once["fdatasync"], at_once["fsync"]) == (1, 0)
    assert not {"fdatasync", "fsync"} & {*swift, *swift_at_once}
    assert swift.total() <= 22 * PUBLISHED, swift
    assert at_once.total() <= 300, at_once


def test_system_calls_of_a_job_on_beanstalkd(tmp_path):
    """One write and one read, in two pieces though the server answers; some may come late."""
    with Beanstalkd() as server:
        with open_queue(server.url) as queue:
            publish_to(queue, "mark", [{"n": n} for n in range(JOBS)])
        calls = traced(tmp_path, "--broker", server.url)

    assert calls.pop("sendto") <= 1.05
    assert calls.pop("recvfrom") <= 1.5
    assert calls.pop("poll", 0) <= 0.5
    assert calls.pop("setsockopt", 0) <= 2
    assert calls.pop("write") <= 1.05
    assert sum(calls.values()) <= 6, calls


def test_instructions_of_a_turn():
    """Bytecode instructions of the loop and the memory queue, from one settlement to the next."""
    bench = Bench()
    bench.loop._observer = Observer()
    work = bench.app.job("work")(lambda: None)
    for _ in range(3):
        work.publish()
    bench.loop.turn()
    executed = 0

    def count(frame, event, _argument):
        nonlocal executed
        frame.f_trace_opcodes = True
        executed += event == "opcode"
        return count

    sys.settrace(count)
    try:
        bench.loop.turn()
    finally:
        sys.settrace(None)

    assert 300 < executed < 1_070, "856 with Python 3.11"
