"""Log lines: text for a terminal, JSON for machines, one write each.

A worker's lines carry who it is and what it works on. Nothing here raises: a full disk or a
closed pipe costs the line, never the job.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import msgspec

LONGEST_LINE: Final = 4_096  # bytes; longer writes to a pipe may be torn (POSIX PIPE_BUF)
_PRIVATE_FD: Final = 100  # out of the way of handlers that close what they did not open

LogFormat = Literal["auto", "text", "json"]


class LineHandler(logging.Handler):
    """Writes each record with one write to its own copy of standard error."""

    def __init__(self, fd: int = 2) -> None:
        super().__init__()
        try:
            self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _PRIVATE_FD)
        except OSError:  # standard error is closed, or the limit of descriptors is low
            self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        """Format and write; a line that cannot be made or written is dropped."""
        with suppress(Exception):
            os.write(self._fd, self.format(record).encode("utf-8", "replace") + b"\n")


class JobFields(Protocol):
    """The job that lines are about. Read when a line is written: an attempt may cost a trip."""

    @property
    def job_id(self) -> str:
        """The queue's handle."""

    @property
    def request_type(self) -> str:
        """Which handler."""

    @property
    def attempt(self) -> int:
        """Which attempt, from 1."""


class Fields:
    """What every line of this process carries, beside its own message."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.job: JobFields | None = None


class TextFormatter(logging.Formatter):
    """`12:00:00.123 worker 3 warning send_email job=17 attempt=2: message`."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, or a few where there is a traceback."""
        moment = datetime.fromtimestamp(record.created).astimezone()
        parts = [f"{moment:%H:%M:%S}.{int(record.msecs):03d}", self._fields.process]
        parts.append(record.levelname.lower())
        if self._fields.job:
            job = self._fields.job
            parts.append(f"{job.request_type} job={job.job_id} attempt={job.attempt}")
        line = f"{' '.join(parts)}: {record.getMessage()}"
        trace = _trace(self, record)
        return _shortened(f"{line}\n{trace}" if trace else line, LONGEST_LINE - 1)


class JsonFormatter(logging.Formatter):
    """An object a line."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON, never longer than a pipe takes whole."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._fields.process,
            "pid": record.process,
            "logger": record.name,
        }
        if self._fields.job:
            job = self._fields.job
            line["job_id"], line["request_type"] = job.job_id, job.request_type
            line["attempt"] = job.attempt
        line["message"] = _shortened(record.getMessage(), LONGEST_LINE // 4)
        trace = _trace(self, record)
        if trace:
            line["traceback"] = _shortened(trace, LONGEST_LINE // 4)
        return msgspec.json.encode(line).decode()


def set_up_logging(process: str, *, level: str, log_format: LogFormat) -> Fields:
    """Send this process's log lines to standard error; return the fields they carry.

    For processes that are pulpo-pool's own. An application's root logger is left as it is if it
    has handlers already.
    """
    fields = Fields(process)
    text = log_format == "text" or (log_format == "auto" and _is_terminal())
    handler = LineHandler()
    handler.setFormatter(TextFormatter(fields) if text else JsonFormatter(fields))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, LineHandler):
            root.removeHandler(old)
    ours = logging.getLogger("pulpo_pool")
    ours.handlers = [handler]
    ours.propagate = False
    ours.setLevel(level.upper())
    if not root.handlers:
        root.addHandler(handler)
        root.setLevel(level.upper())
    return fields


def _is_terminal() -> bool:
    return sys.__stderr__ is not None and not sys.__stderr__.closed and sys.__stderr__.isatty()


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _shortened(text: str, limit: int) -> str:
    """Keep the beginning, which says what, and the end, where a traceback names its cause."""
    if len(text) <= limit:
        return text
    mark = " [...] "
    head = limit // 3
    return text[:head] + mark + text[len(text) - (limit - head - len(mark)) :]
