"""What people do with jobs on the command line, on the real file queue."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
from pool import INTERRUPTIBLE

from pulpo_pool.codec import Codec
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import BuryReason, JobState
from pulpo_pool.queues.opening import open_queue

PROGRAM = [sys.executable, "-m", "pulpo_pool"]


pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def queue(folder):
    (folder / ".pulpo").mkdir()
    with open_queue("file:.pulpo/queue.db") as queue:
        yield queue


@pytest.fixture
def buried(queue):
    """Two buried jobs, one of them in the queue `mail`."""
    with open_queue("file:.pulpo/queue.db", queues=("default", "mail")) as worker:
        publisher = Publisher(queue)
        for name in ("default", "mail"):
            publisher.publish(Message(request_type="send", body={"n": name}, queue=name))
            worker.bury(worker.dequeue(), reason=BuryReason.FATAL, error="Traceback\nboom\x1b[2J")
    return [record.job_id for record in queue.list_jobs(JobState.BURIED)]


@contextmanager
def writing_end(fifo):
    """Open a FIFO for writing as soon as somebody reads it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    try:
        yield
    finally:
        os.close(descriptor)


class TestTheRealProgram:
    def test_publish_look_and_delete(self, folder):
        def run(*arguments):
            done = subprocess.run(
                [*PROGRAM, *arguments], capture_output=True, text=True, check=False, cwd=folder
            )
            return done.returncode, done.stdout, done.stderr

        published = run(
            "publish", "send_email", "--body", '{"to": "a@example.org"}', "--count", "3"
        )
        counted = run("stats", "--json")
        peeked = run("peek", "1", "--json")
        deleted = run("delete", "1", "99")

        assert published == (0, "published 3 jobs to default\n", "")
        assert json.loads(counted[1])["queues"] == {
            "default": {"ready": 3, "delayed": 0, "reserved": 0, "buried": 0}
        }
        assert json.loads(peeked[1])["body"] == {"to": "a@example.org"}
        assert deleted == (1, "deleted 1 job\n", "pulpo-pool: there is no job '99' in this queue\n")

    def test_a_reader_that_leaves_early_is_no_trouble(self, queue):
        Publisher(queue).publish_many([Message(request_type="echo", payload="x" * 500)] * 2_000)
        with subprocess.Popen(
            [*PROGRAM, "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as program:
            first = program.stdout.readline()
            program.stdout.close()
            complaint = program.stderr.read()

        assert json.loads(first)["job_id"] == "1"
        assert complaint == b""

    def test_an_interrupt_ends_it_quietly(self, folder):
        os.mkfifo(folder / "fifo")
        with (
            subprocess.Popen(
                [*INTERRUPTIBLE, "publish", "--from-file", "fifo"], stderr=subprocess.PIPE
            ) as program,
            writing_end(folder / "fifo"),
        ):
            program.send_signal(signal.SIGINT)
            _, complaint = program.communicate(timeout=30)

        assert program.returncode == 130
        assert complaint.strip() == b""

    def test_a_queue_that_fails_on_the_way_says_how_far_it_came(self, queue):
        limited = ["sh", "-c", 'ulimit -f 2048; exec "$@"', "sh", *PROGRAM]
        done = subprocess.run(
            [*limited, "publish", "echo", "--payload", "x" * 200, "--count", "9000"],
            capture_output=True,
            text=True,
            check=False,
        )

        published = queue.stats()["default"].ready
        assert done.returncode == 1
        assert 0 < published < 9_000
        assert f"{published:,} of 9,000 jobs were published before this:" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_full_disk_is_told_in_a_line(self, queue):
        Publisher(queue).publish(Message(request_type="echo"))
        with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
            done = subprocess.run(
                [*PROGRAM, "list", "--json"], stdout=full, stderr=subprocess.PIPE, check=False
            )

        assert (done.returncode, done.stderr) == (1, b"pulpo-pool: No space left on device\n")

    def test_a_long_publication_shows_its_progress_on_a_terminal(self, folder):
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [*PROGRAM, "publish", "echo", "--count", "2500"], stdout=subprocess.PIPE, stderr=theirs
        ) as program:
            os.close(theirs)
            shown = b"".join(_until_hung_up(ours))
            answer = program.stdout.read()
        os.close(ours)

        assert b"2500/2500" in shown
        assert answer == b"published 2,500 jobs to default\n"


def _until_hung_up(terminal):
    with suppress(OSError):  # how Linux says that the other side has closed
        while shown := os.read(terminal, 65_536):
            yield shown


class TestPublish:
    def test_options_become_the_message(self, lines, queue):
        [printed] = lines(
            *("publish", "echo", "--payload", "hello", "-q", "mail", "--priority", "7"),
            *("--delay", "60", "--expires-in", "3600"),
        )

        [record] = queue.list_jobs(JobState.DELAYED)
        message = record.message()
        assert printed == {"id": message.id, "job_id": record.job_id}
        assert (message.body, message.queue, message.priority) == ({"payload": "hello"}, "mail", 7)
        assert (message.expiration - message.not_before).total_seconds() == pytest.approx(
            3540, abs=1
        )

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--delay", "-1"], "--delay: expected 0 seconds or more, got -1.0"),
            (["--delay", "soon"], "'--delay': 'soon' is not a valid float"),
            (["--delay", "nan"], "--delay: expected 0 seconds or more"),
            (["--delay", "1e300"], "--delay: 1e+300 seconds from now is no date"),
            (["--expires-in", "-1"], "--expires-in: expected 0 seconds or more"),
            (["--priority", "-1"], "--priority: expected a whole number from 0"),
            (["--priority", "4294967296"], "--priority: expected a whole number from 0"),
            (["--body", "[1]"], "--body: expected a JSON object"),
            (["--body", "5"], "--body: expected a JSON object"),
            (["--body", "{'a': 1}"], "--body: is not JSON"),
            (["--body", "null"], "--body: expected a JSON object"),
            (["--body", "{}", "--payload", "x"], "--payload: expected a body or a payload"),
            (["-q", ""], "--queue: expected 1 to 200 printable characters"),
            (["--count", "0"], "'--count': 0 is not in the range"),
            (["--from-file", "-"], "REQUEST_TYPE and --from-file exclude each other"),
        ],
    )
    def test_a_wrong_option_is_named(self, call, queue, options, complaint):
        result = call("publish", "echo", *options)

        assert result.exit_code == 2
        assert complaint in result.stderr
        assert queue.stats() == {}

    def test_something_has_to_be_published(self, call):
        result = call("publish")

        assert result.exit_code == 2
        assert "expected a REQUEST_TYPE or --from-file FILE" in result.stderr

    def test_too_large_a_message(self, call, queue, folder):
        (folder / "pulpo-pool.toml").write_text("max-message-bytes = 200")

        result = call("publish", "echo", "--payload", "x" * 200)

        assert result.exit_code == 2
        assert "the limit is 200" in result.stderr
        assert queue.stats() == {}

    def test_many_more_than_fit_a_transaction(self, call, queue):
        result = call("publish", "echo", "--count", "2500")

        assert result.stdout == "published 2,500 jobs to default\n"
        assert queue.stats()["default"].ready == 2_500

    def test_a_queue_in_memory_would_lose_them(self, call):
        result = call("publish", "echo", "--broker", "memory:")

        assert result.exit_code == 2
        assert "lives in one process" in result.stderr

    def test_the_configured_serializer_is_used(self, call, queue, folder):
        (folder / "pulpo-pool.toml").write_text('serializer = "msgpack"')

        call("publish", "echo", "--payload", "x")

        [record] = queue.list_jobs(JobState.READY)
        assert record.raw[:1] != b"{"
        assert Codec().decode(record.raw).payload == "x"


