"""Jobs written down one a line, as JSON: from a line to a message, and all mistakes by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pulpo_pool.errors import InvalidMessage
from pulpo_pool.message import Message
from pulpo_pool.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_PROBLEMS: Final = 20  # bad lines that are named; the rest is counted

_KEYS: Final = (
    "request_type", "body", "payload", "queue", "priority", "delay", "expires_in", "header",
)  # fmt: skip
_IN_HEADER: Final = {"delay": "not_before", "expires_in": "expiration"}
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class JobLine:
    """A line that is not blank, with its number in the file."""

    number: int
    text: bytes


def read_lines(source: Iterable[bytes]) -> list[JobLine]:
    """Return the lines that are not blank.

    The text is kept rather than the messages, which take ten times its memory: a line is read
    twice, once to be checked and once to be published.
    """
    lines = [
        JobLine(number, line.strip().removeprefix(_BYTE_ORDER_MARK))
        for number, line in enumerate(source, start=1)
    ]
    return [line for line in lines if line.text]


def message_in(line: JobLine, defaults: dict[str, Any]) -> Message:
    """Return the message in a line; `defaults` hold for what it does not say.

    Raises InvalidMessage.
    """
    try:
        fields = msgspec.json.decode(line.text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidMessage('expected an object, such as {"request_type": "echo"}')
    for key in fields:
        if key not in _KEYS:
            raise InvalidMessage(f"{key}: no such key{did_you_mean(key, _KEYS)}")
    header = fields.get("header")
    header = header if isinstance(header, dict) else {}
    for name, value in defaults.items():
        if fields.get(name) is None and _IN_HEADER.get(name, name) not in header:
            fields[name] = value
    return build_message(fields)


def build_message(fields: dict[str, Any]) -> Message:
    """Return a message from the command line's words for its parts; raise InvalidMessage.

    An error's text begins with the word for the part that is wrong.
    """
    parts = dict(fields)
    if parts.get("body") is not None and parts.get("payload") is not None:
        raise InvalidMessage("payload: expected a body or a payload, got both")
    expires_in = parts.pop("expires_in", None)
    try:
        return Message(expiration=expires_in, **parts)
    except InvalidMessage as error:
        text = str(error)
        for word, in_header in _IN_HEADER.items():
            if text.startswith(f"{in_header}:") and fields.get(word) is not None:
                text = word + text.removeprefix(in_header)
        raise InvalidMessage(text) from None


def check_lines(lines: list[JobLine], check: Callable[[JobLine], None]) -> None:
    """Raise InvalidMessage with a line for each bad line, up to a limit, if there is any."""
    problems: list[str] = []
    for line in lines:
        try:
            check(line)
        except InvalidMessage as problem:
            problems.append(f"line {line.number}: {problem}")
    if not problems:
        return
    shown = problems[:MOST_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown):,} more")
    raise InvalidMessage("nothing was published:\n  " + "\n  ".join(shown))
