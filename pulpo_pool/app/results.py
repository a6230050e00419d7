"""What a handler may say about a job: a RequestResult, or the exceptions that mean the same."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pulpo_pool.message import Message

LONGEST_PAUSE_ASKED: Final = 86_400.0  # seconds; more is a mistake, not a wish


class ResultKind(enum.StrEnum):
    """The three answers."""

    SUCCESS = "success"  # done
    TRANSIENT = "transient"  # not now; the retry policy says when again
    FATAL = "fatal"  # never; kept for people


@dataclass(frozen=True, slots=True)
class RequestResult:
    """A handler's answer. Returning None means success.

    `retry_in` is in seconds and overrides the retry policy's wait, not its limit. `pause` is in
    seconds too: for so long no job of this type is begun on this pool, then one at a time.
    `response_messages` are kept with the result; nothing publishes them.
    """

    kind: ResultKind
    error: str = ""
    retry_in: float | None = None
    response_messages: tuple[Message, ...] = ()
    pause: float | None = None

    @classmethod
    def success(cls, response_messages: Iterable[Message] = ()) -> RequestResult:
        """Return the answer of a job that is done."""
        return cls(ResultKind.SUCCESS, response_messages=tuple(response_messages))

    @classmethod
    def transient(
        cls,
        error: object = "",
        retry_in: float | timedelta | None = None,
        response_messages: Iterable[Message] = (),
        *,
        pause: float | timedelta | None = None,
    ) -> RequestResult:
        """Return the answer of a job to be tried again, after `retry_in` if it is given.

        With `pause` all jobs of its type wait so long: what they depend on is down. Raises
        ValueError for a `retry_in` that is negative or no time, a `pause` of 0 or less.
        """
        return cls(
            ResultKind.TRANSIENT,
            _text(error),
            wait_seconds(retry_in),
            tuple(response_messages),
            pause_seconds(pause),
        )

    @classmethod
    def fatal(cls, error: object = "", response_messages: Iterable[Message] = ()) -> RequestResult:
        """Return the answer of a job that can never work: it is buried, with `error`."""
        return cls(ResultKind.FATAL, _text(error), None, tuple(response_messages))

    # -- pulpo-messaging's names ----------------------------------------------------------------

    @staticmethod
    def success_factory(response_message_list: Iterable[Message] | None = None) -> RequestResult:
        """Return `RequestResult.success(...)`."""
        return RequestResult.success(response_message_list or ())

    @staticmethod
    def transient_factory(
        error: object = None, response_message_list: Iterable[Message] | None = None
    ) -> RequestResult:
        """Return `RequestResult.transient(...)`."""
        return RequestResult.transient(error, None, response_message_list or ())

    @staticmethod
    def fatal_factory(
        error: object = None, response_message_list: Iterable[Message] | None = None
    ) -> RequestResult:
        """Return `RequestResult.fatal(...)`."""
        return RequestResult.fatal(error, response_message_list or ())

    @property
    def result(self) -> str:
        """The kind as plain text."""
        return self.kind.value

    @property
    def isSuccess(self) -> bool:  # noqa: N802 - pulpo-messaging's name
        """Whether the job is done."""
        return self.kind is ResultKind.SUCCESS

    @property
    def isTransient(self) -> bool:  # noqa: N802 - pulpo-messaging's name
        """Whether the job is to be tried again."""
        return self.kind is ResultKind.TRANSIENT

    @property
    def isFatal(self) -> bool:  # noqa: N802 - pulpo-messaging's name
        """Whether the job is to be buried."""
        return self.kind is ResultKind.FATAL


class Transient(Exception):
    """Raise it for "not now": the job is tried again, after `retry_in` or the policy's wait.

    `retry_in` is seconds or a timedelta; ValueError if it is negative or no time. With `pause`
    all jobs of its type wait so long: what they depend on is down. ValueError for 0 or less.
    """

    def __init__(
        self,
        reason: object = "",
        *,
        retry_in: float | timedelta | None = None,
        pause: float | timedelta | None = None,
    ) -> None:
        super().__init__(_text(reason))
        self.reason = _text(reason)
        self.retry_in = wait_seconds(retry_in)
        self.pause = pause_seconds(pause)


class Fatal(Exception):
    """Raise it for "never": the job is buried with this reason, for people to look at."""

    def __init__(self, reason: object = "") -> None:
        super().__init__(_text(reason))
        self.reason = _text(reason)


class SoftTimeLimit(Exception):
    """Raised inside a handler whose soft time limit is over; it may tidy up, and should end."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the soft time limit of {seconds:g} s is over")
        self.seconds = seconds


def wait_seconds(wait: float | timedelta | None, name: str = "retry_in") -> float | None:
    """Return a wait in seconds; raise ValueError for one that is negative or no time."""
    if wait is None:
        return None
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"{name}: expected seconds or a timedelta, got {wait!r}")  # noqa: TRY004 - one error for every bad value
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name}: expected 0 seconds or more, got {wait!r}")
    return float(seconds)


def pause_seconds(pause: float | timedelta | None) -> float | None:
    """Return a pause in seconds; raise ValueError for one that is no time, or none at all."""
    seconds = wait_seconds(pause, "pause")
    if seconds is not None and not 0 < seconds <= LONGEST_PAUSE_ASKED:
        raise ValueError(
            f"pause: expected more than 0 and at most {LONGEST_PAUSE_ASKED:.0f} seconds, "
            f"got {pause!r}"
        )
    return seconds


def _text(reason: object) -> str:
    return "" if reason is None else str(reason)
