"""The error tree, named for what the caller will do about it, and the program's exit codes."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExitCode(enum.IntEnum):
    """What `pulpo-pool` tells the shell, the platform and systemd."""

    CLEAN = 0
    JOBS_CUT_OFF = 1  # the drain timeout ended jobs; they are back in the queue
    USAGE = 2  # a wrong option, setting, app name or queue address
    APP_DOES_NOT_BOOT = 3
    ALREADY_RUNNING = 4  # the name, the port or the control socket is taken


class PulpoPoolError(Exception):
    """Something went wrong inside pulpo-pool."""

    exit_code: ExitCode = ExitCode.JOBS_CUT_OFF

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or type(self).__doc__)


class ConfigError(PulpoPoolError):
    """The settings are wrong; `problems` has a line for each mistake."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class InvalidMessage(PulpoPoolError, ValueError):
    """The message cannot be published as it is; nothing was published."""

    exit_code = ExitCode.USAGE


class MessageTooLarge(InvalidMessage):
    """The encoded message is over the size limit; nothing was published."""


class UndecodableMessage(PulpoPoolError):
    """The stored bytes are no message; they are buried, never handled."""


class DuplicateHandler(PulpoPoolError, ValueError):
    """A handler for this request_type is registered already."""

    exit_code = ExitCode.USAGE


class InvalidHandler(PulpoPoolError, TypeError):
    """This object cannot handle jobs; the message says why."""

    exit_code = ExitCode.USAGE


class BodyMismatch(PulpoPoolError, TypeError):
    """The body's keys are not the handler's parameters; another version of the app may fit."""


class AppNotFound(PulpoPoolError):
    """The app, as named, does not exist."""

    exit_code = ExitCode.USAGE


class AppImportError(PulpoPoolError):
    """The app raised while it was imported or made ready; `__cause__` is what it raised."""

    exit_code = ExitCode.APP_DOES_NOT_BOOT

    def app_traceback(self) -> str:
        """Return the app's own traceback, without the frames of pulpo-pool and the importer."""
        import importlib
        import os
        import traceback

        foreign = (f"{Path(__file__).parent}{os.sep}", str(importlib.__file__), "<frozen importlib")
        if self.__cause__ is None:
            return f"{self}\n"
        story = traceback.TracebackException.from_exception(self.__cause__)
        pending, seen = [story], set[int]()
        while pending:
            part = pending.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            part.stack = traceback.StackSummary.from_list(
                frame for frame in part.stack if not frame.filename.startswith(foreign)
            )
            pending += [link for link in (part.__cause__, part.__context__) if link]
        return "".join(story.format())


class QueueError(PulpoPoolError):
    """The queue did not do what was asked."""


class QueueUnavailable(QueueError):
    """The queue cannot be reached now; a worker backs off and tries again."""


class PartlyPublished(QueueUnavailable):
    """The queue went away while messages were sent to it; some are stored, or may be.

    `job_ids` are those of the first messages, in order: these are accepted. Of the others nothing
    is known, so they are to be published again. After any other QueueUnavailable none is stored.
    """

    def __init__(self, cause: str, job_ids: Sequence[str], messages: int) -> None:
        self.job_ids = list(job_ids)
        stored = f"the first {len(self.job_ids):,}" if job_ids else "none"
        super().__init__(
            f"{cause}; {stored} of {messages:,} messages stored for certain: publish the others "
            "again, though some of them may be stored as well"
        )


class QueueCorrupt(QueueUnavailable):
    """What is stored cannot be read as a queue; a person has to look."""

    exit_code = ExitCode.USAGE


class ReservationLost(QueueError):
    """The lease ended before settlement; somebody else may hold the job."""


class NoSuchJob(QueueError):
    """There is no job with this id in the queue."""


class JobReserved(QueueError):
    """A worker holds the job; try again when it is done, rolled back or buried."""


class WrongProcess(QueueError):
    """The adapter was opened in another process; open it after the fork."""


class AlreadyRunning(PulpoPoolError):
    """A pool of this name, or another program on this address, is running."""

    exit_code = ExitCode.ALREADY_RUNNING


class PoolNotRunning(PulpoPoolError):
    """No pool of this name answers on its control socket."""