class TestPublishFromFile:
    def test_a_line_says_all_that_options_say(self, lines, queue, folder):
        (folder / "jobs.jsonl").write_bytes(
            b'\xef\xbb\xbf{"request_type": "a", "body": {"n": 1}, "priority": 3}\r\n'
            b"\n"
            b'{"request_type": "b", "payload": 0, "queue": "mail", "expires_in": 60}\n'
            b'{"request_type": "c", "delay": 60, "header": {"traceparent": "00-1"}}'
        )

        printed = lines("publish", "--from-file", "jobs.jsonl")

        found = {job["job_id"]: queue.peek(job["job_id"]) for job in printed}
        first, second, third = (record.message() for record in found.values())
        assert [job["id"] for job in printed] == [first.id, second.id, third.id]
        assert (first.request_type, first.body, first.priority) == ("a", {"n": 1}, 3)
        assert (second.queue, second.body) == ("mail", {"payload": 0})
        assert second.expiration > second.published_at
        assert third.header["traceparent"] == "00-1"
        assert [record.state.value for record in found.values()] == ["ready", "ready", "delayed"]

    def test_options_hold_for_lines_that_say_nothing(self, call, queue):
        result = call(
            *("publish", "--from-file", "-", "-q", "mail", "--priority", "5"),
            stdin='{"request_type": "a"}\n'
            '{"request_type": "b", "queue": "own", "priority": 0}\n'
            '{"request_type": "c", "header": {"queue": "own", "priority": 1}}\n',
        )

        records = [record.message() for record in queue.list_jobs(JobState.READY)]
        assert result.stdout == "published 3 jobs: 2 to own, 1 to mail\n"
        assert [(each.request_type, each.queue, each.priority) for each in records] == [
            ("b", "own", 0),
            ("c", "own", 1),
            ("a", "mail", 5),
        ]

    @pytest.mark.parametrize(
        ("queues", "queue"), [('["mail", "own"]', "mail"), ('["mail", "default"]', "default")]
    )
    def test_without_a_queue_a_job_goes_where_the_configured_workers_look(
        self, call, folder, queues, queue
    ):
        (folder / "pulpo-pool.toml").write_text(f"queues = {queues}")

        alone = call("publish", "a")
        lines = call("publish", "--from-file", "-", stdin='{"request_type": "a"}\n')

        assert alone.stdout == lines.stdout == f"published 1 job to {queue}\n"

    def test_bad_lines_are_named_and_nothing_is_published(self, call, queue):
        bad = [
            (b'{"request_type": "a", "delya": 3}', "delya: no such key; did you mean 'delay'?"),
            (b"[1]", "expected an object, such as"),
            (b"{oops}", "is not JSON"),
            (b"\xff\xfe", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b"{}", "request_type: expected"),
            (b'{"request_type": 5}', "request_type: expected"),
            (b'{"request_type": "a", "body": []}', "body: expected a mapping, got list"),
            (b'{"request_type": "a", "body": {}, "payload": 1}', "payload: expected a body or"),
            (b'{"request_type": "a", "delay": -1}', "delay: expected 0 seconds or more"),
            (b'{"request_type": "a", "delay": "1s"}', "delay: expected seconds"),
            (b'{"request_type": "a", "expires_in": true}', "expires_in: expected seconds"),
            (b'{"request_type": "a", "priority": 1.5}', "priority: expected a whole number"),
            (b'{"request_type": "a", "queue": ""}', "queue: expected 1 to 200"),
            (b'{"request_type": "a", "header": 5}', "header: expected a mapping, got int"),
            (b'{"request_type": "a", "payload": "%s"}' % (b"x" * 2**20), "the limit is 1,048,576"),
        ]
        text = b'{"request_type": "good"}\n' + b"\n".join(line for line, _ in bad)

        result = call("publish", "--from-file", "-", "-q", "mail", stdin=text)

        told = result.stderr.splitlines()
        assert result.exit_code == 2
        assert told[0] == "pulpo-pool: nothing was published:"
        for number, (line, (_, complaint)) in enumerate(zip(told[1:], bad, strict=True), start=2):
            assert line.startswith(f"  line {number}: ")
            assert complaint in line
        assert queue.stats() == {}

    def test_of_very_many_bad_lines_twenty_are_named(self, call):
        result = call("publish", "--from-file", "-", stdin="{}\n" * 1_030)

        told = result.stderr.splitlines()
        assert len(told) == 22
        assert told[-1] == "  and 1,010 more"

    def test_a_bad_last_line_stops_even_many_good_ones(self, call, queue):
        result = call("publish", "--from-file", "-", stdin='{"request_type": "a"}\n' * 1_500 + "{")

        assert result.exit_code == 2
        assert "line 1501: is not JSON" in result.stderr
        assert queue.stats() == {}

    def test_an_empty_file_is_no_mistake(self, call):
        result = call("publish", "--from-file", "-", stdin="")

        assert (result.exit_code, result.stdout) == (0, "published 0 jobs\n")

    def test_a_file_that_is_missing(self, call):
        result = call("publish", "--from-file", "none.jsonl")

        assert result.exit_code == 2
        assert "'none.jsonl': No such file or directory" in result.stderr

    @pytest.mark.parametrize(
        "options",
        [["--body", "{}"], ["--payload", "x"], ["--count", "2"]],
        ids=lambda each: each[0],
    )
    def test_options_for_one_job_are_refused(self, call, options):
        result = call("publish", "--from-file", "-", *options, stdin="")

        assert result.exit_code == 2
        assert f"{options[0]} and --from-file exclude each other" in result.stderr

    def test_a_wrong_option_for_every_line_is_named_once(self, call):
        result = call("publish", "--from-file", "-", "--delay", "-1", stdin='{"request_type": "a"}')

        assert result.stderr == "pulpo-pool: --delay: expected 0 seconds or more, got -1.0\n"


