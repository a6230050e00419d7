"""Log lines: text for a terminal, JSON for machines, one write each.

A worker's lines carry who it is and what it works on. Nothing here raises: a full disk or a
closed pipe costs the line, never the job.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import MutableSequence

LEVELS: Final = ("debug", "info", "warning", "error", "critical")  # as lines are counted
LONGEST_LINE: Final = 4_096  # bytes; longer writes to a pipe may be torn (POSIX PIPE_BUF)
_PRIVATE_FD: Final = 100  # out of the way of handlers that close what they did not open
_NOWHERE: Final = -1  # a descriptor that no file will ever have
_JSON_SHARES: Final = (3_072, 1_536, 768, 384, 192)  # bytes for a message and for a traceback
_LONGEST_NAME: Final = 200  # bytes of a logger's name or a request_type
_INDENT: Final = "\n    "

# Text goes to terminals, which obey control characters, and to people, who count lines.
_ESCAPES: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
    if chr(code) not in "\n\t"
}

LogFormat = Literal["auto", "text", "json"]


class LineHandler(logging.Handler):
    """Writes each record with one write to its own copy of standard error, and counts it."""

    def __init__(self, fd: int = 2) -> None:
        super().__init__()
        self.take_over(fd)

    def take_over(self, fd: int = 2) -> None:
        """Write and count for this process, which may be a fork of the one that made it."""
        self.counts: MutableSequence[int] | None = None  # by level; see count_lines_in
        self._pid = os.getpid()
        try:
            self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _PRIVATE_FD)
        except OSError as error:
            # Closed: its number may be given to a database next. Else the limit is low.
            self._fd = _NOWHERE if error.errno == errno.EBADF else fd

    def emit(self, record: logging.LogRecord) -> None:
        """Format and write; a line that cannot be made or written is dropped."""
        if self.counts is not None and os.getpid() == self._pid:  # a handler's fork has no seat
            self.counts[min(max(record.levelno // 10, 1), len(LEVELS)) - 1] += 1
        with suppress(Exception):
            os.write(self._fd, self.format(record).encode("utf-8", "backslashreplace") + b"\n")


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

    def __init__(self, process: str, slot: int | None = None) -> None:
        self.process = process
        self.slot = slot  # of a worker
        self.job: JobFields | None = None


class TextFormatter(logging.Formatter):
    """`12:00:00.123 worker 3 warning send_email job=17 attempt=2: message`."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, or a few of which only the first is not indented."""
        moment = datetime.fromtimestamp(record.created).astimezone()
        parts = [f"{moment:%H:%M:%S}.{int(record.msecs):03d}", self.fields.process]
        parts.append(record.levelname.lower())
        if self.fields.job:
            job = self.fields.job
            parts.append(f"{job.request_type} job={job.job_id} attempt={job.attempt}")
        line = f"{' '.join(parts)}: {_message(record)}"
        trace = _trace(self, record)
        whole = _clean(f"{line}\n{trace}" if trace else line).translate(_ESCAPES)
        return _shortened(whole.replace("\n", _INDENT), LONGEST_LINE - 1)


class JsonFormatter(logging.Formatter):
    """An object a line."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON, never longer than a pipe takes whole."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self.fields.process,
            "pid": record.process,
            "logger": _shortened(_clean(record.name), _LONGEST_NAME),
        }
        if self.fields.slot is not None:
            line["slot"] = self.fields.slot
        if self.fields.job:
            job = self.fields.job
            line["job_id"] = job.job_id
            line["request_type"] = _shortened(_clean(job.request_type), _LONGEST_NAME)
            line["attempt"] = job.attempt
        texts = {"message": _clean(_message(record)), "traceback": _clean(_trace(self, record))}
        if not texts["traceback"]:
            del texts["traceback"]
        return _fitted(line, texts).decode()


def hold_standard_streams() -> None:
    """Open /dev/null for each of standard input, output and error that is closed.

    Otherwise a database would be given the number, and whatever a library writes to standard
    error would be written into it.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:  # noqa: PLR2004 - standard error
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # so Python says that it was closed
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 - it stays


