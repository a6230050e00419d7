"""The story of a job: each thing that may keep it from running has its words."""

from __future__ import annotations

import pytest

from pulpo_pool.cli.story import next_step, running, why_not_running
from pulpo_pool.cli.story_facts import Facts, PoolSeen
from pulpo_pool.cli.story_past import past
from pulpo_pool.codec import Codec
from pulpo_pool.message import Message, written_date
from pulpo_pool.queues.adapter import JobRecord, JobState
from pulpo_pool.setback import Setback

NOW = 1_800_000_000.0
CODEC = Codec()


def job(state="ready", *, header=None, **fields):
    message = Message.restored(
        "m-1",
        {"request_type": "send", "queue": "mail", "published_at": written_date(NOW - 90)}
        | (header or {}),
        {},
    )
    defaults = {"priority": 5, "attempts": 0, "crashes": 0, "raw": CODEC.encode(message)}
    return JobRecord(
        job_id="17", queue="mail", state=JobState(state), codec=CODEC, **(defaults | fields)
    )


def pool(
    state="running", queues=("mail",), workers=("idle",), *, same_queue=True, paused=(), **worker
):
    master = {"name": "default", "state": state, "queues": list(queues)}
    master |= {"identity": "id", "instance": "now", "app": None, "broker": "file:q"}
    row = {"slot": 0, "pid": 7, "serial": 9, "job_id": None, "job_seconds": None} | worker
    return PoolSeen(master, [row | {"state": word} for word in workers], same_queue, list(paused))


def pause(request_type="send", state="paused"):
    told = {"request_type": request_type, "state": state, "seconds_left": 12.0}
    return told | {"cause": "ConnectionError"}


LATER = job("delayed", due=NOW + 5, header={"not_before": written_date(NOW + 5)})


def setback(attempt, outcome="retried", **fields):
    fields = {"at": NOW - 60, "reason": "exception", "error": "Trace\nValueError: no"} | fields
    return Setback(attempt=attempt, outcome=outcome, worker="id/now/3/9", host="web-1", **fields)


def codes(record, **facts):
    facts.setdefault("pools", [pool()])
    return [cause.code for cause in why_not_running(Facts(record, NOW, **facts))]


def texts(record, **facts):
    facts.setdefault("pools", [pool()])
    return " ".join(cause.text for cause in why_not_running(Facts(record, NOW, **facts)))


def story(record):
    return "\n".join(past(Facts(record, NOW)))


@pytest.mark.parametrize(
    ("record", "facts", "expected"),
    [
        (job(), {}, []),
        (job(), {"pools": []}, ["no_pool"]),
        (job(), {"pools": [pool(same_queue=False)]}, ["no_pool"]),
        (job(), {"pools": [pool(queues=["other"])]}, ["queue_not_worked_on"]),
        (job(), {"pools": [pool("paused")]}, ["pool_not_working"]),
        (job(), {"pools": [pool("quiet")]}, ["pool_not_working"]),
        (job(), {"pools": [pool("draining")]}, ["pool_not_working"]),
        (job(), {"pools": [pool("paused"), pool()]}, []),
        (job(), {"pools": [pool(workers=["backoff", "booting"])]}, ["no_worker"]),
        (job(), {"pools": [pool(workers=["busy", "busy"])]}, ["busy"]),
        (job(), {"in_front": 12, "handled": True}, ["in_front"]),
        (job(), {"in_front": 0}, []),
        (job(), {"handled": False, "told_by": "App shop"}, ["no_handler"]),
        (job(header={"expiration": written_date(NOW - 1)}), {}, ["expired"]),
        (LATER, {}, ["delayed"]),
        (LATER, {"pools": [pool("paused")]}, ["delayed", "pool_not_working"]),
        (job("delayed", due=NOW + 5, attempts=2, history=(setback(2),)), {}, ["backoff"]),
        (job("delayed", due=NOW + 5, attempts=2), {}, ["backoff"]),
        (job("delayed", due=NOW + 5), {}, ["put_back"]),
        (job(), {"pools": [pool(paused=[pause()])]}, ["type_paused"]),
        (job(), {"pools": [pool(paused=[pause("other")])]}, []),
        (job("delayed", due=NOW + 5), {"pools": [pool(paused=[pause()])]},
         ["put_back", "type_paused"]),
        (job("buried", reason="fatal"), {}, ["buried"]),
        (job("reserved", due=NOW + 5), {"pools": [pool(job_id="17", job_seconds=2.0)]}, []),
        (job("reserved", due=NOW + 5), {}, ["held_elsewhere"]),
        (job("reserved", due=NOW + 5, owner="else/now/0/1"), {}, ["owner_unknown"]),
        (job("reserved", due=NOW + 5, owner="id/now/0/9"), {}, ["between"]),
        (job("reserved", due=NOW + 5, owner="id/now/0/8"), {}, ["owner_dead"]),
        (job("reserved", due=NOW + 5, owner="id/before/0/9"), {}, ["owner_dead"]),
    ],
)  # fmt: skip
def test_what_keeps_a_job_from_running_is_named(record, facts, expected):
    assert codes(record, **facts) == expected


