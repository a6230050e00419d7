"""A message as text in somebody's editor: JSON with comments, and what was made of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from pulpo_pool.cli.output import printable
from pulpo_pool.errors import InvalidMessage
from pulpo_pool.settings import read_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_COMMENT: Final = "#"
_SUFFIX: Final = ".json"


def as_text(parts: dict[str, Any], comments: Iterable[str]) -> str:
    """Return JSON with comments above it, in which nothing commands a terminal."""
    raw = msgspec.json.format(msgspec.json.encode(parts), indent=2).decode()
    body = "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in raw
    )
    head = "".join(f"{_COMMENT} {printable(line)}".rstrip() + "\n" for line in comments)
    return f"{head}{body}\n"


def read_text(text: str) -> dict[str, Any] | None:
    """Return what is written below the comments, None for nothing; raise InvalidMessage."""
    # A string in JSON has no line breaks, so no line of a message begins like this.
    lines = ["" if line.startswith(_COMMENT) else line for line in text.split("\n")]
    content = "\n".join(lines)
    if not content.strip():
        return None
    try:
        found = json.loads(content, parse_constant=_refuse)  # which names the line
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidMessage(f"is not JSON: {error.msg} in {where}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidMessage("expected an object with id, header and body")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number that JSON knows")


def edited(text: str) -> str:
    """Let somebody edit a text; return it as it was saved.

    Raises click.UsageError where there is neither an editor nor a terminal for one,
    click.ClickException for an editor that fails.
    """
    environ = read_environment()
    editor = environ.get("VISUAL") or environ.get("EDITOR")
    if not editor and not sys.stdin.isatty():
        raise click.UsageError(
            "there is no terminal to edit on; say what to change with --set, or name an editor "
            "in EDITOR"
        )
    with _undisturbed():
        saved = click.edit(text.encode(), editor, extension=_SUFFIX, require_save=False)
    return (saved or b"").decode("utf-8-sig", "backslashreplace")


def keep(text: str, job_id: str) -> str:
    """Write a text that came to nothing into a file that only its user reads; return its path."""
    descriptor, path = tempfile.mkstemp(prefix=f"pulpo-pool-job-{job_id}-", suffix=_SUFFIX)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave Ctrl-C to the editor: we would end, and take the file with us."""
    old = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)
