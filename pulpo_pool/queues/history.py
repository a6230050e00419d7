"""A job's history: what is kept of its attempts that did not end well, how much, and how written.

The first setback and the newest ten stay: the first names the cause, the newest say how things
are. Each text keeps its end, and where all texts together are too long, the older ones are cut
alike, so that the newest stays whole.
"""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING, Final

import msgspec

from pulpo_pool.queues.adapter import Bury, BuryReason, Commit, Fate
from pulpo_pool.setback import Setback

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import Owner, Settlement, Verdict

MOST_NEWEST: Final = 10  # setbacks kept beside the first
LONGEST_ERROR: Final = 16_384  # characters of one error or traceback
LONGEST_STACK: Final = 8_192  # characters of one stack
MOST_TEXT: Final = 65_536  # characters of all errors and stacks of a job

_CUT: Final = "[...]"
_SHORTEST: Final = 256  # characters, below which cutting saves nothing
_read = msgspec.json.Decoder(tuple[Setback, ...]).decode


def extended(history: tuple[Setback, ...], setback: Setback) -> tuple[Setback, ...]:
    """Return a history with one more setback, within the limits."""
    older = history if len(history) <= MOST_NEWEST else (history[0], *history[1 - MOST_NEWEST :])
    room = MOST_TEXT - _length(setback)
    limit = LONGEST_ERROR
    while limit > _SHORTEST and sum(map(_length, older)) > room:
        limit //= 2
        older = tuple(_shortened(each, limit) for each in older)
    return (*older, setback)


def setback_of(
    settlement: Settlement, *, attempt: int, at: float, owner: Owner | None
) -> Setback | None:
    """Return what a settlement adds to its job's history; None for one that is no setback.

    Giving a job back with neither reason nor error is none.
    """
    if isinstance(settlement, Commit):
        return None
    buried = isinstance(settlement, Bury)
    if not (buried or settlement.reason or settlement.error):
        return None
    told = settlement.setback if isinstance(settlement, Bury) else None
    setback = told or Setback(
        at=at, attempt=attempt, outcome="", worker=str(owner or ""), host=_host()
    )
    return _fitted(
        setback,
        attempt=setback.attempt or attempt,
        outcome="buried" if buried else "retried",
        reason=str(settlement.reason),
        error=settlement.error,
    )


def crash_setback(setback: Setback, *, attempt: int) -> Setback:
    """Return the setback of a job that its engine freed when it killed its worker."""
    return _fitted(setback, error=setback.error, attempt=attempt, outcome="retried", reason="crash")


def setback_of_rescue(
    verdict: Verdict, *, attempt: int, at: float, owner: Owner, buried: bool
) -> Setback:
    """Return what a worker's end adds to the history of the job that it held."""
    setback = verdict.setback or Setback(at=at, attempt=attempt, outcome="", error=verdict.evidence)
    reason: str = verdict.fate.value
    if verdict.fate is Fate.CRASHED:
        reason = BuryReason.CRASHED if buried else "crash"
    return _fitted(
        setback,
        attempt=attempt,
        outcome="buried" if buried else "retried",
        reason=reason,
        error=setback.error,
        worker=str(owner),
        host=setback.host or _host(),
    )


def written(history: tuple[Setback, ...]) -> str:
    """Return a history as JSON, for engines that store text."""
    return msgspec.json.encode(history).decode()


def read(text: str | bytes | None) -> tuple[Setback, ...]:
    """Return the history in a stored text; an empty one for what is none."""
    if not text:
        return ()
    try:
        return _read(text)
    except (msgspec.MsgspecError, UnicodeError):  # somebody's hand was in the store
        return ()


def kept(text: str, longest: int = LONGEST_ERROR) -> str:
    """Return what is stored of a text: its end says most, and lone surrogates cannot be."""
    if len(text) > longest:
        text = _CUT + text[-longest:]
    return text.encode("utf-8", "backslashreplace").decode()


def _fitted(setback: Setback, *, error: str, **fields: object) -> Setback:
    return msgspec.structs.replace(
        setback, error=kept(error), stack=kept(setback.stack, LONGEST_STACK), **fields
    )


def _length(setback: Setback) -> int:
    return len(setback.error) + len(setback.stack)


def _shortened(setback: Setback, limit: int) -> Setback:
    return msgspec.structs.replace(
        setback, error=kept(setback.error, limit), stack=kept(setback.stack, limit)
    )


@functools.cache
def _host() -> str:
    return kept(socket.gethostname(), 255)
