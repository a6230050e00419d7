"""LeaseKeeper: renews the lease of the job in hand, from one thread for a worker's whole life."""

from __future__ import annotations

import logging
import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pulpo_pool.errors import QueueError, ReservationLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.queues.adapter import QueueAdapter, Reservation

logger = logging.getLogger(__name__)

TOUCHES_PER_LEASE: Final = 3  # so that one may fail and the next is still in time


class LeaseKeeper:
    """Touches what is in hand every third of a lease, and notices that the master is gone.

    Handing a job over is one assignment, so short jobs pay nothing: the thread sleeps through
    them. Only jobs that are in hand when it wakes are touched.
    """

    def __init__(self, queue: QueueAdapter, lifeline: int, orphaned: Callable[[], None]) -> None:
        self.queue = queue
        self.in_hand: Reservation | None = None
        self._lifeline = lifeline
        self._orphaned = orphaned
        self._end, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._run, name="pulpo-lease", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. It is not waited for: it may be inside a queue that hangs."""
        self.in_hand = None
        with suppress(OSError):
            os.write(self._bell, b".")

    def _run(self) -> None:
        watched = [self._end, self._lifeline]
        while True:
            readable, _, _ = select.select(watched, [], [], self.queue.lease / TOUCHES_PER_LEASE)
            if self._end in readable:
                return
            if readable:
                watched.remove(self._lifeline)
                self._orphaned()
            self._touch()

    def _touch(self) -> None:
        reservation = self.in_hand
        if reservation is None:
            return
        try:
            self.queue.touch(reservation)
        except ReservationLost:
            if self.in_hand is reservation:
                logger.warning(
                    "the lease of job %s ended before it was renewed: it may run twice",
                    reservation.job_id,
                )
        except QueueError as error:
            logger.warning("the lease of job %s was not renewed: %s", reservation.job_id, error)
