"""Dead letters on the command line: found, understood, put right; the same on every broker."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from pool import INTERRUPTIBLE
from servers import Beanstalkd

from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import BuryReason, JobState
from pulpo_pool.queues.opening import open_queue

TRACEBACK = (
    'Traceback (most recent call last):\n  File "/app/shop.py", line 3, in send\n'
    "    raise ValueError\nValueError: no customer {} in '\x1b[2J'\n"
)


@pytest.fixture(autouse=True)
def folder(folder, monkeypatch):
    """The same folder for what an editor is given, too."""
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(params=["file", "beanstalkd"])
def broker(request, folder, monkeypatch):
    """Each engine in turn, named in the environment."""
    (folder / ".pulpo").mkdir()
    if request.param == "file":
        monkeypatch.setenv("PULPO_POOL_BROKER", "file:.pulpo/queue.db")
        yield "file:.pulpo/queue.db"
        return
    with Beanstalkd() as server:
        monkeypatch.setenv("PULPO_POOL_BROKER", server.url)
        yield server.url


@pytest.fixture
def queue(broker, folder):
    evidence = folder / ".pulpo" / "evidence.db"
    with open_queue(broker, queues=("default", "mail"), evidence_file=evidence) as queue:
        yield queue


@pytest.fixture
def letters(queue):
    """Six buried jobs: three failed alike, two were too late, one is of no known type."""
    failures = [
        ("send", "mail", BuryReason.FATAL, TRACEBACK.format(1)),
        ("send", "mail", BuryReason.FATAL, TRACEBACK.format(2)),
        ("bill", "default", BuryReason.EXHAUSTED, TRACEBACK.format(3)),
        ("bill", "default", BuryReason.EXPIRED, ""),
        ("bill", "default", BuryReason.EXPIRED, ""),
        ("sync", "default", BuryReason.UNKNOWN_TYPE, "no handler"),
    ]
    publisher = Publisher(queue)
    found = []
    for number, (request_type, name, reason, error) in enumerate(failures):
        body = {"to": f"user{number}", "items": [number]}
        header = {"colour": "blue"}
        _, job_id = publisher.publish(
            Message(request_type=request_type, queue=name, body=body, header=header)
        )
        queue.bury(queue.dequeue(20), reason=reason, error=error)
        found.append(job_id)
    return found


def ids(jobs):
    return [job["job_id"] for job in jobs]


def states(queue, job_ids):
    return [queue.peek(job_id).state.value for job_id in job_ids]


class TestFinding:
    def test_filters_find_what_they_say(self, lines, letters):
        def found(*options):
            return [letters.index(job) for job in ids(lines("list", "--state", "buried", *options))]

        assert found() == [0, 1, 2, 3, 4, 5]
        assert found("--request-type", "send", "--request-type", "sync") == [0, 1, 5]
        assert found("--error", "NO CUSTOMER", "-q", "mail") == [0, 1]
        assert found("--error", "expired") == [3, 4]
        assert found("--since", "1h") == [0, 1, 2, 3, 4, 5]
        assert found("--since", "2999-01-01") == []

    def test_groups_show_what_failed_alike(self, call, lines, letters):
        before = time.time()
        groups = lines("list", "--state", "buried", "--group")
        table = call("list", "--group").stdout
        largest = groups[0]
        members = lines("list", "--fingerprint", largest["fingerprint"][:6].upper())

        assert [group["count"] for group in groups] == [3, 2, 1]
        assert largest["request_types"] == {"send": 2, "bill": 1}
        assert largest["example"] == letters[2]
        assert largest["error"] == "ValueError: no customer 3 in '\x1b[2J'"
        assert before - 600 < largest["first"] <= largest["last"] <= before
        assert ids(members) == letters[:3]
        assert [member["fingerprint"] for member in members] == [largest["fingerprint"]] * 3
        header, row, *_ = table.splitlines()
        assert header.split() == [
            *("FINGERPRINT", "REQUEST", "TYPES", "COUNT", "FIRST", "LAST", "EXAMPLE", "ERROR")
        ]
        assert row.startswith(largest["fingerprint"])
        assert "send, bill" in row
        assert r"no customer 3 in '\x1b[2J'" in row
        assert "\x1b" not in table

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--since", "yesterday"], "expected an age, such as 90m, 2h or 1d12h"),
            (["--fingerprint", "abc"], "expected 4 to 12 of the digits"),
            (["--fingerprint", "nothing!"], "expected 4 to 12 of the digits"),
        ],
    )
    def test_a_wrong_filter_is_named(self, call, options, complaint):
        result = call("list", *options)

        assert result.exit_code == 2
        assert complaint in result.stderr


class TestKicking:
    def test_what_failed_alike_is_kicked_at_a_rate(self, call, lines, queue, letters):
        mark = lines("list", "--group")[0]["fingerprint"]
        tried = call("kick", "--fingerprint", mark, "--rate", "200/s", "--dry-run")
        untouched = states(queue, letters)
        result = call("kick", "--fingerprint", mark, "--rate", "200/s")

        assert tried.stdout == "would have kicked 3 jobs: 2 send, 1 bill\n"
        assert set(untouched) == {"buried"}
        assert (result.exit_code, result.stdout) == (0, "kicked 3 jobs\n")
        assert states(queue, letters) == ["ready"] * 3 + ["buried"] * 3

    def test_all_of_a_queue_can_be_tried_and_kicked_at_a_rate(self, call, lines, queue, letters):
        [tried] = lines("kick", "--all", "-q", "mail", "--dry-run")
        [done] = lines("kick", "--all", "-q", "mail", "--rate", "1000/min")

        told = {"chosen": 2, "request_types": {"send": 2}}
        assert tried == {"kicked": 0, "dry_run": True} | told
        assert done == {"kicked": 2} | told
        assert states(queue, letters[:3]) == ["ready", "ready", "buried"]

    def test_ids_can_be_tried_and_kicked_at_a_rate(self, call, queue, letters):
        tried = call("kick", *letters[:2], "--dry-run")
        unknown = call("kick", letters[0], "999999", "--rate", "50/s")
        untouched = states(queue, letters)
        call("kick", letters[0], "--rate", "50/s")

        assert tried.stdout == "would have kicked 2 jobs: 2 send\n"
        assert unknown.exit_code == 1
        assert set(untouched) == {"buried"}
        assert states(queue, letters[:2]) == ["ready", "buried"]

    def test_a_limit_takes_the_first_of_what_list_shows(self, call, lines, queue, letters):
        """Of those that match: one in front that does not counts for nothing."""
        tried = call("kick", "--all", "--limit", "2", "--dry-run")
        none = call("kick", "--all", "--limit", "0")
        untouched = states(queue, letters)
        [of_a_type] = lines("kick", "--request-type", "bill", "--limit", "2", "--rate", "500/s")
        after_a_filter = states(queue, letters)
        of_all = call("kick", "--all", "--limit", "1")
        at_most = call("kick", "--all", "--limit", "100")

        assert tried.stdout == "would have kicked 2 jobs: 2 send\n"
        assert none.stdout == "kicked 0 jobs\n"
        assert set(untouched) == {"buried"}
        assert of_a_type == {"kicked": 2, "chosen": 2, "request_types": {"bill": 2}}
        assert after_a_filter == ["buried"] * 2 + ["ready"] * 2 + ["buried"] * 2
        assert (of_all.stdout, at_most.stdout) == ("kicked 1 job\n", "kicked 3 jobs\n")
        assert set(states(queue, letters)) == {"ready"}

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--all", "--error", "x"],
            ["1", "--since", "1h"],
            ["-q", "mail"],
            ["1", "--rate", "0"],
            ["--limit", "1"],
            ["1", "--limit", "1"],
            ["--all", "--limit", "-1"],
        ],
    )
    def test_what_is_meant_must_be_clear(self, call, arguments):
        assert call("kick", *arguments).exit_code == 2

    def test_an_interrupt_stops_between_two_jobs_and_says_how_many(self, queue, letters):
        """The first is kicked at once, the second would be in an hour; a terminal shows a bar."""
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [*INTERRUPTIBLE, "kick", "--all", "--rate", "1/h"],
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
        ) as program:
            os.close(theirs)
            shown = b""
            while b"1/6" not in shown:
                assert select.select([ours], [], [], 30)[0], shown
                shown += os.read(ours, 65_536)
            program.send_signal(signal.SIGINT)
            told = program.stdout.read()
        os.close(ours)

        assert program.returncode == 130
        assert told == "kicked 1 of 6 jobs, then was told to stop\n"
        assert b"Traceback" not in shown
        assert sorted(states(queue, letters)) == ["buried"] * 5 + ["ready"]


class TestRemoving:
    def test_delete_by_a_filter_asks_or_is_told(self, call, lines, queue, letters):
        refused = call("delete", "--error", "expired")
        tried = call("delete", "--error", "expired", "--dry-run")
        [done] = lines("delete", "--error", "expired", "--yes")

        assert (refused.exit_code, "--yes removes the jobs" in refused.stderr) == (2, True)
        assert tried.stdout == "would have deleted 2 jobs: 2 bill\n"
        assert done == {"deleted": 2, "chosen": 2, "request_types": {"bill": 2}}
        assert sum(counts.buried for counts in queue.stats().values()) == 4

    def test_a_limit_removes_the_first_of_what_list_shows(self, call, lines, queue, letters):
        """With --limit alone `delete` would mean every buried job, which is what `purge` is for."""
        tried = call("delete", "--request-type", "bill", "--limit", "2", "--dry-run")
        [deleted] = lines("delete", "--request-type", "bill", "--limit", "2", "--yes")
        after_delete = ids(lines("list", "--state", "buried"))
        [purged] = lines("purge", "--state", "buried", "--limit", "3", "--yes")
        left = ids(lines("list", "--state", "buried"))
        refused = [
            call("delete", *arguments, "--yes").exit_code
            for arguments in (["--limit", "1"], [letters[5], "--limit", "1"])
        ]

        assert tried.stdout == "would have deleted 2 jobs: 2 bill\n"
        assert deleted == {"deleted": 2, "chosen": 2, "request_types": {"bill": 2}}
        assert after_delete == [letters[0], letters[1], letters[4], letters[5]]
        assert purged == {"removed": 3, "chosen": 3, "request_types": {"send": 2, "bill": 1}}
        assert left == [letters[5]]
        assert refused == [2, 2]

    def test_delete_by_id_can_be_tried(self, call, lines, queue, letters):
        tried = call("delete", letters[0], "--dry-run")
        [done] = lines("delete", letters[1])

        assert tried.stdout == "would have deleted 1 job: 1 send\n"
        assert done == {"deleted": 1}
        assert queue.peek(letters[0]).state is JobState.BURIED

    def test_purge_takes_filters_for_any_state(self, call, lines, queue, letters):
        Publisher(queue).publish_many(
            [Message(request_type=name, delay=600) for name in ("send", "sync", "send")]
        )
        tried = call("purge", "--state", "delayed", "--request-type", "send", "--dry-run")
        [done] = lines("purge", "--state", "delayed", "--request-type", "send", "--yes")
        [rest] = lines("purge", "--state", "delayed", "--yes")

        assert tried.stdout == "would have removed 2 jobs: 2 send\n"
        assert done == {"removed": 2, "chosen": 2, "request_types": {"send": 2}}
        assert rest == {"removed": 1}
        assert set(states(queue, letters)) == {"buried"}


class TestEditing:
    def test_parts_are_set_and_removed(self, call, lines, queue, letters):
        before = queue.peek(letters[0])
        [done] = lines(
            *("edit", letters[0], "--set", "body.to=a@example.org", "--set", "body.items[1]=5"),
            *("--set", 'body.more={"deep": [null]}', "--set", "header.priority=7"),
            *("--unset", "header.colour", "--set", "header.size=big"),
        )
        after = queue.peek(done["job_id"])
        call("kick", after.job_id)
        held = queue.dequeue(20)

        message = after.message()
        assert (done["was"], done["changed"]) == (letters[0], True)
        assert message.body == {
            "to": "a@example.org", "items": [0, 5], "more": {"deep": [None]},
        }  # fmt: skip
        assert message.id == before.message().id
        header = dict(before.message().header) | {"priority": 7, "size": "big"}
        del header["colour"]
        assert message.header == header
        assert (after.state, after.queue, after.priority) == (JobState.BURIED, "mail", 7)
        assert after.history == before.history
        assert (held.queue, held.message) == ("mail", message)
        assert sum(map(sum_of, queue.stats().values())) == len(letters)

    def test_a_job_in_somebodys_hands_is_left_alone(self, call, queue):
        Publisher(queue).publish(Message(request_type="send"))
        held = queue.dequeue(20)
        result = call("edit", held.job_id, "--set", "body.x=1")

        assert result.exit_code == 1
        assert "is in a worker's hands" in result.stderr
        queue.commit(held)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ("body=5", "body: expected a mapping"),
            ("body.x=" + "y" * 3_000, "the limit is 2,000"),
            ("body.x=\udc80", "cannot be serialized"),
            ("header.request_type=", "request_type: expected 1 to 200 printable"),
            ("header.priority=-1", "priority: expected a whole number"),
            ("header.expiration=soon", "expiration: expected an ISO 8601 date"),
            ("header.queue=other", "header.queue: cannot be changed: a job stays in its queue"),
            ("header.published_at=2026-01-01T00:00Z", "header.published_at: cannot be changed"),
            ("header.not_before=2026-01-01T00:00Z", "header.not_before: cannot be changed"),
            ("header.delay=2026-01-01T00:00Z", "header.delay: cannot be changed"),
            ("id=other", "id: cannot be changed"),
            ("bdy.x=1", "bdy: a message has id, header, body; did you mean 'body'?"),
            ("body.to.x=1", "body.to.x: what is before the last step is not an object"),
        ],
    )
    def test_what_no_publisher_could_send_is_refused(
        self, call, queue, letters, folder, change, complaint
    ):
        (folder / "pulpo-pool.toml").write_text("max-message-bytes = 2000")
        before = queue.peek(letters[0])
        result = call("edit", letters[0], "--set", change)

        assert result.exit_code == 2
        assert complaint in result.stderr
        assert queue.peek(letters[0]).raw == before.raw

    def test_what_is_no_message_cannot_be_edited(self, call, folder, monkeypatch):
        monkeypatch.setenv("PULPO_POOL_BROKER", "file:queue.db")
        call("publish", "x")
        with closing(sqlite3.connect("queue.db", timeout=10)) as database, database:
            database.execute("UPDATE jobs SET raw = 'x'")
        result = call("edit", "1", "--set", "body.x=1")

        assert result.exit_code == 1
        assert "only messages can be edited" in result.stderr

    def test_a_request_type_that_the_app_does_not_know_is_a_warning(
        self, call, queue, letters, folder, monkeypatch
    ):
        (folder / "letters_shop.py").write_text(
            "from pulpo_pool import Pulpo\npulpo = Pulpo()\n@pulpo.job('send')\ndef send(): ...\n"
        )
        (folder / "pulpo-pool.toml").write_text('app = "letters_shop:pulpo"')
        monkeypatch.setattr(sys, "path", list(sys.path))
        wrong = call("edit", letters[5], "--set", "header.request_type=sned")
        sys.modules.pop("letters_shop", None)

        assert wrong.exit_code == 0
        assert "has no handler for 'sned'; did you mean 'send'?" in wrong.stderr


def sum_of(counts):
    return counts.ready + counts.delayed + counts.reserved + counts.buried


class TestEditingInAnEditor:
    @pytest.fixture
    def editor(self, folder, monkeypatch):
        """Make a script the editor: it has the file's path as $1."""

        def editor(script, variable="EDITOR"):
            path = folder / "editor"
            path.write_text(f'#!/bin/sh\ncp "$1" {folder}/shown\n{script}\n')
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
            monkeypatch.setenv(variable, str(path))

        return editor

    def test_what_is_saved_replaces_the_message(self, lines, queue, letters, folder, editor):
        editor('sed -i s/user0/somebody/ "$1"', "VISUAL")
        before = queue.peek(letters[0]).message()
        [done] = lines("edit", letters[0])
        after = queue.peek(done["job_id"]).message()
        shown = (folder / "shown").read_text()

        assert after.body == before.body | {"to": "somebody"}
        assert (after.id, after.header) == (before.id, before.header)
        assert shown.startswith(f"# Job {letters[0]} of queue mail, buried.\n# fatal: ValueError")
        assert "request_type, priority, expiration" in shown
        assert "\x1b" not in shown

    @pytest.mark.parametrize("script", ["true", ': > "$1"', 'sed -i "s/^#.*/# /" "$1"'])
    def test_nothing_new_changes_nothing(self, call, queue, letters, editor, script):
        """The file as it was, an empty one, other comments."""
        editor(script)
        before = queue.peek(letters[0])
        result = call("edit", letters[0])

        assert (result.exit_code, result.stdout) == (0, "nothing was changed\n")
        assert queue.peek(letters[0]) == before

    def test_a_mistake_is_told_and_the_text_kept(
        self, call, lines, queue, letters, editor, monkeypatch
    ):
        """And the advice that is given works."""
        editor('sed -i "s/user0/somebody/; s/^}//" "$1"')
        before = queue.peek(letters[0])
        failed = call("edit", letters[0])
        untouched = queue.peek(letters[0])
        advice = re.search(r"EDITOR='(cp (.+\.json))' pulpo-pool edit", failed.stderr)
        kept = Path(advice[2])
        mode = kept.stat().st_mode & 0o777
        kept.write_text(kept.read_text() + "}")
        monkeypatch.setenv("EDITOR", advice[1])
        [done] = lines("edit", letters[0])

        assert failed.exit_code == 2
        assert re.search(r"is not JSON: .* in line \d+, column \d+", failed.stderr)
        assert untouched == before
        assert mode == 0o600
        assert queue.peek(done["job_id"]).message().body["to"] == "somebody"

    def test_a_job_that_somebody_else_edits_meanwhile(self, call, queue, letters, editor):
        """Whoever saves last does not undo the other's work without knowing it."""
        editor(
            f"{sys.executable} -m pulpo_pool edit {letters[0]} --set body.to=first\n"
            'sed -i s/user0/second/ "$1"'
        )
        result = call("edit", letters[0])
        [letter] = [
            record.message().body["to"]
            for record in queue.list_jobs(JobState.BURIED)
            if record.message().body["items"] == [0]
        ]

        assert result.exit_code == 1
        assert letter == "first"

    def test_on_a_terminal_a_mistake_can_be_mended_at_once(self, queue, letters, folder, editor):
        """The second time the editor is shown what is wrong."""
        editor('[ -e once ] && sed -i "s/wrong//" "$1" || echo wrong >> "$1"; touch once')
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "pulpo_pool", "edit", letters[0], "--json"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as program:
            os.write(ours, b"y\n")
            answer, question = program.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)

        assert b"Edit again?" in question
        assert json.loads(answer)["changed"] is False
        assert (folder / "shown").read_text().startswith("#! is not JSON: ")

    def test_without_a_terminal_or_an_editor(self, call, letters):
        result = call("edit", letters[0])

        assert result.exit_code == 2
        assert "say what to change with --set" in result.stderr
