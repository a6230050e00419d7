"""`pulpo-pool explain`, and the evidence it tells of: what happened to a job, and why it waits."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing

from pool import PoolProcess, eventually
from servers import Beanstalkd
from shops import SHOP

from pulpo_pool import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import BuryReason, JobState, Owner
from pulpo_pool.queues.beanstalkd import BeanstalkdQueueAdapter

APP = (
    SHOP
    + """
@pulpo.job(wait=lambda state: 600.0)
def fail(n):
    raise LookupError(f"no customer {n}, password hunter2")


@pulpo.job()
def never(n):
    from pulpo_pool import Fatal
    raise Fatal("no such city, password hunter2")


@pulpo.redact
def without_passwords(text):
    return text.replace("hunter2", "[redacted]")
"""
)


def explained(pool, name):
    """Return what the program says of a job: as JSON, with the codes of what it waits for."""
    answer = pool.command("explain", name, "--json")
    assert answer.returncode == 0, answer.stderr
    story = json.loads(answer.stdout)
    return story, [cause["code"] for cause in story["why_not_running"]]


def publish(pool, request_type, **fields):
    with pool.queue() as queue:
        message = Message(request_type=request_type, body={"n": 1}, **fields)
        stored, job_id = Publisher(queue).publish(message)
    return job_id, stored.id


def test_a_job_on_a_file_queue_is_explained_at_each_step(tmp_path):
    with PoolProcess(tmp_path, "-w", "1", app=APP) as pool:
        pool.ready()
        failed, message_id = publish(pool, "fail")
        never, _ = publish(pool, "never")
        eventually(lambda: pool.stats().buried == 1, what="one is buried")
        after_a_failure = explained(pool, message_id)
        in_words = pool.command("explain", never)
        held, _ = publish(pool, "hold")
        eventually(lambda: pool.lines("started"), what="it runs")
        running = explained(pool, held)
        unknown, _ = publish(pool, "nobody_knows")
        waiting = explained(pool, unknown)
        elsewhere = explained(pool, publish(pool, "note", queue="other")[0])
        assert pool.ask("pause")["ok"]
        paused = explained(pool, publish(pool, "note")[0])
        pool.let_go()
        eventually(lambda: pool.lines("done"), what="it is done")
        eventually(lambda: pool.stats().reserved == 0, what="it is settled")
        gone = pool.command("explain", held)
        log = pool.log
    places = [path for path in (tmp_path / ".pulpo").glob("queue.db*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in places)

    story, causes = after_a_failure
    assert (story["job"]["job_id"], causes) == (failed, ["backoff"])
    assert story["job"]["history"][0]["attempt"] == 1
    assert "LookupError: no customer 1, password [redacted]" in "\n".join(story["story"])
    assert story["next"].endswith("then attempt 2 begins.")

    assert in_words.returncode == 0, in_words.stderr
    assert f"Job {never} (never) is buried in queue default." in in_words.stdout
    assert "Why it is not running now:\n- It is buried, because its handler" in in_words.stdout
    assert f"Next: Nothing, until `pulpo-pool kick {never}`" in in_words.stdout

    story, causes = running
    assert (causes, story["held_by"]["slot"], story["held_by"]["pool"]) == ([], 0, "default")
    assert any("Worker 0 of pool default" in line for line in story["story"])

    assert waiting[1] == ["busy", "no_handler"]
    assert "App shop:pulpo, as it is on disk now, has no handler for nobody_knows." in [
        cause["text"] for cause in waiting[0]["why_not_running"]
    ]
    assert elsewhere[1] == ["queue_not_worked_on"]
    assert paused[1] == ["pool_not_working", "in_front"]
    assert gone.returncode != 0
    assert f"there is no job '{held}' in this queue: it was done" in gone.stderr

    assert b"hunter2" not in kept
    assert "hunter2" not in log
    assert "no such city, password [redacted]" in log


def test_a_job_on_beanstalkd_is_explained_from_the_state_directory(tmp_path):
    """The server knows of no reasons: what its workers wrote down is told."""
    worker = Owner("pool", "start", 3, 9)
    evidence = tmp_path / ".pulpo" / "evidence.db"
    with Beanstalkd() as server:

        def cli(*arguments):
            return subprocess.run(
                [sys.executable, "-m", "pulpo_pool", *arguments, "--broker", server.url],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        with closing(
            BeanstalkdQueueAdapter(server.host, server.port, owner=worker, evidence_file=evidence)
        ) as queue:
            _, job_id = Publisher(queue).publish(Message(request_type="send", body={}))
            queue.rollback(queue.dequeue(20), error="Trace\nValueError: no", reason="exception")
            queue.bury(queue.dequeue(20), reason=BuryReason.FATAL, error="no such city")
        story = json.loads(cli("explain", job_id, "--json").stdout)
        listed = cli("list", "--state", "buried")
        peeked = json.loads(cli("peek", job_id, "--json").stdout)
        unknown = cli("explain", "some-message")

    assert [each["error"] for each in peeked["history"]] == [
        "Trace\nValueError: no",
        "no such city",
    ]
    assert (peeked["state"], peeked["reason"]) == (JobState.BURIED, "fatal")
    assert "fatal: no such city" in listed.stdout
    assert [cause["text"] for cause in story["why_not_running"]] == [
        "It is buried, because its handler said that it will never work: no such city"
    ]
    assert any(
        line.startswith("Attempt 1 by worker 3 (serial 9)") and line.endswith("ValueError: no")
        for line in story["story"]
    )
    assert "this engine cannot be searched for a message's id" in unknown.stderr
