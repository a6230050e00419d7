"""PausePolicy: which failures of a job say that what its type depends on is down."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pulpo_pool.app.results import pause_seconds
from pulpo_pool.errors import InvalidHandler

if TYPE_CHECKING:
    from datetime import timedelta

    from pulpo_pool.app.results import RequestResult

PauseOn: TypeAlias = "type[BaseException] | Sequence[type[BaseException]]"

DEFAULT_PAUSE: Final = 15.0  # seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PausePolicy:
    """Exceptions of these types pause the whole type, for `first` seconds to begin with.

    Name what speaks of the dependency and not of the job: one failure is enough. A handler's own
    `Transient(pause=...)` needs no policy.
    """

    on: tuple[type[BaseException], ...] = ()
    first: float = DEFAULT_PAUSE

    @classmethod
    def read(cls, pause_on: PauseOn | None, pause: float | timedelta | None) -> PausePolicy:
        """Return what a job said; InvalidHandler with the reason for what is no policy."""
        if pause_on is None:
            if pause is not None:
                raise InvalidHandler(
                    "pause: says nothing without pause_on; name the exceptions, such as "
                    "pause_on=(ConnectionError,)"
                )
            return NO_PAUSES
        kinds = tuple(pause_on) if isinstance(pause_on, Sequence) else (pause_on,)
        for kind in kinds or (None,):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise InvalidHandler(
                    f"pause_on: expected exception types, such as (ConnectionError,), "
                    f"got {pause_on!r}"
                )
        try:
            seconds = pause_seconds(pause)
        except ValueError as error:
            raise InvalidHandler(str(error)) from None
        return cls(kinds, DEFAULT_PAUSE if seconds is None else seconds)

    def asked(self, result: RequestResult, error: BaseException | None) -> float | None:
        """Return for how many seconds a failure pauses its type; None if it does not.

        What the handler said wins, as with `retry_in`; nonsense is logged, and says nothing.
        """
        try:
            said = pause_seconds(result.pause)
        except ValueError as problem:
            _log.error("%s; it is ignored", problem)
            said = None
        if said is not None:
            return said
        return self.first if self.on and isinstance(error, self.on) else None

    def describe(self) -> str | None:
        """Return the policy as text, for `pulpo-pool check`; None where nothing pauses."""
        if not self.on:
            return None
        names = ", ".join(kind.__name__ for kind in self.on)
        return f"on {names} for {self.first:g} s, doubling"


NO_PAUSES: Final = PausePolicy()
