"""Errors of one kind have one fingerprint, and others have others."""

from __future__ import annotations

import signal
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulpo_pool.crashes import FORGOTTEN, describe_death
from pulpo_pool.fingerprint import LENGTH, dissect, fingerprint, headline, normalised
from pulpo_pool.scoreboard import Death
from pulpo_pool.states import ExitReason

TRACEBACK = """Traceback (most recent call last):
  File "/app/releases/41/pulpo_pool/worker/loop.py", line 160, in _handle
    answer = answer_of(self._perform(handler, context))
  File "/app/releases/41/shop/mail.py", line 12, in send_email
    deliver(to)
  File "/usr/lib/python3.11/smtplib.py", line 255, in __init__
    raise SMTPConnectError(code, msg)
{kind}: {message}
"""
SEGFAULT = (
    "worker 3 (serial 71) was killed by signal 11 (SIGSEGV) while it held this job; "
    "max RSS 23 MB, CPU 0.1 s"
)
# A busy machine is no failure, and what is searched for is searched for before a change lands.
patient = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
OWN_WORDS = st.text("abcdefghij ", min_size=1)
KINDS = {  # which placeholder stands for a value: texts with different ones are different
    str(kind): kind
    for kind in (
        st.integers().map(str),
        st.uuids().map(str),
        st.text(st.characters(codec="utf-8", exclude_characters="'\"`\\")).map(repr),
        st.sampled_from(["https://example.org/1", "amqp://u:p@h:5672/v?x=1", "a@example.org"]),
        st.lists(st.integers(), min_size=1).map(str),
    )
}


def raised(function, *arguments):
    """Return the traceback of a call that fails, as a worker keeps it."""
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 - all are wanted
        return "".join(traceback.format_exception(error))
    raise AssertionError("it did not fail")


def fail(value, kind=ValueError):
    raise kind(f"no customer {value!r}")


def fail_elsewhere(value):
    raise ValueError(f"no customer {value!r}")


def fail_in_turn(value):
    try:
        fail(value)
    except ValueError as error:
        raise LookupError("cannot bill") from error


def fail_deeply(depth):
    if depth == 0:
        fail(5)
    fail_deeply(depth - 1)


def fail_together(number):
    failures = []
    for value in range(number):
        try:
            fail(value)
        except ValueError as error:
            failures.append(error)
    raise ExceptionGroup("all of them", failures)


class TestWhatIsTheSame:
    @pytest.mark.parametrize("kind", KINDS)
    @patient
    @given(data=st.data())
    def test_values_make_no_difference(self, kind, data):
        one, other = data.draw(KINDS[kind]), data.draw(KINDS[kind])

        assert normalised(f"no user {one} here, sorry") == normalised(
            f"no user {other} here, sorry"
        )

    @patient
    @given(lines=st.lists(st.integers(1, 10**6), min_size=3, max_size=3), release=st.integers(0))
    def test_lines_and_folders_make_no_difference(self, lines, release):
        text = TRACEBACK.format(kind="SMTPConnectError", message="refused")
        moved = text.replace("/41/", f"/{release}/")
        for old, new in zip(("160", "12", "255"), lines, strict=True):
            moved = moved.replace(f"line {old},", f"line {new},")

        assert fingerprint(moved) == fingerprint(text)

    @pytest.mark.parametrize("function", [fail, fail_in_turn, fail_together, fail_deeply])
    def test_real_tracebacks_of_one_failure(self, function):
        """Also in a chain, in a group of another size, and in a deeper recursion."""
        assert fingerprint(raised(function, 2)) == fingerprint(raised(function, 7))

    def test_the_attempt_at_which_a_job_was_given_up(self):
        text = raised(fail, 1)

        assert fingerprint(f"gave up at attempt 3 (stop_after_attempt(3))\n{text}") == fingerprint(
            text
        )
        assert fingerprint("gave up at attempt 3 (limit 3)\nno stock") == fingerprint("no stock")

    def test_a_traceback_that_lost_its_beginning(self):
        frames = [f'  File "/app/a.py", line {n}, in step_{n}\n    go_on()\n' for n in range(90)]
        text = f"Traceback (most recent call last):\n{''.join(frames)}ValueError: no customer 5"

        assert fingerprint("[...]" + text[-600:]) == fingerprint(text)

    def test_a_crash_is_known_by_how_the_worker_ended(self):
        other = SEGFAULT.replace("worker 3 (serial 71)", "worker 0 (serial 9)").replace("23", "99")

        assert fingerprint(SEGFAULT) == fingerprint(other + "\nCurrent thread 0x1 ...")
        assert fingerprint(SEGFAULT) != fingerprint(SEGFAULT.replace("11 (SIGSEGV)", "9 (SIGKILL)"))

    def test_the_words_of_a_real_death_are_understood(self):
        def mark(slot, serial, status, reason=ExitReason.SIGNAL):
            death = Death(serial, reason, status, 1.0, max_rss=serial * 10**6, cpu=serial / 7)
            return fingerprint(describe_death(slot, death))

        assert mark(0, 5, signal.SIGSEGV) == mark(3, 71, signal.SIGSEGV)
        ends = [
            mark(0, 5, signal.SIGSEGV),
            mark(0, 5, signal.SIGKILL),
            mark(0, 5, signal.SIGKILL, ExitReason.OOM),
            mark(0, 5, signal.SIGKILL, ExitReason.JOB_TIMEOUT),
            mark(0, 5, 1 << 8, ExitReason.ERROR),
            mark(0, 5, 2 << 8, ExitReason.ERROR),
            mark(0, 5, FORGOTTEN),
        ]
        assert len(set(ends)) == len(ends)

    def test_without_an_error_the_reason_counts(self):
        assert fingerprint("", "expired") == fingerprint(" \n", "expired")
        assert fingerprint("", "expired") != fingerprint("", "unknown_type")


