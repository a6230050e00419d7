"""Log lines: one write each, bounded, never forged, and never a reason for a job to fail."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import os
import sys
from datetime import UTC, datetime

import pytest
from loops import Bench

from pulpo_pool.log import (
    LONGEST_LINE,
    Fields,
    JsonFormatter,
    LineHandler,
    TextFormatter,
    keep_logging,
    set_up_logging,
)

WRITERS = 4
LINES_EACH = 150
HOSTILE = [
    "two\nlines",
    "\n12:00:00.000 master error: forged",
    '{"level": "error"}',
    "\x1b[2J\x1b]0;title\x07",
    "nul \x00, bell \x07, return \r, next \x85, separator \u2028",
    "lone \udcff surrogate",
    "\U0001f419" * 5_000,
    "\x01" * 5_000,
    '"\\' * 5_000,
    "x" * 100_000,
]


class Job:
    job_id = "17"
    request_type = "send_email"
    attempt = 2


@pytest.fixture
def loggers():
    """Put root and the pool's loggers back as they were."""
    both = logging.getLogger(), logging.getLogger("pulpo_pool")
    before = [(each, each.handlers[:], each.level, each.propagate) for each in both]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def set_up_as_in_a_process_of_the_pool(name, level, log_format):
    """Without the handlers that pytest gives the root logger as a test begins."""
    logging.getLogger().handlers = []
    return set_up_logging(name, level=level, log_format=log_format)


@pytest.fixture
def lines(loggers, capfd):
    """Return the lines written to standard error since the last call."""

    def read():
        return capfd.readouterr().err.splitlines()

    return read


def record(message, *args, error=None, name="shop"):
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.WARNING, "shop.py", 1, message, args, info)


def raised(message):
    try:
        raise ValueError(message)  # noqa: TRY301 - it is the traceback that is wanted
    except ValueError as error:
        return error


def fields(job=None):
    found = Fields("worker 3", slot=3)
    found.job = job
    return found


# -- formats ----------------------------------------------------------------------------------


def test_a_text_line_says_who_and_which_job():
    line = TextFormatter(fields(Job)).format(record("sent to %s", "a@example.org"))

    assert line[12:] == " worker 3 warning send_email job=17 attempt=2: sent to a@example.org"


def test_a_json_line_says_who_and_which_job():
    line = json.loads(JsonFormatter(fields(Job)).format(record("sent to %s", "a@example.org")))

    assert datetime.fromisoformat(line.pop("time")).tzinfo is UTC
    assert line == {
        "level": "warning",
        "process": "worker 3",
        "slot": 3,
        "pid": os.getpid(),
        "logger": "shop",
        "job_id": "17",
        "request_type": "send_email",
        "attempt": 2,
        "message": "sent to a@example.org",
    }


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("error", [None, "text"], ids=["plain", "traceback"])
def test_json_is_one_bounded_line_whatever_is_logged(message, error):
    error = raised(message) if error else None
    text = JsonFormatter(fields(Job)).format(record("%s", message, error=error, name=message))
    line = json.loads(text)

    assert "\n" not in text
    assert len(text.encode()) < LONGEST_LINE
    assert line["message"]
    assert ("traceback" in line) == bool(error)


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("error", [None, "text"], ids=["plain", "traceback"])
def test_text_is_bounded_and_only_its_first_line_begins_an_event(message, error):
    error = raised(message) if error else None
    text = TextFormatter(fields(Job)).format(record("%s", message, error=error))
    first, *rest = text.splitlines()

    assert " worker 3 warning send_email job=17" in first
    assert all(line.startswith("    ") for line in rest)
    assert len(text.encode("utf-8")) < LONGEST_LINE
    assert all(char.isprintable() or char in "\n\t" for char in text)


def test_a_request_type_from_a_stranger_forges_no_line():
    class Stranger(Job):
        request_type = "x\n12:00:00.000 master error: forged"

    text = TextFormatter(fields(Stranger)).format(record("unknown"))

    assert all(line.startswith("    ") for line in text.splitlines()[1:])


@pytest.mark.parametrize("kind", [TextFormatter, JsonFormatter])
def test_a_long_line_keeps_its_beginning_and_the_cause_at_its_end(kind):
    error = raised("x" * 10_000 + " the cause")
    text = kind(fields()).format(record("what happened", error=error))

    assert "what happened" in text
    assert "the cause" in text


@pytest.mark.parametrize("kind", [TextFormatter, JsonFormatter])
def test_a_message_that_cannot_be_formatted_is_logged_as_it_was_given(kind):
    class Unprintable:
        def __repr__(self):
            raise RuntimeError("no text")

        __str__ = __repr__

    wrong = kind(fields()).format(record("%d apples", "many"))
    worse = kind(fields()).format(record("%s apples", Unprintable()))

    assert "%d apples" in wrong
    assert "many" in wrong
    assert "%s apples" in worse


