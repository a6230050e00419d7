"""Fingerprint: which errors are the same error, whatever numbers, names and lines they mention."""

from __future__ import annotations

import hashlib
import re
from itertools import groupby, islice
from typing import Final, NamedTuple

LENGTH: Final = 12  # hex digits: 48 bits, for the hundreds of different errors that a queue has

_LONGEST_MESSAGE: Final = 500  # characters that are compared, once what varies has been taken out
_MOST_FRAMES: Final = 3  # from the innermost outwards

_TITLE: Final = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):\s*")
_FRAME: Final = re.compile(r' *File "(?P<path>[^"]+)", line \d+, in (?P<function>.+)')
_EXCEPTION: Final = re.compile(r"(?P<kind>[^\W\d][\w.<>]*)(?:: ?(?P<message>.*))?")
_GROUP_MARGIN: Final = "  | "
_PART: Final = re.compile(r" +\| (?P<text>[^\s+].*)")  # of a group: the types and messages in it
_LIBRARY: Final = re.compile(
    r"(?:site|dist)-packages/|/lib/python3[^/]*/|(?:^|/)pulpo_pool/|^<frozen "
)
_DEATH: Final = re.compile(r"worker \d+ \(serial \d+\) (?P<end>.+?)(?: while it held this job|;|$)")
_LIMIT: Final = re.compile(r"\Agave up at attempt \d+ .*\n(?=.)")  # stands before what went wrong

# What differs between two jobs that fail in one way. Every alternative begins where a run of its
# own characters begins, so that a hostile text costs no more than its length.
_VARYING: Final = re.compile(
    r"""
    (?P<address> \b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s'"<>]+
               | (?<![^\s'"<>(),;:=@])[^\s'"<>(),;:=@]+@[^\s'"<>(),;:=@]+ )
  | (?P<text> (?<!\w)[bru]?(?: '[^']*' | "[^"]*" | `[^`]*` )(?!\w) )
  | (?P<number> (?<![\w.+-])[\w.+-]*\d[\w.+-]* )
    """,
    re.VERBOSE,
)
_ROW: Final = re.compile(r"(<(?:address|text|number)>)(?:[\s,;]+\1)+")  # a list of any length


class Anatomy(NamedTuple):
    """What an error is made of: its type, its message, and where it arose, innermost first."""

    kind: str
    message: str
    frames: tuple[str, ...] = ()


def fingerprint(error: str, reason: str = "") -> str:
    """Return 12 hex digits, the same for errors of one kind in every release of the app.

    An exception is known by its type, its message without numbers, ids, quoted values and
    addresses, and the innermost functions of its traceback (the app's own, where there are some)
    without line numbers. A crash is known by how the worker ended. Where there is no error text,
    the reason stands for it.
    """
    death = _DEATH.match(error)
    if death is not None:
        return _digest("crash", death["end"])
    if not error.strip():
        return _digest("reason", reason)
    kind, message, frames = dissect(error)
    return _digest("error", kind, normalised(message), *frames)


def headline(error: str) -> str:
    """Return the line that says most of an error: type and message, or how a worker ended.

    Of a text that is no traceback it is the last.
    """
    death = _DEATH.match(error)
    if death is not None:
        return error[: death.end("end")]
    kind, message, _ = dissect(error)
    message = message.strip()
    if not kind:
        return message.rpartition("\n")[2]
    first = message.partition("\n")[0]
    return f"{kind}: {first}" if first else kind


def normalised(message: str) -> str:
    """Return a message with placeholders for what differs from job to job."""
    message = " ".join(message.split())
    message = _VARYING.sub(lambda found: f"<{found.lastgroup}>", message)
    return _ROW.sub(r"\1", message)[:_LONGEST_MESSAGE]


def dissect(error: str) -> Anatomy:
    """Take an error's text apart; of a chain of exceptions it is the one that was raised last.

    The text may have lost its beginning to a limit: the end of a traceback says most.
    """
    lines = _LIMIT.sub("", error, count=1).splitlines()
    titles = [number for number, line in enumerate(lines) if _TITLE.fullmatch(line)]
    if not titles and not any(map(_FRAME.fullmatch, lines)):
        return Anatomy("", "\n".join(lines))
    block = lines[titles[-1] + 1 if titles else 1 :]
    is_group = bool(titles) and "Group" in lines[titles[-1]]
    if is_group:
        block = [line.removeprefix(_GROUP_MARGIN) for line in block]
    end = next((n for n, line in enumerate(block) if line[:1].strip()), len(block))
    frames = _innermost([found for found in map(_FRAME.fullmatch, block[:end]) if found])
    found = _EXCEPTION.fullmatch(block[end]) if end < len(block) else None
    if found is None:
        return Anatomy("", "\n".join(block[end:]), frames)
    rest = _parts(block[end + 1 :]) if is_group else block[end + 1 :]
    return Anatomy(found["kind"], "\n".join([found["message"] or "", *rest]), frames)


def _parts(lines: list[str]) -> list[str]:
    """Return what is in a group, each kind once: how many failed alike makes no difference."""
    found = [part["text"] for part in map(_PART.fullmatch, lines) if part]
    return sorted({normalised(text) for text in found if not _TITLE.fullmatch(text)})


def _innermost(frames: list[re.Match[str]]) -> tuple[str, ...]:
    own = [frame for frame in frames if not _LIBRARY.search(frame["path"])]
    names = (_place(frame["path"], frame["function"]) for frame in reversed(own or frames))
    unrepeated = (name for name, _ in groupby(names))  # a recursion is one place
    return tuple(islice(unrepeated, _MOST_FRAMES))


def _place(path: str, function: str) -> str:
    """Return file and function; the folders before it differ from one deploy to the next."""
    *folders, file = path.split("/")
    package = folders[-1:] if file in ("__init__.py", "__main__.py") else []
    return f"{'/'.join([*package, file])}:{function}"


def _digest(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=LENGTH // 2).hexdigest()
