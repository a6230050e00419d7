"""The sample handlers, run as a pool runs them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pulpo_pool.app.samples import sample_pulpo
from pulpo_pool.message import Message
from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.settings import Settings
from pulpo_pool.testing import QueueHarness

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"))


@pytest.fixture
def queue(settings) -> Iterator[QueueHarness]:
    with QueueHarness(sample_pulpo(settings)) as harness:
        yield harness


def publish(queue: QueueHarness, request_type: str, **said: Any) -> None:
    queue.app.publish(Message(request_type=request_type, **said))


def test_all_samples_are_there(settings):
    names = [handler.request_type for handler in sample_pulpo(settings).registry]

    assert names == [
        "crash", "echo", "fail", "fifty-fifty", "lower", "sleep", "success", "transient", "upper",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("request_type", "written"), [("echo", "Grüße"), ("lower", "grüße"), ("upper", "GRÜSSE")]
)
def test_those_that_write_put_each_payload_into_a_file_of_its_own(
    queue, tmp_path, request_type, written
):
    for _ in range(2):
        publish(queue, request_type, payload="Grüße")
    queue.work_off()

    files = list((tmp_path / "state" / "sample-output").iterdir())
    assert [file.read_text("utf-8") for file in files] == [written, written]
    assert all(re.fullmatch(rf"[0-9a-f-]{{36}}\.{request_type}\.txt", file.name) for file in files)


def test_a_payload_that_is_no_text_is_written_as_json(queue, tmp_path):
    publish(queue, "upper", body={"to": ["a", 1, None]})
    queue.work_off()

    (file,) = (tmp_path / "state" / "sample-output").iterdir()
    assert file.read_text("utf-8") == '{"TO": ["A", 1, NULL]}'


def test_where_they_write_is_an_option_of_each(settings, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    app = sample_pulpo(settings)
    app.use(Settings(handlers={"echo": {"destination_directory": str(elsewhere)}}))

    with QueueHarness(app) as queue:
        publish(queue, "echo", payload="x")
        queue.work_off()
    assert len(list(elsewhere.iterdir())) == 1


@pytest.mark.parametrize("said", [{}, {"payload": "anything"}, {"body": {"any": "key"}}])
def test_success_fail_and_transient_end_as_they_are_called(queue, said):
    for request_type in ("success", "fail", "transient"):
        publish(queue, request_type, **said)
    queue.work_through()

    assert [done.outcome for done in queue.done] == [
        JobOutcome.SUCCESS,
        JobOutcome.BURIED,
        JobOutcome.RETRIED,
    ]
    (buried,) = queue.buried()
    assert (buried.reason, buried.error) == ("fatal", "the sample handler `fail` always fails")


def test_fifty_fifty_does_both(queue):
    for _ in range(64):  # all alike once in 2**63 runs
        publish(queue, "fifty-fifty")
    queue.work_through()

    outcomes = {done.outcome for done in queue.done}
    assert outcomes == {JobOutcome.SUCCESS, JobOutcome.RETRIED}


@pytest.mark.parametrize(
    "said", [{"payload": 0.01}, {"payload": "0.01"}, {"body": {"seconds": 0.01}}]
)
def test_sleep_takes_its_seconds_either_way(queue, said):
    publish(queue, "sleep", **said)

    assert queue.work_off() == 1
    assert queue.done[0].seconds >= 0.01


def test_crash_kills_its_process():
    story = "from pulpo_pool.app.samples import crash\ntry: crash()\nfinally: print('still here')\n"
    done = subprocess.run(
        [sys.executable, "-c", story], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""
