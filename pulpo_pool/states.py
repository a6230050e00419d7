"""States, orders and reasons: the words in which a pool and its processes tell of themselves."""

from __future__ import annotations

import enum


class Role(enum.IntEnum):
    """What a slot's process does."""

    WORKER = 0
    KEEPER = 1
    WEB = 2
    TEMPLATE = 3
    WATCHER = 4


class PoolState(enum.IntEnum):
    """Where the pool is; it goes back only from PAUSED to RUNNING."""

    STARTING = 0
    RUNNING = 1
    PAUSED = 2  # reserve nothing until resumed
    QUIET = 3  # reserve nothing more, stay
    DRAINING = 4
    STOPPED = 5


class SlotState(enum.IntEnum):
    """A slot's life, as the master sees it; only forward inside one life.

    EMPTY -> BOOTING -> UP -> STOPPING -> KILLED -> EMPTY | BACKOFF | RETIRED | PARKED
    """

    EMPTY = 0
    BOOTING = 1
    UP = 2
    STOPPING = 3
    KILLED = 4
    BACKOFF = 5
    RETIRED = 6  # scaled away; comes back when the pool grows
    PARKED = 7  # left for want of work; comes back when all others are busy


class QueueLink(enum.IntEnum):
    """What a process last knew of its queue."""

    AWAY = -1  # it failed, and nothing has succeeded since
    UNKNOWN = 0
    UP = 1


class Activity(enum.IntEnum):
    """What a process says of itself."""

    BOOTING = 0
    IDLE = 1
    BUSY = 2
    LEAVING = 3


class Order(enum.IntEnum):
    """What the master wants of a process; it reads this at every turn."""

    WORK = 0
    REST = 1  # reserve nothing, stay
    LEAVE = 2


class ForkReason(enum.IntEnum):
    """Why a process was started."""

    START = 0
    REPLACE = 1  # the one before failed
    RECYCLE = 2  # the one before left as planned
    SCALE_UP = 3
    RELOAD = 4
    RETURN = 5  # a parked place is needed again


class ExitReason(enum.IntEnum):
    """Why a process ended: planned first, failures from ERROR on."""

    IDLE = 0
    SHUTDOWN = 1
    SCALED_DOWN = 2
    OPERATOR = 3
    RELOAD = 4
    MAX_JOBS = 5
    MAX_AGE = 6
    MAX_MEMORY = 7
    ERROR = 8
    SIGNAL = 9
    BOOT = 10
    CUT_OFF = 11  # killed by its master at the drain timeout
    OOM = 12  # killed for its memory, by its master or by the kernel
    JOB_TIMEOUT = 13  # killed by its master for a job past its time limit
    HEARTBEAT = 14  # killed by its master for its silence

    @property
    def failed(self) -> bool:
        """Tell whether this counts against the worker's health."""
        return self >= ExitReason.ERROR
