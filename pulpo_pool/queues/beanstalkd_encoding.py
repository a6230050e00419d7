"""The encoding of the jobs' bytes in the tubes of a beanstalkd, where that is not UTF-8."""

from __future__ import annotations

from typing import Final

_OURS: Final = "utf-8"


class Encoding:
    """Jobs' bytes on their way out to the tubes and back in. What is no text stays as it is."""

    __slots__ = ("_name", "differs")

    def __init__(self, name: str) -> None:
        self._name = name
        self.differs = name != _OURS

    def outward(self, raw: bytes) -> bytes:
        """Return what the tube is to have."""
        return _recoded(raw, _OURS, self._name) if self.differs else raw

    def inward(self, body: bytes) -> bytes:
        """Return in UTF-8 what the tube had."""
        return _recoded(body, self._name, _OURS) if self.differs else body


def _recoded(raw: bytes, source: str, target: str) -> bytes:
    try:
        return raw.decode(source).encode(target)
    except UnicodeError:  # not text: MessagePack, or a stranger's
        return raw