def set_up_logging(
    process: str, *, level: str, log_format: LogFormat, slot: int | None = None
) -> Fields:
    """Send this process's log lines to standard error; return the fields they carry.

    For processes that are pulpo-pool's own. An application's root logger is left as it is if it
    has handlers already.
    """
    text = log_format == "text" or (log_format == "auto" and _is_terminal())
    kind = TextFormatter if text else JsonFormatter
    root, ours = logging.getLogger(), logging.getLogger("pulpo_pool")
    kept = _inherited(root, ours, kind, level)
    if kept is not None:
        kept.process, kept.slot, kept.job = process, slot, None
        return kept
    fields = Fields(process, slot)
    handler = LineHandler()
    handler.setFormatter(kind(fields))
    for old in root.handlers[:]:
        if isinstance(old, LineHandler):
            root.removeHandler(old)
    ours.handlers = [handler]
    ours.propagate = False
    _set_level(ours, level)
    if not root.handlers:
        root.addHandler(handler)
        _set_level(root, level)
    return fields


def _inherited(
    root: logging.Logger,
    ours: logging.Logger,
    kind: type[TextFormatter | JsonFormatter],
    level: str,
) -> Fields | None:
    """Take over the parent's handler and return its fields, if nothing else is to be changed.

    To make it anew unshared 0.2 MB of each worker.
    """
    handler = ours.handlers[0] if ours.handlers else None
    if (
        not isinstance(handler, LineHandler)
        or not isinstance(handler.formatter, kind)
        or len(ours.handlers) > 1
        or ours.propagate
        or ours.level != getattr(logging, level.upper())
        or not root.handlers
        or (handler in root.handlers and (len(root.handlers) > 1 or root.level != ours.level))
    ):
        return None
    handler.take_over()
    return handler.formatter.fields


def _set_level(logger: logging.Logger, level: str) -> None:
    """Set it if it is another: that writes to each logger there is, and so unshares their pages."""
    wanted = logging.getLevelName(level.upper())
    if logger.level != wanted:
        logger.setLevel(wanted)


def set_level(level: str) -> None:
    """Show lines from this level on, in a process whose logging `set_up_logging` has set up."""
    _set_level(logging.getLogger("pulpo_pool"), level)
    root = logging.getLogger()
    if any(isinstance(handler, LineHandler) for handler in root.handlers):
        _set_level(root, level)


def count_lines_in(counts: MutableSequence[int]) -> None:
    """Count this process's lines here, a number for each of LEVELS; it is their only writer."""
    for handler in logging.getLogger("pulpo_pool").handlers:
        if isinstance(handler, LineHandler):
            handler.counts = counts


def keep_logging() -> None:
    """Enable the pool's loggers again, once an application had its chance to configure logging.

    `logging.config.dictConfig` disables, by default, every logger it was not told of.
    """
    for name in list(logging.root.manager.loggerDict):
        if name == "pulpo_pool" or name.startswith("pulpo_pool."):
            logging.getLogger(name).disabled = False


def _is_terminal() -> bool:
    return sys.__stderr__ is not None and not sys.__stderr__.closed and sys.__stderr__.isatty()


def _message(record: logging.LogRecord) -> str:
    """Return the message, or what was given of it: a wrong %-sign must not cost the line."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - __str__ of an argument is user code
        given = [record.msg, *(record.args if isinstance(record.args, tuple) else ())]
        return " ".join(each if isinstance(each, str) else type(each).__name__ for each in given)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    trace = getattr(record, "pulpo_trace", "")  # one that was made fit to be read
    return trace if isinstance(trace, str) else ""


def _clean(text: str) -> str:
    """Replace what has no bytes in UTF-8: file names bring lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def _fitted(line: dict[str, Any], texts: dict[str, str]) -> bytes:
    """Return the object as JSON, its texts cut until it fits; escaping may make them longer."""
    for share in _JSON_SHARES:
        raw = msgspec.json.encode(
            line | {name: _shortened(text, share) for name, text in texts.items()}
        )
        if len(raw) < LONGEST_LINE:
            break
    return raw


def _shortened(text: str, limit: int) -> str:
    """Keep the beginning, which says what, and the end, where a traceback names its cause.

    `limit` is in bytes of UTF-8.
    """
    raw = text.encode()
    if len(raw) <= limit:
        return text
    mark = " [...] "
    head = limit // 3
    tail = len(raw) - (limit - head - len(mark))
    return raw[:head].decode("utf-8", "ignore") + mark + raw[tail:].decode("utf-8", "ignore")
