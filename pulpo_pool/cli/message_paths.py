"""Changes to a message by path: `body.to=x`, `body.items[0].name`, `header.priority=5`."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import click
import msgspec

Steps: TypeAlias = list[str | int]

_STEP: Final = re.compile(
    r"""
    (?:\A|(?<=[^.])\.)(?P<name>[^.\[\]"=]+)
  | \[(?P<index>[0-9]{1,9})\]
  | \[(?P<quoted>"(?:[^"\\]|\\.)*")\]
    """,
    re.VERBOSE,
)
_HINT: Final = 'such as body.to, body.items[0].name or body["a.b"]'


def parse_assignment(text: str) -> tuple[Steps, Any]:
    """Return where and what: JSON if it is some, else the text. Raises click.UsageError."""
    steps, end = _read(text)
    if not steps or text[end : end + 1] != "=":
        raise click.UsageError(f"--set {text!r}: expected PATH=VALUE, with a path {_HINT}")
    value = text[end + 1 :]
    try:
        return steps, msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return steps, value


def parse_path(text: str) -> Steps:
    """Return where. Raises click.UsageError."""
    steps, end = _read(text)
    if not steps or end < len(text):
        raise click.UsageError(f"--unset {text!r}: expected a path {_HINT}")
    return steps


def put(root: dict[str, Any], steps: Steps, value: object) -> None:
    """Set what is at a path, in objects made on the way; raise click.UsageError.

    The place after a list's last entry is free to be set.
    """
    where = _parent(root, steps, makes_way=True)
    last = steps[-1]
    if isinstance(where, list) and last == len(where):
        where.append(value)
    else:
        _check_step(where, last, steps, exists=isinstance(where, list))
        where[last] = value


def take(root: dict[str, Any], steps: Steps) -> None:
    """Remove what is at a path; raise click.UsageError if nothing is."""
    where = _parent(root, steps, makes_way=False)
    _check_step(where, steps[-1], steps, exists=True)
    del where[steps[-1]]


def written(steps: Steps) -> str:
    """Return a path as people write it."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _STEP.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{msgspec.json.encode(step).decode()}]"
    return text


def _read(text: str) -> tuple[Steps, int]:
    steps: Steps = []
    end = 0
    while (found := _STEP.match(text, end)) is not None:
        if found["index"] is not None:
            steps.append(int(found["index"]))
        elif found["quoted"] is not None:
            steps.append(_unquoted(found["quoted"], text))
        else:
            steps.append(found["name"])
        end = found.end()
    return steps, end


def _unquoted(quoted: str, text: str) -> str:
    try:
        return str(msgspec.json.decode(quoted))
    except ValueError:
        raise click.UsageError(f"{text!r}: {quoted} is no JSON string") from None


def _parent(root: dict[str, Any], steps: Steps, *, makes_way: bool) -> Any:
    where: Any = root
    for number, step in enumerate(steps[:-1]):
        if makes_way and isinstance(where, dict) and isinstance(step, str):
            where.setdefault(step, {})
        _check_step(where, step, steps[: number + 1], exists=True)
        where = where[step]
    return where


def _check_step(where: Any, step: str | int, path: Steps, *, exists: bool) -> None:
    if isinstance(step, str) and isinstance(where, dict):
        if exists and step not in where:
            raise click.UsageError(f"{written(path)}: there is no such field")
        return
    if isinstance(step, int) and isinstance(where, list):
        if exists and step >= len(where):
            raise click.UsageError(f"{written(path)}: the list has {len(where)} entries")
        return
    kind = "a list" if isinstance(step, int) else "an object"
    raise click.UsageError(f"{written(path)}: what is before the last step is not {kind}")