class TestLooking:
    def test_stats_sum_up_and_tell_by_queue(self, lines, queue, buried):
        Publisher(queue).publish(Message(request_type="a", queue="mail", delay=60))

        [stats] = lines("stats")

        assert stats == {
            "ready": 0,
            "delayed": 1,
            "reserved": 0,
            "buried": 2,
            "queues": {
                "default": {"ready": 0, "delayed": 0, "reserved": 0, "buried": 1},
                "mail": {"ready": 0, "delayed": 1, "reserved": 0, "buried": 1},
            },
        }

    def test_stats_for_people(self, call, buried):
        header, *rows = call("stats").stdout.splitlines()

        assert header.split() == ["QUEUE", "READY", "DELAYED", "RESERVED", "BURIED"]
        assert [row.split() for row in rows] == [
            ["default", "0", "0", "0", "1"],
            ["mail", "0", "0", "0", "1"],
            ["all", "queues", "0", "0", "0", "2"],
        ]

    def test_an_empty_queue_has_none(self, lines):
        assert lines("stats") == [
            {"ready": 0, "delayed": 0, "reserved": 0, "buried": 0, "queues": {}}
        ]

    def test_list_prints_a_job_a_line(self, lines, buried):
        jobs = lines("list", "--state", "buried")

        told = ("job_id", "queue", "request_type", "body", "attempts", "crashes", "reason")
        assert [tuple(job[key] for key in told) for job in jobs] == [
            (buried[0], "default", "send", {"n": "default"}, 1, 0, "fatal"),
            (buried[1], "mail", "send", {"n": "mail"}, 1, 0, "fatal"),
        ]
        assert jobs[0]["error"] == "Traceback\nboom\x1b[2J"

    def test_list_can_be_narrowed(self, lines, buried):
        in_mail = lines("list", "--state", "buried", "-q", "mail")
        limited = lines("list", "--limit", "1")
        none = lines("list", "--limit", "0")

        assert [job["job_id"] for job in in_mail] == [buried[1]]
        assert [job["job_id"] for job in limited] == [buried[0]]
        assert none == []

    def test_a_table_says_that_it_is_not_all(self, call, queue):
        Publisher(queue).publish_many([Message(request_type="echo")] * 51)

        cut, whole = call("list"), call("list", "--limit", "60")

        assert len(cut.stdout.splitlines()) == 51
        assert cut.stderr == "the first 50 jobs; --limit N shows more\n"
        assert (len(whole.stdout.splitlines()), whole.stderr) == (52, "")

    def test_what_a_job_says_cannot_command_the_terminal(self, call, buried):
        listed, peeked = call("list"), call("peek", buried[0])

        assert r"boom\x1b[2J" in listed.stdout
        assert r"boom\x1b[2J" in peeked.stdout
        assert "\x1b" not in listed.stdout + peeked.stdout

    def test_peek_shows_a_job_whole(self, call, lines, buried):
        [job] = lines("peek", buried[1])
        for_people = call("peek", buried[1]).stdout

        assert (job["state"], job["body"], job["reason"]) == ("buried", {"n": "mail"}, "fatal")
        assert '"n": "mail"' in for_people

    @pytest.mark.parametrize("name", ["peek", "kick", "delete"])
    @pytest.mark.parametrize("job_id", ["99", "x", "9" * 40, "\udc80"])
    def test_a_job_that_does_not_exist(self, call, name, job_id):
        result = call(name, job_id)

        assert result.exit_code == 1
        assert result.stderr.startswith("pulpo-pool: there is no job ")


