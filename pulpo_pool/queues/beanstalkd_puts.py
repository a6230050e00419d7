"""Jobs on their way into a beanstalkd: the commands that store them, and what it takes."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from pulpo_pool.errors import ConfigError, InvalidMessage, MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST_DELAY: Final = 2**32 - 1  # seconds; the protocol's, for leases too
_TUBE_CHARACTERS: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-+/;.$_()"
)
_LONGEST_TUBE: Final = 200  # bytes
COMMANDS_AT_ONCE: Final = 500  # their replies, of some 200 bytes each, fit into the sockets
_BYTES_AT_ONCE: Final = 1_048_576  # of one write; it only saves memory


class Put(NamedTuple):
    """A job to be stored: delay and lease in whole seconds."""

    tube: str
    body: bytes
    priority: int
    delay: int
    lease: int

    def command(self) -> bytes:
        """Return what stores it, in the tube that is in use."""
        head = self.priority, self.delay, self.lease, len(self.body)
        return b"put %d %d %d %d\r\n%b\r\n" % (*head, self.body)


@functools.lru_cache(maxsize=1_000)  # each publish asks, and most apps have a few queues
def check_tube(name: str) -> str:
    """Return a queue's name; raise ValueError if beanstalkd has no such tubes."""
    raw = name.encode("utf-8", "replace")
    if len(raw) > _LONGEST_TUBE or raw.startswith(b"-") or not _TUBE_CHARACTERS.issuperset(raw):
        raise ValueError(
            f"queue {name!r} cannot be a tube of beanstalkd: expected up to {_LONGEST_TUBE} of "
            "the letters A-Z and a-z, digits and -+/;.$_(), with no hyphen in front"
        )
    return name


def checked_tubes(names: Iterable[str]) -> None:
    """Raise ConfigError for the first name that cannot be a tube."""
    for name in names:
        try:
            check_tube(name)
        except ValueError as problem:
            raise ConfigError(str(problem)) from None


def check_size(put: Put, largest: int) -> None:
    """Raise MessageTooLarge for what the server would refuse, and InvalidMessage for its tube."""
    try:
        check_tube(put.tube)
    except ValueError as problem:
        raise InvalidMessage(str(problem)) from None
    if len(put.body) > largest:
        raise MessageTooLarge(
            f"the message has {len(put.body):,} bytes, this beanstalkd takes {largest:,} at most "
            "(its option -z); store the content elsewhere and send where it is"
        )


def whole_seconds(seconds: float, *, least: int) -> int:
    """Round up: nothing runs early, no lease is shorter than asked for."""
    return min(max(math.ceil(seconds), least), LONGEST_DELAY)


def batches(puts: Iterable[Put]) -> Iterator[list[Put]]:
    """Yield the jobs in parts that one write may send."""
    batch: list[Put] = []
    size = 0
    for put in puts:
        if batch and (len(batch) >= COMMANDS_AT_ONCE or size + len(put.body) > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(put)
        size += len(put.body)
    if batch:
        yield batch
