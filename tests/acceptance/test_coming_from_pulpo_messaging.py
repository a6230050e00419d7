"""One tube, two systems: pulpo-messaging's files and messages work here, and ours work there."""

from __future__ import annotations

import datetime as dt
import json

import greenstalk
import pytest
from pool import PoolProcess, eventually
from servers import Beanstalkd

TUBE = "pulpo-beanstalk-queue-adapter"


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
