"""Template: imports the app once, freezes its heap, and forks workers when asked.

A worker is forked twice: the process between exits at once, and the kernel hands the worker to
the master, which is the subreaper (prctl(2)). So the master reaps it, and the death of a template
takes no worker with it.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import struct
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from pulpo_pool.heap import ready_to_fork
from pulpo_pool.master.birth import Birthplace, Links, SpawnOrder, be_born
from pulpo_pool.master.spawner import Newborn
from pulpo_pool.service import Service
from pulpo_pool.states import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pulpo_pool.clock import Clock
    from pulpo_pool.scoreboard import WorkRow
    from pulpo_pool.seat import Body, Seat

logger = logging.getLogger(__name__)

EXIT_LEFT: Final = 0
EXIT_BOOT_FAILED: Final = 3
IMPORTING: Final = (20_000, 50, 100)  # thresholds of the garbage collector: gc.set_threshold
PATIENCE: Final = 60.0  # seconds between two looks of a template that nobody asks for anything

_PR_SET_CHILD_SUBREAPER: Final = 36  # prctl(2)
_ORDER: Final = struct.Struct("=qqq")  # slot, serial, generation
_BIRTH: Final = struct.Struct("=qq")  # serial, pid; or minus the error's number


def can_preload() -> bool:
    """Tell whether this system lets a master adopt its grandchildren."""
    return sys.platform.startswith("linux")


def adopt_grandchildren() -> None:
    """Make this process the parent of what its children leave behind."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


class TemplateSpawner:
    """The master's end of one template: orders go out, births come back."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._answers: dict[int, int] = {}  # by serial: where a newborn hears GO

    def fileno(self) -> int:
        """Return what becomes readable with a birth."""
        return self._ours.fileno()

    def spawn(self, order: SpawnOrder) -> None:
        """Ask the template for a worker; raise OSError if it is gone or far behind."""
        go, answer = os.pipe()
        try:
            socket.send_fds(
                self._ours, [_ORDER.pack(order.slot, order.serial, order.generation)], [go]
            )
        except OSError:
            os.close(answer)
            raise
        finally:
            os.close(go)
        self._answers[order.serial] = answer

    def births(self) -> list[Newborn]:
        """Return who was born since the last call."""
        born = []
        with suppress(BlockingIOError, ConnectionError):
            while packet := self._ours.recv(_BIRTH.size):
                serial, pid = _BIRTH.unpack(packet)
                answer = self._answers.pop(serial, None)
                if answer is None:
                    continue
                if pid < 0:
                    logger.error("the template cannot fork: %s", os.strerror(-pid))
                    os.close(answer)
                    continue
                born.append(Newborn(serial, pid, answer))
        return born

    def outstanding(self) -> set[int]:
        """Return the serials that were ordered and not born yet."""
        return set(self._answers)

    def close(self) -> None:
        """Hang up: the template leaves, and so does whoever still waits to hear GO."""
        for answer in self._answers.values():
            os.close(answer)
        self._answers.clear()
        self._ours.close()
        self.theirs.close()


def run_template(
    seat: Seat,
    *,
    orders: socket.socket,
    links: Links,
    prepare: Callable[[], Body | None],
    clock: Clock,
) -> int:
    """Prepare what workers run, then fork them until told to leave; return the exit status.

    `prepare` imports the app; it returns None, and has said why, where that fails.
    """
    master = os.getppid()
    service = Service(seat, clock)
    with _collecting_seldom():
        body = prepare()
    if body is None:
        return EXIT_BOOT_FAILED
    stacks: tuple[int, ...] = ()
    if seat.stacks is not None:
        seat.stacks.keep_ready()  # whatever the import did to it
        stacks = seat.stacks.descriptors
    ready_to_fork()
    orders.setblocking(False)
    service.watch(orders.fileno())
    service.report_ready(f"template gen {seat.generation}")
    ours = (orders.fileno(), seat.wakeup, seat.wakeup_end, *stacks)
    nursery = Nursery(orders, links, body, master, seat.work, ours)
    while not service.leaving and not nursery.hung_up:
        service.wait(PATIENCE)
        nursery.serve()
    service.report_leaving()
    return EXIT_LEFT


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Import at a tenth less: what a module defines is no garbage, and yet examined ever again.

    Nor is there a collection after it. It would find next to nothing (66 of 78,000 objects of
    pandas, requests and SQLAlchemy) for 30 ms and a write to each page, the master's included.
    """
    usual = gc.get_threshold()
    gc.set_threshold(*IMPORTING)
    try:
        yield
    finally:
        if gc.get_threshold() == IMPORTING:  # else the app has decided
            gc.set_threshold(*usual)


@dataclass(slots=True)
class Nursery:
    """Where a template gives birth to workers."""

    orders: socket.socket
    links: Links
    body: Body
    master: int  # pid
    row: WorkRow
    ours: tuple[int, ...]  # descriptors that no worker may keep
    hung_up: bool = False

    def serve(self) -> None:
        """Fork all that was ordered; notice when the master hangs up."""
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self.orders, _ORDER.size, 1)
            except BlockingIOError:
                return
            if not packet:
                self.hung_up = True
                return
            slot, serial, generation = _ORDER.unpack(packet)
            self._fork_twice(SpawnOrder(Role.WORKER, slot, serial, generation), descriptors[0])
            self.row.jobs_done += 1  # a template that gave birth has proved healthy

    def _fork_twice(self, order: SpawnOrder, go: int) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            between = os.fork()
            if between == 0:
                self._hand_over(order, go)
            os.waitpid(between, 0)
        except OSError as error:
            self._announce(order.serial, -(error.errno or 1))
        finally:
            os.close(go)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _hand_over(self, order: SpawnOrder, go: int) -> NoReturn:
        """Fork the worker, tell the master its pid, and exit: then it is the master's."""
        try:
            worker = os.fork()
        except OSError as error:
            self._announce(order.serial, -(error.errno or 1))
            os._exit(1)
        if worker == 0:
            be_born(order, self.links, self.body, Birthplace(self.master, go, (*self.ours, go)))
        # Before the exit: the master hears of the pid before it can ever reap it.
        self._announce(order.serial, worker)
        os._exit(0)

    def _announce(self, serial: int, pid: int) -> None:
        with suppress(OSError):
            select.select([], [self.orders], [])
            self.orders.send(_BIRTH.pack(serial, pid))
            os.write(self.links.doorbell, b"!")
