"""Spawner: the only file that forks, kills and reaps."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pulpo_pool.master.birth import GO, Birthplace, Links, SpawnOrder, be_born

if TYPE_CHECKING:
    import resource
    from collections.abc import Callable, Iterator, Mapping

    from pulpo_pool.seat import Body
    from pulpo_pool.states import Role


@dataclass(frozen=True, slots=True)
class Newborn:
    """A forked process that waits to hear whether it may live."""

    serial: int
    pid: int
    _answer: int

    def go(self) -> None:
        """Let it live; call this once its pid is written down."""
        with suppress(BrokenPipeError):  # it died while it waited: reaping will tell
            os.write(self._answer, GO)
        os.close(self._answer)

    def refuse(self) -> None:
        """Let it leave again: nobody waits for it any more."""
        os.close(self._answer)


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that was reaped."""

    pid: int
    status: int  # as of wait(2)
    max_rss: int  # bytes
    cpu: float  # seconds


_Waited: TypeAlias = "tuple[int, int, resource.struct_rusage]"


class Spawner(Protocol):
    """Starts processes in slots. A process is ordered first and born a little later."""

    def spawn(self, order: SpawnOrder) -> None:
        """Order a process; raise OSError if the system has no room for it."""

    def births(self) -> list[Newborn]:
        """Return the processes that were born since the last call; each waits for an answer."""


class DirectSpawner:
    """Forks from the bare master; what runs in the child was handed to it."""

    def __init__(self, bodies: Mapping[Role, Body], links: Links) -> None:
        self._bodies = bodies
        self._links = links
        self._born: list[Newborn] = []

    def spawn(self, order: SpawnOrder) -> None:
        """Fork with every signal masked, so that none is lost before the child can note it."""
        master = os.getpid()
        go, answer = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                os.close(answer)
                be_born(order, self._links, self._bodies[order.role], Birthplace(master, go))
        except OSError:
            os.close(answer)
            raise
        finally:
            os.close(go)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with suppress(OSError):  # the child does it too: whoever is first
            os.setpgid(pid, pid)
        self._born.append(Newborn(order.serial, pid, answer))

    def births(self) -> list[Newborn]:
        """Return who was forked since the last call."""
        born, self._born = self._born, []
        return born


def kill_group(pid: int) -> None:
    """End a child and all it started that stayed in its process group."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    """Send a child a signal. Only for children not reaped yet: their pid is still theirs."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def reap(is_ours: Callable[[int], bool]) -> Iterator[Ended]:
    """Yield every child that has ended; a child of ours with its process group killed first.

    No grandchild may go on working on a job that is about to be handed back, and until the
    child is reaped its process group id cannot be given to anybody else. Strangers, adopted as
    PID 1, are reaped and left otherwise alone.
    """
    take = _take_seen if hasattr(os, "waitid") else _take_unseen
    while True:
        try:
            ended = take(is_ours)
        except ChildProcessError:
            return
        if ended is None:
            return
        pid, status, usage = ended
        unit = 1 if sys.platform == "darwin" else 1024
        yield Ended(pid, status, usage.ru_maxrss * unit, usage.ru_utime + usage.ru_stime)


def _take_seen(is_ours: Callable[[int], bool]) -> _Waited | None:
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    if is_ours(ended.si_pid):
        kill_group(ended.si_pid)
    return os.wait4(ended.si_pid, 0)


def _take_unseen(is_ours: Callable[[int], bool]) -> _Waited | None:
    """Do the same where nobody can look before reaping: macOS, before Python 3.13.

    The group's id stays taken while any of its members lives, so killing it afterwards is safe.
    """
    waited = os.wait4(-1, os.WNOHANG)
    if waited[0] == 0:
        return None
    if is_ours(waited[0]):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(waited[0], signal.SIGKILL)
    return waited