class TestMending:
    def test_kick_by_id(self, call, queue, buried):
        result = call("kick", buried[0])

        record = queue.peek(buried[0])
        assert result.stdout == "kicked 1 job\n"
        assert (record.state, record.attempts) == (JobState.READY, 0)
        assert queue.peek(buried[1]).state is JobState.BURIED

    def test_kick_all_of_a_queue(self, call, queue, buried):
        result = call("kick", "--all", "-q", "mail")

        assert result.stdout == "kicked 1 job\n"
        assert queue.peek(buried[0]).state is JobState.BURIED
        assert queue.peek(buried[1]).state is JobState.READY

    @pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["1", "-q", "mail"]])
    def test_kick_wants_ids_or_all(self, call, arguments):
        assert call("kick", *arguments).exit_code == 2

    def test_purge_asks_only_on_a_terminal(self, call, queue, buried):
        refused = call("purge", "--state", "buried")

        assert refused.exit_code == 2
        assert "--yes removes the jobs" in refused.stderr
        assert queue.stats()["mail"].buried == 1

    def test_purge_keeps_other_queues_and_states(self, call, queue, buried):
        Publisher(queue).publish(Message(request_type="a", queue="mail"))

        result = call("purge", "--state", "buried", "-q", "mail", "--yes")

        stats = queue.stats()
        assert result.stdout == "removed 1 job\n"
        assert (stats["mail"].ready, stats["mail"].buried, stats["default"].buried) == (1, 0, 1)

    @pytest.mark.parametrize(("answer", "left"), [(b"y\n", 0), (b"n\n", 2)])
    def test_purge_on_a_terminal_does_as_told(self, queue, buried, answer, left):
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [*PROGRAM, "purge", "--state", "buried"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as program:
            os.write(ours, answer)
            _, question = program.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)

        assert b"Remove 2 buried jobs?" in question
        assert program.returncode == (1 if left else 0)
        assert sum(counts.buried for counts in queue.stats().values()) == left