def test_a_wait_is_told_with_its_end():
    assert "due at 2027-01-15 08:01:30Z (in 1.5 min)" in texts(job("delayed", due=NOW + 90))


def test_a_pause_of_its_type_is_told_with_its_cause_and_end():
    paused = texts(job(), pools=[pool(paused=[pause()])])
    probed = texts(job(), pools=[pool(paused=[pause(state="probing")])])

    assert paused == "Pool default has paused send (ConnectionError), for another 12.0 s."
    assert probed.endswith("(ConnectionError), one job finds out whether it works again.")


def test_a_burial_is_told_with_its_cause():
    text = texts(job("buried", reason="crashed", error="Trace\nsignal 11"))

    assert text == "It is buried, because its workers died with it too often: signal 11"
    assert "why is not known here" in texts(job("buried"))


LAST = "Attempt 5 by worker 3 (serial 9) on web-1 was fatal at 2027-01-15 07:59:00Z"


def test_the_past_is_told_in_order():
    record = job(
        "buried",
        attempts=5,
        header={"parent_id": "m-0", "not_before": written_date(NOW - 80)},
        history=(setback(1), setback(4), setback(5, "buried", reason="fatal", error="never")),
    )
    told = story(record)

    assert told.splitlines() == [
        "Job 17 (send) is buried in queue mail.",
        "It was published 2027-01-15 07:58:30Z (1.5 min ago), as message m-1, priority 65536.",
        "It was not to run before 2027-01-15 07:58:40Z (1.3 min ago).",
        "Its header also says: parent_id=m-0.",
        "Attempt 1 by worker 3 (serial 9) on web-1 failed at 2027-01-15 07:59:00Z: ValueError: no",
        "Of attempts 2 to 3 nothing is kept.",
        "Attempt 4 by worker 3 (serial 9) on web-1 failed at 2027-01-15 07:59:00Z: ValueError: no",
        f"{LAST}; the job was buried: never",
    ]


def test_attempts_without_a_word_and_kicks_are_told():
    silent = story(job(attempts=3, history=(setback(1),)))
    kicked = story(job(attempts=1, history=(setback(3, "buried"), setback(1))))

    assert "2 more of its 3 attempts ended without a word" in silent
    assert "It was kicked, and its attempts are counted anew." in kicked
    assert "without a word" not in kicked
    assert "It was not tried yet." in story(job())


def test_bytes_that_are_no_message_have_a_story_too():
    record = job("buried", raw=b"\xff", reason="undecodable", error="no message")

    assert "its bytes are no message" in story(record)
    assert codes(record) == ["buried"]


def test_dates_that_no_calendar_has_do_not_matter():
    record = job("delayed", due=1e300, history=(setback(1, at=-1e300),), attempts=1)

    assert "Unix second -1e+300" in story(record)
    assert "Unix second 1e+300" in texts(record)


def test_who_runs_it_is_named():
    record = job("reserved", due=NOW + 5, attempts=2, owner="id/now/0/9")
    facts = Facts(record, NOW, [pool(job_id="17", job_seconds=2.0)])

    assert list(running(facts)) == [
        "Worker 0 of pool default (pid 7) has run it for 2.0 s: this is attempt 2."
    ]
    assert "its lease ends" in next_step(facts, [])


@pytest.mark.parametrize(
    ("record", "facts", "words"),
    [
        (job(), {}, "The next worker that is free begins attempt 1."),
        (job(), {"pools": []}, "It waits for that to change; then attempt 1 begins."),
        (job("delayed", due=NOW + 5, attempts=1), {}, "(in 5.0 s); then attempt 2 begins."),
        (job("buried"), {}, "Nothing, until `pulpo-pool kick 17` makes it ready again."),
        (job(header={"expiration": written_date(NOW)}), {}, "It is discarded by the worker"),
        (job(header={"expiration": written_date(NOW)}), {"on_expired": "bury"}, "It is buried by"),
        (job("reserved", due=NOW + 5), {}, "or comes back: its lease ends"),
    ],
)
def test_what_comes_next_is_told(record, facts, words):
    facts.setdefault("pools", [pool()])
    known = Facts(record, NOW, **facts)

    assert words in next_step(known, why_not_running(known))
