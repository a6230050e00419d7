"""The commands for jobs, and producers, on a real beanstalkd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from servers import Beanstalkd

from pulpo_pool import Message, Pulpo
from pulpo_pool.errors import QueueUnavailable
from pulpo_pool.queues.adapter import BuryReason, QueueStats
from pulpo_pool.queues.opening import open_queue
from pulpo_pool.settings import load_settings


@pytest.fixture
def server():
    with Beanstalkd() as server:
        yield server


@pytest.fixture
def cli(tmp_path, server):
    def cli(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pulpo_pool", *arguments, "--broker", server.url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return cli


def test_jobs_are_looked_after_as_on_any_queue(cli, server):
    published = cli("publish", "send_email", "--body", '{"to": "a"}', "--count", "3")
    with open_queue(server.url) as worker:
        worker.bury(worker.dequeue(20), reason=BuryReason.FATAL)
        held = worker.dequeue(20)
        stats = json.loads(cli("stats", "--json").stdout)
        buried = cli("list", "--state", "buried", "--json")
        reserved = cli("list", "--state", "reserved")
        refused = cli("delete", held.job_id)
        purged = cli("purge", "--state", "reserved", "--yes")
        worker.commit(held)
    job = json.loads(buried.stdout)
    peeked = json.loads(cli("peek", job["job_id"], "--json").stdout)
    kicked = cli("kick", job["job_id"])
    deleted = cli("delete", job["job_id"])
    unknown = cli("delete", "999")

    assert published.returncode == 0, published.stderr
    assert stats["queues"]["default"] == {"ready": 1, "delayed": 0, "reserved": 1, "buried": 1}
    assert job["body"] == {"to": "a"}
    assert peeked["state"] == "buried"
    assert "send_email" in reserved.stdout
    assert refused.returncode != 0
    assert "in a worker's hands" in refused.stderr
    assert "reserved jobs stay" in purged.stderr
    assert (kicked.returncode, deleted.returncode) == (0, 0)
    assert "no job '999'" in unknown.stderr
    with open_queue(server.url) as queue:
        assert queue.stats() == {"default": QueueStats(ready=1)}


def test_a_server_that_is_away_is_told_in_a_line(cli, server):
    server.kill()
    answer = cli("stats")

    assert answer.returncode != 0
    assert answer.stderr.count("\n") == 1
    assert f"beanstalkd at {server.host}:{server.port}: nothing listens there" in answer.stderr


def test_a_queue_that_is_no_tube_is_told(cli):
    answer = cli("publish", "x", "-q", "two words")

    assert answer.returncode == 2
    assert "'two words' cannot be a tube" in answer.stderr


@pytest.fixture
def app(tmp_path, server):
    settings = load_settings({"broker": server.url}, directory=tmp_path, environ={}).settings
    with Pulpo(settings=settings) as app:
        yield app


def counted(server):
    with open_queue(server.url) as queue:
        return sum(queue.stats().values(), QueueStats()).ready


def test_a_producer_publishes_from_threads(app, server):
    def publish():
        for number in range(50):
            app.publish(Message(request_type="x", body={"n": number}))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted(server) == 200


def test_a_producer_may_fork(app, server):
    """Parent and child each speak on a connection of their own."""
    app.publish(Message(request_type="x"))
    child = os.fork()
    if child == 0:
        try:
            app.publish(Message(request_type="x"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    app.publish(Message(request_type="x"))

    assert counted(server) == 3


def test_a_producer_reconnects(app, server):
    app.publish(Message(request_type="x"))
    server.kill()
    with pytest.raises(QueueUnavailable):
        app.publish(Message(request_type="x"))
    server.start()
    app.publish(Message(request_type="x"))

    assert counted(server) == 1


def test_a_producer_keeps_its_signal_handlers(app):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGPIPE)
    before = [signal.getsignal(number) for number in numbers]
    app.publish(Message(request_type="x"))

    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
