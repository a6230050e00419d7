"""Wires: the pipes between a master and its children, laid before the first fork."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pipe:
    """A pipe that never blocks: a full one has said all that it can say."""

    reader: int
    writer: int

    @classmethod
    def laid(cls) -> Pipe:
        """Make a pipe."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        return cls(reader, writer)

    def ring(self) -> None:
        """Wake whoever reads."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self.writer, b"!")

    def drain(self) -> bytes:
        """Return what was written, and leave the pipe empty."""
        content = b""
        with suppress(BlockingIOError):
            while piece := os.read(self.reader, 4_096):
                content += piece
        return content


@dataclass(frozen=True, slots=True)
class Wires:
    """All of them. The master alone keeps the lifeline's writer, so its death is an EOF."""

    lifeline: Pipe
    doorbell: Pipe  # children ring the master
    keeper_bell: Pipe  # the master rings the keeper
    signals: Pipe  # the kernel writes the master's signals

    @classmethod
    def laid(cls, ears: Pipe) -> Wires:
        """Make all pipes but that for signals, which came first."""
        return cls(Pipe.laid(), Pipe.laid(), Pipe.laid(), ears)
