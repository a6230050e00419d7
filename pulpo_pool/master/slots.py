"""Slots: what the master knows of each place in the pool. Bookkeeping, no system calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pulpo_pool.states import ExitReason, ForkReason, Order, Role, SlotState

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIVE = frozenset({SlotState.BOOTING, SlotState.UP, SlotState.STOPPING, SlotState.KILLED})


@dataclass(slots=True)
class Slot:
    """A place for one process at a time. Times are monotonic seconds."""

    index: int
    role: Role
    state: SlotState = SlotState.EMPTY
    pid: int = 0
    serial: int = 0
    generation: int = 0  # of the app, in this life
    deadline: float | None = None  # when the present state has lasted too long
    order: Order = Order.WORK
    leave_as: ExitReason = ExitReason.SHUTDOWN
    next_fork: ForkReason = ForkReason.START
    up_since: float = 0.0
    ever_up: bool = False  # in this life
    boot_failures: int = 0  # lives in a row that never came up
    failures: int = 0  # deaths in a row while booting or without a job
    cut_off: bool = False  # its master killed it at the drain timeout
    condemned: ExitReason | None = None  # what its master ends it for
    early_lives: int = 0  # in a row that were over their memory limit from the start

    @property
    def alive(self) -> bool:
        """Whether a process sits here that is not reaped yet."""
        return self.state in ALIVE

    @property
    def label(self) -> str:
        """The slot's name for people."""
        return f"worker {self.index}" if self.role is Role.WORKER else self.role.name.lower()

    def ordered(self, serial: int, generation: int, boot_deadline: float) -> None:
        """Begin a life: a process is on its way, its pid is not known yet."""
        self.state = SlotState.BOOTING
        self.pid, self.serial, self.generation = 0, serial, generation
        self.deadline = boot_deadline
        self.order, self.leave_as = Order.WORK, ExitReason.SHUTDOWN
        self.ever_up = self.cut_off = False
        self.condemned = None

    def born(self, pid: int) -> None:
        """Note who the process is."""
        self.pid = pid

    def came_up(self, now: float) -> None:
        """Note that the process reported ready."""
        self.state, self.deadline = SlotState.UP, None
        self.up_since, self.ever_up = now, True
        self.failures = max(0, self.failures - self.boot_failures)  # the boot is mended
        self.boot_failures = 0

    def told_to_leave(self, reason: ExitReason, deadline: float) -> None:
        """Note that the process was asked to go. Told once; a later reason does not replace it."""
        if self.state in (SlotState.BOOTING, SlotState.UP):
            self.state, self.deadline = SlotState.STOPPING, deadline
            self.order, self.leave_as = Order.LEAVE, reason

    def condemn(self, reason: ExitReason, deadline: float) -> None:
        """Note that the process is to be ended, after the time it gets to show its stack."""
        self.state, self.deadline = SlotState.STOPPING, deadline
        self.order, self.leave_as = Order.LEAVE, reason
        self.condemned = reason

    def killed(self) -> None:
        """Note that the process group was sent KILL."""
        self.state, self.deadline = SlotState.KILLED, None

    def emptied(self, next_fork: ForkReason) -> None:
        """Note that the process is reaped; the place is free at once."""
        self.state, self.pid, self.deadline = SlotState.EMPTY, 0, None
        self.next_fork = next_fork

    def backs_off(self, until: float) -> None:
        """Keep the free place empty for a while."""
        self.state, self.deadline = SlotState.BACKOFF, until

    def retires(self) -> None:
        """Keep the free place empty until the pool grows."""
        self.state, self.pid, self.deadline = SlotState.RETIRED, 0, None

    def parks(self) -> None:
        """Keep the free place empty until all other workers are busy."""
        self.state, self.pid, self.deadline = SlotState.PARKED, 0, None

    def returns(self, reason: ForkReason = ForkReason.SCALE_UP) -> None:
        """Make a retired or parked place one to be filled."""
        self.state, self.next_fork = SlotState.EMPTY, reason
        self.failures = self.boot_failures = 0


@dataclass(slots=True)
class SlotTable:
    """All places: workers first, by number, then the services."""

    wanted: int = 0  # how many workers the pool should have
    workers: list[Slot] = field(default_factory=list)
    services: list[Slot] = field(default_factory=list)
    to_recycle: dict[int, ExitReason] = field(default_factory=dict)  # workers to renew, and why

    @classmethod
    def planned(cls, workers: int, max_workers: int, services: tuple[Role, ...]) -> SlotTable:
        """Return a table of empty places; service rows follow the last possible worker's."""
        table = cls()
        table.scale(workers)
        table.services = [Slot(max_workers + n, role) for n, role in enumerate(services)]
        return table

    def __iter__(self) -> Iterator[Slot]:
        yield from self.workers
        yield from self.services

    def scale(self, workers: int) -> None:
        """Want this many workers. Places above are emptied by policy, one by one."""
        self.wanted = workers
        reason = ForkReason.SCALE_UP if self.services else ForkReason.START
        while len(self.workers) < workers:
            self.workers.append(Slot(len(self.workers), Role.WORKER, next_fork=reason))
        for slot in self.workers[:workers]:
            if slot.state is SlotState.RETIRED:
                slot.returns()
        for slot in self.workers[workers:]:
            if slot.state is SlotState.PARKED:
                slot.retires()

    @property
    def present(self) -> list[Slot]:
        """The workers' places that are to be filled now: all that are wanted and not parked."""
        return [slot for slot in self.workers[: self.wanted] if slot.state is not SlotState.PARKED]

    def is_surplus(self, slot: Slot) -> bool:
        """Tell whether the pool has shrunk below this worker's place."""
        return slot.role is Role.WORKER and slot.index >= self.wanted

    def by_pid(self, pid: int) -> Slot | None:
        """Return the slot of a living child; None if it is a stranger."""
        return next((slot for slot in self if slot.alive and slot.pid == pid), None)

    def by_serial(self, serial: int) -> Slot | None:
        """Return the slot in which a life was ordered; None if nobody waits for it any more."""
        return next((slot for slot in self if slot.alive and slot.serial == serial), None)

    def of_role(self, role: Role) -> list[Slot]:
        """Return the slots of a service; none if the pool does without it."""
        return [slot for slot in self.services if slot.role is role]
