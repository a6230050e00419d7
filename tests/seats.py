"""A master in miniature: seats, forked children in them, and waiting for what they show."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field

from pulpo_pool.scoreboard import Scoreboard, writing
from pulpo_pool.seat import Seat
from pulpo_pool.states import Order, PoolState, SlotState

PATIENCE = 20.0  # seconds after which something that should have happened never will
WORKERS = 2


def until(condition, *, within=PATIENCE, pause=0.005):
    """Return the first true answer of `condition`; fail if there is none in time."""
    end = time.monotonic() + within
    while not (answer := condition()):
        assert time.monotonic() < end, f"{condition} did not come true in {within} s"
        time.sleep(pause)
    return answer


def make_scoreboard(*, workers=WORKERS):
    scoreboard = Scoreboard(workers + 2)
    header = scoreboard.header
    header.started_at = time.time()
    header.heartbeat = header.queue_seen_at = time.monotonic()
    header.pool_state = PoolState.RUNNING
    header.wanted_workers = workers
    return scoreboard


def show_worker(scoreboard, slot, *, serial=1, state=SlotState.UP, **fields):
    """Fill both rows of a worker, as its master and it would."""
    life, work = scoreboard.life(slot), scoreboard.work(slot)
    with writing(life):
        life.state, life.serial = state, serial
    with writing(work):
        work.serial = serial
        for name, value in fields.items():
            setattr(work, name, value)


def wait_for_end(pid):
    """Reap a child and return its exit status; negative for a signal."""
    ended = {}

    def reaped():
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended["code"] = os.waitstatus_to_exitcode(status)
        return found

    until(reaped)
    return ended["code"]


@dataclass
class Nest:
    """Seats for forked children, which are killed and reaped at the end of the test."""

    scoreboard: Scoreboard = field(default_factory=make_scoreboard)
    children: dict[int, None] = field(default_factory=dict)

    def __post_init__(self):
        self.lifeline, self.life = os.pipe()
        self.doorbell_end, self.doorbell = os.pipe()
        os.set_blocking(self.doorbell, False)
        os.set_blocking(self.doorbell_end, False)
        self.bell, self.bell_rope = os.pipe()
        os.set_blocking(self.bell, False)
        self._serials = iter(range(100, 10_000))

    def spawn(self, role, slot, body):
        """Fork a child that sits in a slot and runs `body(seat)`; return its pid."""
        serial = next(self._serials)
        row = self.scoreboard.life(slot)
        with writing(row):
            row.state, row.serial, row.order = SlotState.UP, serial, Order.WORK
        pid = os.fork()
        if pid == 0:
            self._live(role, slot, serial, body)
        self.children[pid] = None
        return pid

    def _live(self, role, slot, serial, body):
        status = 1
        try:
            os.close(self.life)
            wakeup, wakeup_end = os.pipe()
            os.set_blocking(wakeup, False)
            os.set_blocking(wakeup_end, False)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, lambda _number, _frame: None)
            signal.set_wakeup_fd(wakeup_end)
            seat = Seat(
                role=role,
                slot=slot,
                serial=serial,
                generation=1,
                pool="pool",
                instance="now",
                scoreboard=self.scoreboard,
                lifeline=self.lifeline,
                wakeup=wakeup,
                wakeup_end=wakeup_end,
                doorbell=self.doorbell,
            )
            status = body(seat)
        finally:
            os._exit(status)

    def wait_until_ready(self, slot):
        until(lambda: self.scoreboard.read_work(slot))

    def tell_to_leave(self, slot, pid):
        row = self.scoreboard.life(slot)
        with writing(row):
            row.order = Order.LEAVE
        os.kill(pid, signal.SIGUSR1)

    def die(self):
        """End as a master that was killed: every child reads EOF."""
        os.close(self.life)
        self.life = -1

    def end_of(self, pid):
        code = wait_for_end(pid)
        del self.children[pid]
        return code

    def close(self):
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for fd in (self.lifeline, self.life, self.doorbell, self.doorbell_end, self.bell,
                   self.bell_rope):  # fmt: skip
            with suppress(OSError):
                os.close(fd)


KEEPER_SLOT = WORKERS
WEB_SLOT = WORKERS + 1
