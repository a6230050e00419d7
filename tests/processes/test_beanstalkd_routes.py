"""A pool whose line to beanstalkd dies, and workers that die at each step of a job's life."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import greenstalk
import pytest
from pool import PoolProcess, eventually
from relay import Relay
from servers import Beanstalkd
from shops import SHOP

from pulpo_pool.queues.opening import open_queue


class RoutedPool(PoolProcess):
    """A pool that reaches its server by a relay; the test itself has a line of its own."""

    def __init__(self, folder, server, relay, *arguments, query="", **options):
        self.url = server.url
        route = f"beanstalkd://{relay.host}:{relay.port}{query}"
        super().__init__(folder, "--broker", route, *arguments, app=SHOP, **options)

    def queue(self):
        return open_queue(self.url)

    def publish(self, request_type, numbers):
        super().publish(request_type, [{"n": n} for n in numbers])


@pytest.fixture
def server():
    with Beanstalkd() as server:
        yield server


@pytest.fixture
def relay(server):
    with Relay(server.host, server.port) as relay:
        yield relay


def waiting(server):
    """Return how many connections wait in a reserve."""
    with greenstalk.Client((server.host, server.port)) as client:
        return client.stats()["current-waiting"]


def readiness(pool, code):
    return eventually(
        lambda: (answer := pool.http("/readyz"))[0] == code and answer, what=f"/readyz says {code}"
    )[1]


def test_a_pool_behind_a_dead_route_stays_says_so_and_goes_on_when_it_is_back(
    tmp_path, server, relay
):
    """Nobody is told when a route dies: what is sent is lost in silence, connections stay."""
    with RoutedPool(
        tmp_path, server, relay, "-w", "2", "--sleep-duration", "0.2", query="?socket_timeout=0.5"
    ) as pool:
        pool.ready()
        pids = sorted(pool.worker_pids())
        pool.publish("hold", range(2))
        eventually(lambda: len(pool.lines("started")) == 2, what="both work")
        relay.silent = True
        pool.let_go()
        pool.publish("note", range(2, 50))
        reasons = readiness(pool, 503)
        eventually(
            lambda: pool.log.count("the queue is unavailable") >= 4, what="they try again and again"
        )
        relay.silent = False
        eventually(pool.empty, 60, what="the jobs are done")
        eventually(lambda: set(pool.numbers("done")) == set(range(50)), what="all of them")
        readiness(pool, 200)
        reconnects = eventually(
            lambda: pool.counted("pulpo_queue_reconnects_total") >= 2, what="both have reconnected"
        )
        same_workers = sorted(pool.worker_pids()) == pids

    assert "queue" in reasons
    assert reconnects
    assert same_workers
    assert max(Counter(pool.numbers("done")).values()) <= 2


@contextmanager
def hung(server, relay):
    server.hang()
    yield
    server.go_on()


@contextmanager
def vanished(server, relay):
    relay.silent = True
    yield
    relay.silent = False


@pytest.mark.parametrize("lost", [hung, vanished])
def test_an_idle_worker_that_waits_long_notices_that_its_server_is_gone(
    tmp_path, server, relay, lost
):
    """A waiting server says nothing: after three times its socket_timeout it is asked."""
    with RoutedPool(
        tmp_path, server, relay, "-w", "1", "--sleep-duration", "600", query="?socket_timeout=0.3"
    ) as pool:
        pool.ready()
        eventually(lambda: waiting(server) == 1, what="it waits")
        pids = pool.worker_pids()
        with lost(server, relay):
            eventually(lambda: "worker 0" in unavailable(pool.log), what="the worker notices")
            readiness(pool, 503)
        readiness(pool, 200)
        pool.publish("note", [1])
        eventually(pool.empty, what="the job is done")
        same_workers = pool.worker_pids() == pids

    assert pool.numbers("done") == [1]
    assert same_workers


def unavailable(log):
    return "\n".join(line for line in log.splitlines() if "the queue is unavailable" in line)


# Where in a job's life its worker is killed: what passes on the line, whether it arrives, how
# often the job runs then, and whether it was in the worker's hands.
ASKS = b"reserve\r\n"
STEPS = {
    "it asks for a job": (ASKS, False, False, 1, False),
    "it has asked for a job": (ASKS, False, True, 1, False),
    "it is given a job": (b"RESERVED", True, False, 1, False),
    "it settles": (b"delete", False, False, 2, True),
    "it has settled": (b"delete", False, True, 1, True),
    "it is told that it has settled": (b"DELETED", True, False, 1, True),
}


def killed(pool, relay, *, at, reply, arrives):
    """Kill the worker as these bytes come by; return what tells that it is done."""
    done = threading.Event()
    victim = SimpleNamespace(pid=pool.pid_of(0))

    def kill():
        os.kill(victim.pid, signal.SIGKILL)
        done.set()

    relay.cut_after(at, reply=reply, passed=arrives, instead=kill)
    return victim, done


def test_a_worker_killed_at_each_step_loses_nothing_and_is_counted(tmp_path, server, relay):
    with RoutedPool(tmp_path, server, relay, "-w", "1", query="?lease=3600") as pool:
        pool.ready()
        blamed = 0
        for number, (at, reply, arrives, _, in_hand) in enumerate(STEPS.values()):
            # Right after a settlement its row still shows the job, for a moment.
            eventually(lambda: waiting(server) and pool.workers_in("idle"), what="it waits")
            if at == ASKS:  # it has asked already
                assert pool.ask("pause")["ok"]
                eventually(lambda: waiting(server) == 0, what="it rests")
            victim, done = killed(pool, relay, at=at, reply=reply, arrives=arrives)
            pool.publish("note", [number])
            if at == ASKS:
                assert pool.ask("resume")["ok"]
            eventually(done.is_set, what=f"the worker is killed as {at!r} comes by")
            pool.replaced(0, victim.pid)
            eventually(pool.empty, what="the job is done")
            blamed += in_hand
        runs = Counter(pool.numbers("done"))
        deaths = pool.counted("pulpo_worker_exits_total", reason="signal")
        retries = eventually(
            lambda: pool.counted("pulpo_job_retries_total", reason="crash") == blamed,
            what="each death with a job is counted",
        )

    assert runs == {number: step[3] for number, step in enumerate(STEPS.values())}
    assert deaths == len(STEPS)
    assert retries
