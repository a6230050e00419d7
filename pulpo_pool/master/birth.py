"""Birth: what a newborn process does before it does anything else."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from pulpo_pool.seat import Seat
from pulpo_pool.signals import DEFAULT, set_handler
from pulpo_pool.stacks import StackFile, stack_name
from pulpo_pool.states import Role

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pulpo_pool.scoreboard import Scoreboard
    from pulpo_pool.seat import Body

GO: Final = b"G"
EXIT_REFUSED: Final = 0  # the master does not know this birth, or is gone
EXIT_UNCAUGHT: Final = 1
POOL_SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
_ADOPTION: Final = 5.0  # seconds; it takes microseconds while the master lives
_ADOPTION_LOOK: Final = 0.0005
_LIBC: Final = ctypes.CDLL(None)  # made here once: each newborn would make its types anew
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_WORKER_OOM_SCORE: Final = b"300"  # the kernel's own choice is then a worker, never the master


@dataclass(frozen=True, slots=True)
class Links:
    """What the master prepared for every child before the first fork."""

    scoreboard: Scoreboard
    pool: str
    instance: str
    lifeline: int  # read end
    doorbell: int  # write end
    kept: dict[Role, tuple[int, ...]]  # descriptors that only these children keep
    stacks: Path | None = None  # the directory for what stacks show


@dataclass(frozen=True, slots=True)
class Birthplace:
    """What a newborn finds around it: its parents' descriptors, and what to do about them."""

    master: int  # pid
    go: int  # where it hears whether it may live
    closes: tuple[int, ...] | None = None  # None: all that it was not given to keep


@dataclass(frozen=True, slots=True)
class SpawnOrder:
    """Which life to begin, and where."""

    role: Role
    slot: int
    serial: int
    generation: int
    kept: tuple[int, ...] = ()  # descriptors that this child keeps, beside its role's


def be_born(order: SpawnOrder, links: Links, body: Body, place: Birthplace) -> NoReturn:
    """Become the process that sits in a slot; every signal is masked until the body is ready.

    Nothing is touched until the master has written down this birth and says GO: a process that
    nobody knows must not take a job.
    """
    status = EXIT_UNCAUGHT
    try:
        with suppress(PermissionError):  # the parent may have done it already
            os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        _await_adoption(place.master)
        _die_with(place.master)
        if os.getppid() != place.master or os.read(place.go, 1) != GO:
            os._exit(EXIT_REFUSED)
        seat = _take_seat(order, links, place.closes)
        status = body(seat)
    except BaseException:  # noqa: BLE001 - nothing may run back into the master's code
        with suppress(Exception):
            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(status)


def unmasked(body: Body) -> Body:
    """Wrap the body of a service, which leaves when told: signals only wake it."""

    def run(seat: Seat) -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return body(seat)

    return run


def _await_adoption(master: int) -> None:
    """Wait until the master is the parent: one forked twice is handed over by the kernel."""
    deadline = time.monotonic() + _ADOPTION
    while os.getppid() != master and time.monotonic() < deadline:
        time.sleep(_ADOPTION_LOOK)


def _take_seat(order: SpawnOrder, links: Links, closes: tuple[int, ...] | None) -> Seat:
    wakeup, wakeup_end = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(wakeup_end, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    kept = {
        1,
        2,
        wakeup,
        wakeup_end,
        links.lifeline,
        links.doorbell,
        *links.kept[order.role],
        *order.kept,
    }
    if closes is None:
        _close_others(kept)
        os.environ.pop("NOTIFY_SOCKET", None)  # only the master speaks to systemd
    else:
        # What the app opened while it was imported stays open: its number must not become
        # another file's, to which a handler would then write.
        for fd in (*closes, null):
            os.close(fd)
    for number in POOL_SIGNALS:
        set_handler(number, _noted)
    set_handler(signal.SIGCHLD, DEFAULT)
    name = f"{links.stacks}/{stack_name(order.role, order.slot)}"
    stacks = StackFile(name if links.stacks else None)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    if order.role is Role.WORKER:
        _offer_to_oom_killer()
    return Seat(
        role=order.role,
        slot=order.slot,
        serial=order.serial,
        generation=order.generation,
        pool=links.pool,
        instance=links.instance,
        scoreboard=links.scoreboard,
        lifeline=links.lifeline,
        wakeup=wakeup,
        wakeup_end=wakeup_end,
        doorbell=links.doorbell,
        stacks=stacks,
    )


def _offer_to_oom_killer() -> None:
    """Say so by descriptor: a file object, and the path to it, unshared 0.3 MB of each worker."""
    with suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(score, _WORKER_OOM_SCORE)
        finally:
            os.close(score)


def _noted(_number: int, _frame: object) -> None:
    """The wake-up descriptor has been written already; loops act, handlers do not."""


def _close_others(kept: Iterable[int]) -> None:
    """Close what was inherited: a socket held by a worker would outlive its owner."""
    low = 3
    for fd in sorted(fd for fd in kept if fd >= low):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _die_with(master: int) -> None:
    """Ask the kernel for TERM when the master dies (prctl(2), Linux only; not retroactive)."""
    if not sys.platform.startswith("linux") or os.getppid() != master:
        return
    with suppress(OSError, AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
