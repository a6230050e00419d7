"""Message: what a publisher asks for. Frozen, checked at birth, in the form it travels in."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pulpo_pool.clock import Clock, SystemClock
from pulpo_pool.errors import InvalidMessage

DEFAULT_QUEUE: Final = "default"
DEFAULT_PRIORITY: Final = 65_536
LOWEST_PRIORITY: Final = 2**32 - 1
LONGEST_NAME: Final = 200  # characters; beanstalkd's limit for a tube, kept for every engine
_SECOND: Final = 1_000_000  # microseconds

When: TypeAlias = datetime | timedelta | float


class _Parts:
    """What a message is made of; still open, since a frozen one takes 0.3 us more to fill."""

    __slots__ = ("_header", "body", "id", "request_type")

    id: str | None
    body: dict[str, Any]
    request_type: str  # which handler; empty when the message names none
    _header: dict[str, Any]


class Message(_Parts):
    """A request for one job: an id, a header that routes it, a body for its handler.

    `delay` and `expiration` are seconds or a timedelta from now, or an aware datetime; they
    travel as absolute UTC. `priority` is 0 (most urgent) to 2**32-1. `payload` is shorthand
    for a body with that one key. Header fields this version does not know travel on untouched.

    Raises InvalidMessage for a missing or over-long name, a priority out of range, a negative
    delay, a naive datetime, or a header or body that is not a mapping with text keys.
    """

    __slots__ = ()

    def __init__(  # noqa: PLR0913 - one keyword for each thing a publisher may say
        self,
        *,
        request_type: str | None = None,
        body: Mapping[str, Any] | None = None,
        payload: Any = None,
        header: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the ancestor's word
        queue: str | None = None,
        priority: int | None = None,
        delay: When | None = None,
        expiration: When | None = None,
        clock: Clock | None = None,
    ) -> None:
        # Every job begins here, so what was not given costs one comparison.
        fields = {} if header is None else _text_keyed(header, "header")
        if "delay" in fields:  # pulpo-messaging's name for it
            fields.setdefault("not_before", fields.pop("delay"))
        if request_type is not None:
            fields["request_type"] = request_type
        if queue is not None:
            fields["queue"] = queue
        if priority is not None:
            fields["priority"] = priority
        if delay is not None:
            fields["not_before"] = _absolute(delay, "not_before", clock or SystemClock())
        if expiration is not None:
            fields["expiration"] = _absolute(expiration, "expiration", clock or SystemClock())
        content = {} if body is None else _text_keyed(body, "body")
        if payload is not None:
            content["payload"] = payload
        _check_header(fields)
        if header is not None:
            _check_dates(fields)
        if id is not None and (not isinstance(id, str) or not 0 < len(id) <= LONGEST_NAME):
            raise InvalidMessage(f"id: expected 1 to {LONGEST_NAME} characters, got {id!r}")
        put = object.__setattr__
        put(self, "id", id)
        put(self, "request_type", fields["request_type"])
        put(self, "_header", fields)
        put(self, "body", content)

    @staticmethod
    def restored(id: str | None, header: dict[str, Any], body: dict[str, Any]) -> Message:  # noqa: A002
        """Build a message from parts that the codec has checked already."""
        message: Any = _Parts()
        message.id = id
        message.request_type = header["request_type"]
        message._header = header  # noqa: SLF001 - its own class
        message.body = body
        message.__class__ = Message
        made: Message = message
        return made

    def stamped(self, *, id: str, queue: str, published_at: float) -> Message:  # noqa: A002
        """Return the copy that goes into a queue: with its id, queue and time of publishing."""
        header = self._header.copy()
        header["queue"] = queue
        header["published_at"] = written_date(published_at)
        return Message.restored(self.id or id, header, self.body)

    @property
    def header(self) -> Mapping[str, Any]:
        """The whole header as it travels: dates are ISO 8601 text."""
        return MappingProxyType(self._header)

    @property
    def queue(self) -> str:
        """Which queue; `default` unless given."""
        return self._header.get("queue") or DEFAULT_QUEUE

    @property
    def priority(self) -> int:
        """0 is the most urgent."""
        priority = self._header.get("priority")
        return DEFAULT_PRIORITY if priority is None else priority

    @property
    def not_before(self) -> datetime | None:
        """The earliest time the job may run."""
        return _read_date(self._header.get("not_before"))

    @property
    def expiration(self) -> datetime | None:
        """The latest time the job may start."""
        text = self._header.get("expiration")
        return None if text is None else _read_date(text)  # nearly every job asks, and has none

    @property
    def published_at(self) -> datetime | None:
        """When it was accepted; None for a message that was never published by us."""
        return _read_date(self._header.get("published_at"))

    @property
    def payload(self) -> Any:
        """The body's `payload`, for jobs with a single value; None if there is none."""
        return self.body.get("payload")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Message is frozen: build a new one instead of setting {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (self.id, self._header, self.body) == (other.id, other._header, other.body)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Message(id={self.id!r}, request_type={self.request_type!r}, queue={self.queue!r})"


def check_name(name: object, what: str) -> str:
    """Return a queue's or request_type's name; raise InvalidMessage if it cannot be one."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidMessage(
            f"{what}: expected 1 to {LONGEST_NAME} printable characters, got {name!r}"
        )
    return name


def written_date(seconds: float) -> str:
    """Return Unix seconds as the ISO 8601 text that travels in a header."""
    # Half of what a datetime takes, for each job published. Rounded as one does.
    whole = int(seconds)
    micros = round((seconds - whole) * _SECOND)
    if 0 < micros < _SECOND:
        return f"{_written_second(whole)}.{micros:06d}+00:00"
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@functools.lru_cache(maxsize=8)
def _written_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


def _read_date(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _text_keyed(mapping: object, what: str) -> dict[str, Any]:
    # A plain dict is asked first: to ask an abstract class takes as long as all the rest.
    if type(mapping) is not dict and not isinstance(mapping, Mapping):
        raise InvalidMessage(f"{what}: expected a mapping, got {type(mapping).__name__}")
    for key in mapping:
        if not isinstance(key, str):
            raise InvalidMessage(f"{what}: expected text as keys, got {key!r}")
    return dict(mapping)


def _absolute(moment: object, name: str, clock: Clock) -> str:
    if isinstance(moment, timedelta):
        moment = moment.total_seconds()
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidMessage(
                f"{name}: expected an aware datetime, got the naive {moment.isoformat()}; "
                "give it a time zone, such as datetime.now(UTC)"
            )
        try:
            return moment.astimezone(UTC).isoformat()
        except OverflowError as error:
            raise InvalidMessage(f"{name}: {moment.isoformat()} is no date in UTC") from error
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        raise InvalidMessage(f"{name}: expected seconds or a datetime, got {moment!r}")
    if not moment >= 0:
        raise InvalidMessage(f"{name}: expected 0 seconds or more, got {moment}")
    try:
        return written_date(clock.now() + moment)
    except (OverflowError, ValueError) as error:
        raise InvalidMessage(f"{name}: {moment} seconds from now is no date") from error


def _check_header(header: dict[str, Any]) -> None:
    check_name(header.get("request_type"), "request_type")
    if "queue" in header:
        check_name(header["queue"], "queue")
    priority = header.get("priority")
    if priority is not None and (
        isinstance(priority, bool)
        or not isinstance(priority, int)
        or not 0 <= priority <= LOWEST_PRIORITY
    ):
        raise InvalidMessage(
            f"priority: expected a whole number from 0 (most urgent) to {LOWEST_PRIORITY}, "
            f"got {priority!r}"
        )


def _check_dates(header: dict[str, Any]) -> None:
    for name in ("not_before", "expiration"):
        value = header.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise InvalidMessage(f"{name}: expected an ISO 8601 date, got {value!r}") from None
        if not isinstance(value, datetime):
            raise InvalidMessage(f"{name}: expected a date, got {value!r}")
        header[name] = _absolute(value, name, SystemClock())
