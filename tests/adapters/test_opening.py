"""From a URL to an adapter, and from a mistake to what to do about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pulpo_pool.errors import ConfigError
from pulpo_pool.message import Message
from pulpo_pool.queues.adapter import Owner
from pulpo_pool.queues.file import FileQueueAdapter
from pulpo_pool.queues.memory import MemoryQueueAdapter
from pulpo_pool.queues.opening import check_url, file_url, open_queue


def test_a_file_url_opens_a_file_queue_with_what_it_was_given(tmp_path):
    owner = Owner("pool", "instance", 0, 1)

    with open_queue(f"file:{tmp_path}/queue.db", queues=["a", "b"], lease=7, owner=owner) as queue:
        assert isinstance(queue, FileQueueAdapter)
        assert (queue.queues, queue.lease, queue.owner) == (("a", "b"), 7, owner)


def test_a_memory_url_opens_a_memory_queue():
    with open_queue("memory:") as queue:
        assert isinstance(queue, MemoryQueueAdapter)


def test_the_lease_in_the_url_goes_before_the_argument(tmp_path):
    with open_queue(f"file:{tmp_path}/queue.db?durability=normal&lease=30", lease=5) as queue:
        assert queue.lease == 30


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:queue.db", "queue.db"),
        ("file:/var/lib/queue.db", "/var/lib/queue.db"),
        ("file:///var/lib/queue.db", "/var/lib/queue.db"),
        ("file://localhost/var/lib/queue.db", "/var/lib/queue.db"),
        ("FILE:queue.db", "queue.db"),
        ("file:a b#c.db", "a b#c.db"),
        ("file:what%3F.db?lease=1", "what?.db"),
        ("file:100%/queue.db", "100%/queue.db"),
        ("file:100%25.db", "100%.db"),
        ("file:größe.db", "größe.db"),
    ],
)
def test_paths_are_read_as_they_are_meant(url, path):
    assert check_url(url).target == path


@pytest.mark.parametrize(
    "name", ["a b.db", "what?.db", "#1.db", "100%.db", "%3F", "a&b=c.db", "größe.db", "a:b"]
)
def test_file_url_writes_what_opening_reads(tmp_path, name):
    path = f"{tmp_path}/{name}"

    with open_queue(file_url(path)) as queue:
        queue.enqueue(Message(request_type="hello"))

    assert check_url(file_url(path)).target == path
    assert name in {entry.name for entry in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "expected a scheme"),
        ("queue.db", "file:queue.db"),
        ("/var/queue.db", "file:/var/queue.db"),
        ("fiel:queue.db", "did you mean 'file'"),
        ("amqp://host", "schemes: file"),
        ("file:", "expected the path"),
        ("file:/var/lib/", "expected the path"),
        ("file:a%00b", "expected the path"),
        ("file://queue.db", "file:queue.db"),
        ("file://host/queue.db", "'host' stands where"),
        ("file:q.db?durabilty=normal", "did you mean 'durability'"),
        ("file:q.db?colour=red", "parameters: durability, keep_done, lease"),
        ("file:q.db?durability=none", "expected full"),
        ("file:q.db?lease=soon", "expected seconds"),
        ("file:q.db?keep_done=7d", "parameter 'keep_done': expected seconds"),
        ("file:q.db?lease=0", "more than 0"),
        ("file:q.db?lease=nan", "expected seconds"),
        ("file:q.db?lease=inf", "expected seconds"),
        ("file:q.db?lease", "lease=VALUE"),
        ("file:q.db?lease=1&lease=2", "expected one"),
        ("memory:name", "has no name"),
        ("memory:?durability=full", "unknown parameter"),
    ],
)
def test_a_wrong_url_is_a_config_error_that_says_what_to_write(url, said):
    with pytest.raises(ConfigError) as caught:
        check_url(url)

    assert said in str(caught.value)


def test_checking_a_url_opens_and_creates_nothing(tmp_path):
    check_url(f"file:{tmp_path}/queue.db")

    assert list(tmp_path.iterdir()) == []


def test_an_address_says_whether_processes_can_share_the_queue():
    assert check_url("file:queue.db").shared
    assert not check_url("memory:").shared


@pytest.mark.parametrize("queues", [[], [""], ["a\nb"], ["x" * 201]])
def test_a_wrong_queue_name_is_a_config_error(queues):
    with pytest.raises(ConfigError, match="queue"):
        open_queue("memory:", queues=queues)


def test_drivers_are_imported_only_when_their_url_is_opened():
    program = (
        "import sys; from pulpo_pool.queues.opening import check_url;"
        "check_url('file:queue.db'); check_url('memory:');"
        "print({'sqlite3', 'greenstalk', 'psutil'} & set(sys.modules))"
    )

    printed = subprocess.check_output([sys.executable, "-c", program], text=True)

    assert printed == "set()\n"
