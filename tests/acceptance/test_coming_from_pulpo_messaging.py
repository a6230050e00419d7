"""One tube, two systems: pulpo-messaging's files and messages work here, and ours work there."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path

import greenstalk
import pytest
from pool import PoolProcess, eventually
from servers import Beanstalkd

from pulpo_pool import Message
from pulpo_pool.codec import Codec
from pulpo_pool.errors import UndecodableMessage

TUBE = "pulpo-beanstalk-queue-adapter"

# What pulpo-messaging wrote into a beanstalkd, and the priority, delay and time-to-run it gave:
# its commit 0b996ee with greenstalk 2.0.2, each job by its own Message and
# BeanstalkdQueueAdapter.enqueue, read back with peek and stats-job.
RECORDED = {
    job["name"]: job
    for job in map(
        json.loads, Path(__file__).with_name("pulpo_messaging_jobs.jsonl").read_text().splitlines()
    )
}


@pytest.fixture
def server():
    with Beanstalkd() as server:
        yield server


@pytest.fixture
def config(tmp_path, server):
    """Write the ancestor's sample configuration, for this server and folder."""
    content = {
        "shutdown_after_number_of_empty_iterations": 7,
        "enable_output_buffering": False,
        "queue_adapter_type": "beanstalkd_queue_adapter",
        "enable_statman_reporting": False,
        "banner": {"enable": True, "name": "pulpo"},
        "beanstalkd_queue_adapter": {
            "host": server.host,
            "port": server.port,
            "default_tube": TUBE,
            "encoding": "UTF-8",
            "reserve_timeout": 0,
        },
        "echo_handler": {"destination_directory": str(tmp_path / "echo")},
        "upper_handler": {"destination_directory": str(tmp_path / "upper")},
    }
    (tmp_path / "pulpo-config.json").write_text(json.dumps(content))


def components(request_type, payload, **header):
    """Return a message as the ancestor puts it: indented, and whatever is no JSON as text."""
    message = {"body": {"payload": payload}, "header": {"request_type": request_type, **header}}
    return json.dumps(message, indent=2, default=str)


def written(folder):
    return sorted(path.read_text() for path in folder.glob("*.txt"))


def test_its_messages_are_handled_under_its_own_configuration(tmp_path, server, config):
    now = dt.datetime.now()  # noqa: DTZ005 - as the ancestor has it
    with PoolProcess(tmp_path, "--config", "pulpo-config.json", "-w", "1") as pool:
        pool.ready()
        with greenstalk.Client((server.host, server.port), use=TUBE, watch=TUBE) as ancestor:
            ancestor.put(components("echo", "plain"))
            ancestor.put(components("upper", "größe", expiration=now + dt.timedelta(hours=1)))
            ancestor.put(components("echo", "late", delay=now + dt.timedelta(seconds=1)), delay=1)
            ancestor.put(components("echo", "expired", expiration=now - dt.timedelta(hours=1)))
            ancestor.put(components("fail", "buried"))
            eventually(
                lambda: ancestor.stats_tube(TUBE)["current-jobs-buried"] == 1,
                what="the fatal one is buried",
            )
            eventually(lambda: len(written(tmp_path / "echo")) == 2, what="the rest is handled")
            left = ancestor.stats_tube(TUBE)

    assert written(tmp_path / "echo") == ["late", "plain"]
    assert written(tmp_path / "upper") == ["GRÖSSE"]
    assert left["current-jobs-ready"] == left["current-jobs-delayed"] == 0


def local(*parts):
    return dt.datetime(*parts).astimezone()


@pytest.mark.parametrize(
    ("name", "body", "not_before", "expiration"),
    [
        ("echo", {"payload": "HellO WorlD 1"}, None, None),
        ("upper, not ASCII", {"payload": "größe 漢字"}, None, None),
        ("a body of its own", {"to": "a@example.org", "n": [1, 2.5, None, True]}, None, None),
        ("a payload that is no text", {"payload": {"deep": [1, {"x": 2}]}}, None, None),
        ("delay as date", {"payload": "x"}, local(2024, 2, 29, 23, 59, 59, 123456), None),
        ("delay as date of a whole second", {"payload": "x"}, local(2024, 2, 29, 23, 59, 59), None),
        ("expiration as date", {"payload": "x"}, None, local(2099, 1, 2, 3, 4, 5)),
        ("expiration with microseconds", {"payload": "x"}, None,
         local(2099, 1, 2, 3, 4, 5, 678901)),
        ("expiration as text", {"payload": "x"}, None, local(2099, 1, 2, 3, 4, 5)),
    ],
)  # fmt: skip
def test_what_it_wrote_is_read_as_it_was_meant(name, body, not_before, expiration):
    """Its dates are local times, with and without a fraction."""
    message = Codec().decode(RECORDED[name]["body"].encode())

    assert message.body == body
    assert message.not_before == not_before
    assert message.expiration == expiration


