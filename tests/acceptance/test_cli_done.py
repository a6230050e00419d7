"""Done jobs on the command line: listed, looked at, explained and forgotten."""

from __future__ import annotations

import json

import pytest
from pool import PoolProcess, eventually
from shops import SHOP

from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import Commit, Owner
from pulpo_pool.queues.opening import open_queue

BROKER = "file:queue.db?keep_done=3600"


@pytest.fixture
def queue(folder, monkeypatch):
    monkeypatch.setenv("PULPO_POOL_BROKER", BROKER)
    owner = Owner("pool", "now", 2, 31)
    with open_queue(BROKER, queues=("default", "mail"), owner=owner) as queue:
        yield queue


@pytest.fixture
def done(queue):
    """Four jobs that are gone, the last one first: two sent, one expired, one billed."""
    publisher = Publisher(queue)
    found = []
    for request_type, name, expired in [
        ("bill", "default", False),
        ("send", "mail", True),
        ("send", "mail", False),
        ("send", "default", False),
    ]:
        message = Message(request_type=request_type, queue=name, id=f"order-{len(found)}")
        _, job_id = publisher.publish(message)
        queue.settle(Commit(queue.dequeue(), 0.25, expired=expired))
        found.insert(0, job_id)
    return found


def ids(jobs):
    return [job["job_id"] for job in jobs]


def test_they_are_listed_the_last_one_first_and_by_what_they_have_in_common(call, lines, done):
    table = call("list", "--done").stdout.splitlines()
    [one] = lines("list", "--done", "--request-type", "bill")

    assert table[0].split() == [
        *("JOB", "STATE", "QUEUE", "REQUEST", "TYPE", "ATTEMPTS", "ENDED", "SECONDS")
    ]
    assert [row.split()[:2] for row in table[1:]] == [
        [done[0], "done"], [done[1], "done"], [done[2], "expired"], [done[3], "done"],
    ]  # fmt: skip
    assert table[1].split()[-1] == "0.250"
    assert (one["job_id"], one["state"], one["seconds"]) == (done[3], "done", 0.25)
    assert one["kept_until"] == pytest.approx(one["ended"] + 3600)
    assert ids(lines("list", "--done", "-q", "mail", "--limit", "1")) == [done[1]]
    assert ids(lines("list", "--done", "--since", "1h")) == done
    assert ids(lines("list", "--done", "--since", "2999-01-01")) == []
    assert lines("list") == []


def test_one_of_them_is_shown_and_explained(call, lines, done):
    shown = call("peek", done[0]).stdout
    well = call("explain", done[0]).stdout
    late = call("explain", "order-1").stdout  # by its message's id
    [told] = lines("explain", done[0])

    assert ["state", "done"] in [line.split() for line in shown.splitlines()]
    assert f"Job {done[0]} (send) is done in queue default.\n" in well
    assert "Attempt 1 by worker 2 (serial 31) ended well " in well
    assert "after 0.2 s in its handler.\n" in well
    assert "Next: Nothing. What is kept of it goes at " in well
    assert f"Job {done[2]} (send) is expired in queue mail.\n" in late
    assert "It was discarded " in late
    assert "by worker" not in late
    assert [cause["code"] for cause in told["why_not_running"]] == ["done"]


def test_they_can_be_read_only(call, done):
    edited = call("edit", done[0], "--set", "body.x=1")
    kicked = call("kick", done[0])

    for result in (edited, kicked):
        assert result.exit_code == 1
        assert "is gone, and kept for reading only: publish a new one" in result.stderr


def test_people_can_have_them_forgotten(call, lines, done):
    tried = call("purge", "--done", "--request-type", "send", "--dry-run")
    refused = call("purge", "--done")
    [few] = lines("purge", "--done", "-q", "mail", "--limit", "1", "--yes")
    call("delete", done[0])
    left = ids(lines("list", "--done"))
    [rest] = lines("purge", "--done", "--yes")

    assert tried.stdout == "would have removed 3 jobs: 3 send\n"
    assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    assert few == {"removed": 1, "chosen": 1, "request_types": {"send": 1}}
    assert left == [done[2], done[3]]
    assert rest == {"removed": 2}
    assert lines("list", "--done") == []


@pytest.mark.parametrize(
    "arguments",
    [["list", "--done", "--state", "ready"], ["purge", "--yes"],
     ["purge", "--done", "--state", "ready", "--yes"]],
)  # fmt: skip
def test_done_is_no_state(call, queue, arguments):
    assert call(*arguments).exit_code == 2


def test_a_doctors_job_is_not_kept(call, lines, done):
    looked = call("doctor")

    assert "a job went through" in looked.stdout
    assert ids(lines("list", "--done")) == done


def test_where_none_is_kept_the_list_says_so(call, folder, monkeypatch):
    monkeypatch.setenv("PULPO_POOL_BROKER", "file:queue.db")
    result = call("list", "--done", "--json")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "this broker's URL has no keep_done" in result.stderr


def test_a_pool_keeps_what_its_workers_did(tmp_path):
    broker = f"file:{tmp_path}/kept.db?keep_done=3600"
    with PoolProcess(tmp_path, "-w", "1", app=SHOP, broker=broker) as pool:
        pool.publish("note", [{"n": -1}], expiration=0.000001)
        pool.publish("work", [{"n": 1, "seconds": 0.05}])
        eventually(lambda: pool.lines("done") and pool.empty(), what="all is settled")
        listed = pool.command("list", "--done", "--json", "--broker", broker)
    worked, late = map(json.loads, listed.stdout.splitlines())

    assert (worked["request_type"], worked["state"], worked["body"]["n"]) == ("work", "done", 1)
    assert worked["seconds"] >= 0.05
    assert Owner.read(worked["owner"]).slot == 0
    assert (late["request_type"], late["state"], late["seconds"]) == ("note", "expired", 0)
