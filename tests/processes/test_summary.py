"""A line in the log at an interval says how the pool is, where nobody scrapes it."""

from __future__ import annotations

import os
import re
import signal

from pool import PoolProcess, eventually
from shops import SHOP

LINE = re.compile(
    r"summary: (?P<state>\w+); workers: (?P<workers>[^;]+); (?P<jobs>\d+) jobs done, "
    r"(?P<rate>[\d.]+) a second; (?P<failed>\d+) workers failed; (?P<longest>[^\"\n]+)"
)


def summaries(pool):
    return [match.groupdict() for match in LINE.finditer(pool.log)]


def test_each_line_counts_from_the_one_before(tmp_path):
    arguments = ("-w", "2", "--summary-interval", "0.3", "--log-format", "text")
    with PoolProcess(tmp_path, *arguments, app=SHOP) as pool:
        pool.ready()
        pool.publish("hold", [{"n": 0}])
        eventually(lambda: pool.lines("started"), what="a job runs")
        pool.publish("note", [{"n": n} for n in range(50)])
        eventually(
            lambda: sum(int(line["jobs"]) for line in summaries(pool)) == 50,
            what="all jobs that are done are told of once",
        )
        os.kill(next(pid for pid in pool.worker_pids() if is_idle(pool, pid)), signal.SIGKILL)
        eventually(
            lambda: [line["failed"] for line in summaries(pool)].count("1") == 1,
            what="the failure is told of once",
        )
        eventually(lambda: is_quiet_again(pool), what="the next line tells of no failure")
        last = summaries(pool)[-1]

    assert last["state"] == "running"
    assert last["workers"] == "1 busy, 1 idle"
    assert re.match(r"hold job 1 has run longest, for [\d.]+ s", last["longest"])
    assert sum(int(line["failed"]) for line in summaries(pool)) == 1


def is_idle(pool, pid):
    return any(w["pid"] == pid and w["state"] == "idle" for w in pool.status()["workers"])


def is_quiet_again(pool):
    last = summaries(pool)[-1]
    return last["failed"] == "0" and last["workers"] == "1 busy, 1 idle"


def test_by_itself_a_pool_logs_none(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=SHOP) as pool:
        pool.ready()
        pool.publish("note", [{"n": 1}])
        eventually(pool.empty, what="the job is done")
        pool.signal(signal.SIGTERM)
        pool.wait()

    assert "summary" not in pool.log