# -- writing ----------------------------------------------------------------------------------


def write_lines(end, number):
    handler = LineHandler(end)
    handler.setFormatter(JsonFormatter(Fields(f"worker {number}")))
    for line in range(LINES_EACH):
        handler.handle(record("%d %s", line, "\u00e9" * (line * 37 % 5_000)))


def test_lines_of_several_processes_are_not_torn():
    reader, end = os.pipe()
    children = []
    for number in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reader)
                write_lines(end, number)
            finally:
                os._exit(0)
        children.append(pid)
    os.close(end)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        written = [json.loads(line) for line in pipe]
    for pid in children:
        os.waitpid(pid, 0)

    assert len(written) == WRITERS * LINES_EACH
    for number in range(WRITERS):
        mine = [line for line in written if line["process"] == f"worker {number}"]
        assert [int(line["message"].split()[0]) for line in mine] == list(range(LINES_EACH))


def test_a_pipe_without_a_reader_costs_the_line_only():
    reader, end = os.pipe()
    handler = LineHandler(end)
    handler.setFormatter(JsonFormatter(fields()))
    os.close(reader)
    handler.handle(record("nobody hears"))
    os.close(end)


def test_a_handler_of_a_closed_descriptor_never_writes_to_its_next_owner(tmp_path):
    reader, end = os.pipe()
    os.close(reader)
    os.close(end)
    handler = LineHandler(end)
    handler.setFormatter(JsonFormatter(fields()))
    precious = os.open(tmp_path / "queue.db", os.O_CREAT | os.O_RDWR)
    os.dup2(precious, end)
    handler.handle(record("for nobody"))
    os.close(end)
    if precious != end:
        os.close(precious)

    assert (tmp_path / "queue.db").read_bytes() == b""


def test_a_line_reaches_standard_error_though_a_handler_closed_it(lines):
    set_up_as_in_a_process_of_the_pool("worker 0", "info", "json")
    saved = os.dup(2)
    os.close(2)
    logging.getLogger("pulpo_pool.x").info("still here")
    os.dup2(saved, 2)
    os.close(saved)

    assert json.loads(lines()[-1])["message"] == "still here"


# -- loggers ----------------------------------------------------------------------------------


def test_the_users_own_logger_carries_the_job_while_its_handler_runs(lines):
    found = set_up_as_in_a_process_of_the_pool("worker 0", "info", "json")
    bench = Bench()
    shop = logging.getLogger("shop")
    bench.diary.started = lambda context: setattr(found, "job", context)
    bench.diary.finished = lambda done: setattr(found, "job", None)
    bench.publish(lambda: shop.info("inside"))
    bench.loop.turn()
    shop.info("outside")
    inside, outside = map(json.loads, lines())

    assert (inside["message"], inside["request_type"]) == ("inside", "work")
    assert (inside["job_id"], inside["attempt"]) == ("1", 1)
    assert "job_id" not in outside


@pytest.mark.parametrize("name", ["pulpo_pool.worker", "shop"])
def test_what_is_below_the_level_is_not_written(lines, name):
    set_up_as_in_a_process_of_the_pool("worker 0", "warning", "text")
    logging.getLogger(name).info("small")
    logging.getLogger(name).warning("great")
    (line,) = lines()

    assert line.endswith("worker 0 warning: great")


def test_setting_up_twice_writes_each_line_once(lines):
    set_up_as_in_a_process_of_the_pool("master", "info", "text")
    set_up_logging("worker 0", level="info", log_format="text")
    logging.getLogger("pulpo_pool.x").info("once")
    logging.getLogger("shop").info("once")

    assert [line[13:] for line in lines()] == ["worker 0 info: once"] * 2


def test_an_application_that_has_root_handlers_keeps_them(lines):
    heard = []

    class Own(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    logging.getLogger().handlers = [Own()]
    set_up_logging("worker 0", level="info", log_format="text")
    logging.getLogger("shop").warning("mine")
    logging.getLogger("pulpo_pool.x").warning("ours")

    assert heard == ["mine"]
    assert [line[13:] for line in lines()] == ["worker 0 warning: ours"]


def test_an_application_that_configures_logging_does_not_silence_the_pool(lines):
    ours = logging.getLogger("pulpo_pool.worker")
    set_up_as_in_a_process_of_the_pool("worker 0", "info", "text")
    logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}})
    ours.info("silenced")
    keep_logging()
    ours.info("heard")

    assert [line[13:] for line in lines()] == ["worker 0 info: heard"]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "missing"])
def test_auto_is_json_where_there_is_no_terminal(lines, monkeypatch, closed):
    stream = None
    if closed:
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "__stderr__", stream)
    set_up_as_in_a_process_of_the_pool("worker 0", "info", "auto")
    logging.getLogger("pulpo_pool.x").info("line")

    assert json.loads(lines()[0])["message"] == "line"