class TestWhere:
    def test_a_broker_can_be_named(self, call, lines, folder):
        call("publish", "echo", "--broker", "file:other.db")

        assert lines("stats", "-b", "file:other.db")[0]["ready"] == 1
        assert not (folder / ".pulpo").exists()

    def test_the_environment_can_name_it(self, call, lines, monkeypatch):
        monkeypatch.setenv("PULPO_POOL_BROKER", "file:other.db")
        call("publish", "echo")

        assert lines("stats", "-b", "file:other.db")[0]["ready"] == 1

    def test_a_place_that_does_not_exist(self, call):
        result = call("stats", "-b", "file:/nowhere/at/all.db")

        assert result.exit_code == 2
        assert "does not exist" in result.stderr

    def test_a_file_that_is_no_queue(self, call, folder):
        (folder / "notes.txt").write_text("hello " * 1_000)

        result = call("stats", "-b", "file:notes.txt")

        assert result.exit_code == 2
        assert result.stderr.startswith("pulpo-pool: ")


class TestCheck:
    @pytest.fixture
    def app(self, folder, monkeypatch):
        """A module of the user's, found again by the next test under another name."""
        monkeypatch.setattr(sys, "path", list(sys.path))

        def app(name, text):
            (folder / f"{name}.py").write_text(text)
            return f"{name}:pulpo"

        yield app
        for name in [name for name in sys.modules if name.startswith("cli_app_")]:
            del sys.modules[name]

    def test_settings_are_told_with_their_sources(self, lines, folder, monkeypatch):
        (folder / "pulpo-pool.toml").write_text("lease = 90")
        monkeypatch.setenv("PULPO_POOL_MAX_CRASHES", "5")

        [report] = lines("check", "-w", "3")

        settings = report["settings"]
        assert settings["lease"] == {"value": 90.0, "source": "pulpo-pool.toml: lease"}
        assert settings["max-crashes"] == {
            "value": 5,
            "source": "environment: PULPO_POOL_MAX_CRASHES",
        }
        assert settings["workers"] == {"value": 3, "source": "command line: --workers"}
        assert settings["drain-timeout"] == {"value": 25.0, "source": "default"}

    def test_without_an_app_the_samples_are_described(self, call, lines, folder):
        [report] = lines("check")
        text = call("check").stdout

        assert report["app"] is None
        assert "echo" in [handler["request_type"] for handler in report["handlers"]]
        assert "The app is the samples." in text
        assert not (folder / ".pulpo").exists()

    def test_handlers_are_told_with_their_policies(self, call, lines, app):
        spec = app(
            "cli_app_shop",
            "from pulpo_pool import Pulpo\n"
            "from tenacity import stop_after_attempt\n"
            "print('loading')\n"
            "pulpo = Pulpo()\n"
            "@pulpo.job('mail', stop=stop_after_attempt(3), pause_on=OSError, pause=60)\n"
            "def send(to: str): ...\n",
        )

        [report] = lines("check", spec)
        text = call("check", spec).stdout

        [handler] = report["handlers"]
        assert handler["request_type"] == "mail"
        assert handler["callable"] == "cli_app_shop:send(to: str)"
        assert "stop_after_attempt(max_attempt_number=3)" in handler["retry"]
        assert handler["pause"] == "on OSError for 60 s, doubling"
        assert "PAUSE" in text

    def test_an_app_that_raises_shows_its_own_traceback(self, call, app):
        spec = app("cli_app_broken", "def fail():\n    raise OSError('no database')\nfail()\n")

        result = call("check", spec)

        assert result.exit_code == 3
        assert "cli_app_broken.py" in result.stderr
        assert "OSError: no database" in result.stderr
        assert "pulpo_pool/" not in result.stderr

    def test_a_mistyped_app(self, call, app):
        app("cli_app_typo", "from pulpo_pool import Pulpo\npulpo = Pulpo()\n")

        wrong_name = call("check", "cli_app_typo:pulp")
        wrong_module = call("check", "cli_app_tyop:pulpo")

        assert (wrong_name.exit_code, wrong_module.exit_code) == (2, 2)
        assert "did you mean 'pulpo'?" in wrong_name.stderr
        assert "did you mean 'cli_app_typo" in wrong_module.stderr

    def test_options_for_a_mistyped_handler_are_a_warning(self, call, folder):
        (folder / "pulpo-pool.toml").write_text('[handlers.ecoh]\npath = "x"')

        result = call("check")

        warning = "warning: handlers.ecoh: the app has no such handler; did you mean 'echo'?"
        assert result.exit_code == 0
        assert result.stderr == f"pulpo-pool: {warning}\n"

    def test_secrets_are_not_shown(self, call, folder):
        (folder / "pulpo-pool.toml").write_text(
            '[handlers.echo]\nsmtp_password = "hunter2"\nnested = {api_key = "hunter2"}\n'
        )

        text = call("check").stdout + call("check", "--json").stdout

        assert "hunter2" not in text
        assert "***" in text