def test_what_it_adds_to_a_header_travels_on():
    headers = [
        dict(Codec().decode(RECORDED[name]["body"].encode()).header)
        for name in ("a header of its own", "a header that is a set", "attempts")
    ]

    assert headers == [
        {"source": "shop", "trace": "7", "request_type": "success"},
        {"urgent": None, "request_type": "success"},
        {"attempts": 3, "request_type": "success"},
    ]


def test_all_that_it_wrote_is_worked_off(tmp_path, server, config):
    """Only its command line's message, which names no handler, is set aside."""
    with pytest.raises(UndecodableMessage, match="request_type"):
        Codec().decode(RECORDED["pulpo-cli queue.put"]["body"].encode())
    with PoolProcess(tmp_path, "--config", "pulpo-config.json", "-w", "1") as pool:
        pool.ready()
        with greenstalk.Client((server.host, server.port), None, TUBE) as ancestor:
            for job in RECORDED.values():
                ancestor.put(job["body"].encode(), job["pri"], job["delay"], job["ttr"])
        succeeded = eventually(
            lambda: (
                pool.counted("pulpo_jobs_finished_total", outcome="success") == len(RECORDED) - 2
            ),
            what="all but two succeed",
        )
        expired = eventually(
            lambda: pool.counted("pulpo_jobs_finished_total", outcome="expired"),
            what="one was too late",
        )
        buried = eventually(
            lambda: pool.counted("pulpo_job_buries_total", reason="undecodable"), what="one is kept"
        )

    assert succeeded
    assert (expired, buried) == (1, 1)
    assert written(tmp_path / "echo") == ["HellO WorlD 1"]
    assert written(tmp_path / "upper") == ["GRÖSSE 漢字"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"delay": 0.5},
        {"delay": 90, "expiration": 7200, "priority": 3},
        {"expiration": dt.datetime(2099, 1, 2, 3, 4, 5, 678901, dt.UTC)},
        {"header": {"source": "shop"}, "expiration": dt.timedelta(days=1)},
    ],
)
def test_its_rules_accept_what_ours_writes(fields):
    """Those of its message.py: it reads a delay with a fraction only, an expiration without one.

    Its own code has read such messages, in three time zones; that cannot run here, since the
    suite installs nothing from GitHub.
    """
    message = Message(request_type="echo", payload="größe", **fields)
    stamped = message.stamped(id="order-17", queue=TUBE, published_at=time.time())
    components = json.loads(Codec().encode(stamped))
    expiration = components["header"].get("expiration")

    assert components["header"]["request_type"] == "echo"
    assert components["body"]["payload"] == "größe"
    assert "delay" not in components["header"], "the server delays; it would fail on our dates"
    if expiration is not None:
        read = dt.datetime.strptime(expiration, "%Y-%m-%d %H:%M:%S").astimezone()
        assert dt.timedelta(0) <= read - stamped.expiration < dt.timedelta(seconds=1)


def test_our_messages_are_what_it_reads(tmp_path, server, config):
    """By its own way: json.loads, the header's request_type, strptime, the body's payload."""
    with PoolProcess(tmp_path, "--config", "pulpo-config.json", "-w", "1") as pool:
        pool.ready()
        assert pool.ask("pause")["ok"]
        published = pool.command(
            "publish", "echo", "--payload", "hello", "--expires-in", "3600", "--priority", "7",
            "-q", TUBE, "--config", "pulpo-config.json",
        )  # fmt: skip
        assert published.returncode == 0, published.stderr
        with greenstalk.Client((server.host, server.port), use=TUBE, watch=TUBE) as ancestor:
            job = ancestor.reserve(timeout=20)
            priority = ancestor.stats_job(job)["pri"]
            message = json.loads(job.body)
            expiration = dt.datetime.strptime(  # noqa: DTZ007 - as the ancestor has it
                message["header"]["expiration"], "%Y-%m-%d %H:%M:%S"
            )
            ahead = expiration - dt.datetime.now()  # noqa: DTZ005
            ancestor.delete(job)

    assert message["header"]["request_type"] == "echo"
    assert message["body"]["payload"] == "hello"
    assert dt.timedelta(minutes=58) < ahead <= dt.timedelta(minutes=61)
    assert priority == 7


def test_an_unknown_engine_in_its_configuration_is_named(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"queue_adapter_type": "redis"}))
    with PoolProcess(tmp_path, "--config", "x.json") as pool:
        code = pool.wait()

    assert code == 2
    assert "queue_adapter_type: expected file_queue_adapter" in pool.log
