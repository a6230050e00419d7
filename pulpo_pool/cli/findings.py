"""What an examination found: a verdict, a line, and advice; and none of them takes for ever."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pulpo_pool.errors import PulpoPoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Verdict(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # it works, and somebody may be surprised one day
    PROBLEM = "problem"  # a pool would not start, or would lose its footing


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `facts` are its numbers, for programs."""

    subject: str
    verdict: Verdict
    said: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def ok(subject: str, said: str, advice: str = "", **facts: Any) -> Finding:
    """Return that all is well."""
    return Finding(subject, Verdict.OK, said, advice, facts)


def warning(subject: str, said: str, advice: str, **facts: Any) -> Finding:
    """Return what may surprise, with what to do."""
    return Finding(subject, Verdict.WARNING, said, advice, facts)


def problem(subject: str, said: str, advice: str, **facts: Any) -> Finding:
    """Return what keeps a pool from working, with what to do."""
    return Finding(subject, Verdict.PROBLEM, said, advice, facts)


def examined(
    subject: str, examine: Callable[[], Iterable[Finding]], timeout: float
) -> list[Finding]:
    """Return what an examination finds within `timeout` seconds; a problem if it takes longer.

    It runs in a thread that is left behind then: a call into a filesystem whose server is gone
    cannot be interrupted, only left.
    """
    found: list[Finding] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.extend(examine())
        except (PulpoPoolError, OSError) as error:
            found.append(problem(subject, str(error), "mend this, and ask the doctor again"))
        except BaseException as error:  # noqa: BLE001 - raised where the examination was asked for
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if failed:
        raise failed[0]
    if not thread.is_alive():
        return found
    late = problem(
        subject,
        f"no answer within {timeout:g} s",
        "see whether it is there and lets you in, or give it more --timeout",
    )
    return [*found, late]