class TestWhatDiffers:
    def test_type_message_and_place(self):
        marks = [
            fingerprint(raised(fail, 5)),
            fingerprint(raised(fail, 5, KeyError)),
            fingerprint(raised(fail_elsewhere, 5)),
            fingerprint(raised(fail_in_turn, 5)),
            fingerprint(raised(fail_deeply, 5)),
            fingerprint(raised(fail_together, 5)),
            fingerprint(SEGFAULT),
            fingerprint("no stock"),
            fingerprint("no customer"),
            fingerprint("", "expired"),
        ]

        assert len(set(marks)) == len(marks)

    def test_the_apps_own_functions_before_the_librarys(self):
        """Two callers of one library have two errors."""
        text = TRACEBACK.format(kind="SMTPConnectError", message="refused")

        assert dissect(text).frames == ("mail.py:send_email",)
        assert fingerprint(text.replace("send_email", "send_bill")) != fingerprint(text)

    @patient
    @given(one=OWN_WORDS, other=OWN_WORDS)
    def test_words_do(self, one, other):
        same = one.split() == other.split()

        assert (normalised(one) == normalised(other)) == same


class TestAnyText:
    @patient
    @given(st.text(), st.text())
    def test_has_a_fingerprint_and_a_headline(self, error, reason):
        """Errors are foreign text: whatever they are, people see a row."""
        mark = fingerprint(error, reason)

        assert len(mark) == LENGTH
        assert int(mark, 16) >= 0
        assert "\n" not in headline(error)

    @patient
    @given(st.lists(st.sampled_from([*TRACEBACK.splitlines(True), "  | ", SEGFAULT, "x: ", "'"])))
    def test_made_of_tracebacks_in_disorder(self, pieces):
        assert len(fingerprint("".join(pieces))) == LENGTH

    def test_lone_surrogates(self):
        assert len(fingerprint("\udc80", "\udc80")) == LENGTH


class TestPromises:
    @pytest.mark.parametrize(
        ("error", "mark"),
        [
            (
                TRACEBACK.format(kind="smtplib.SMTPConnectError", message="(421, b'busy')"),
                "24a75ece3e91",
            ),
            (SEGFAULT, "140502b259e5"),
            ("'x' is no address", "a05620d28664"),
        ],
    )
    def test_a_fingerprint_outlives_releases(self, error, mark):
        """People write them into tickets: a change of these is a change for them."""
        assert fingerprint(error) == mark

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (TRACEBACK.format(kind="KeyError", message="'a'\nand more"), "KeyError: 'a'"),
            ("Traceback (most recent call last):\nMemoryError\n", "MemoryError"),
            (SEGFAULT, "worker 3 (serial 71) was killed by signal 11 (SIGSEGV)"),
            ("first\nlast\n", "last"),
            ("", ""),
        ],
    )
    def test_a_headline_says_most(self, error, line):
        assert headline(error) == line
