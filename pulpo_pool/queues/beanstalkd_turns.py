"""A worker's turns on a beanstalkd: settle the last job, reserve the next, keep the lease."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import greenstalk

from pulpo_pool.errors import QueueUnavailable, ReservationLost
from pulpo_pool.queues import beanstalkd_evidence as evidence
from pulpo_pool.queues import beanstalkd_jobs as jobs
from pulpo_pool.queues.adapter import Commit, Settled
from pulpo_pool.queues.beanstalkd_jobs import BeanstalkdReservation
from pulpo_pool.queues.beanstalkd_line import Line
from pulpo_pool.queues.beanstalkd_link import ANSWER_GRACE

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import QueueAdapter, Reservation, Settlement
    from pulpo_pool.queues.beanstalkd_encoding import Encoding
    from pulpo_pool.queues.beanstalkd_link import Granted, Link


_DONE: Final = Settled.DONE  # to look in an enum costs 0.07 us


class Turns:
    """The turns of one adapter, on a line of its own: there is where late jobs come in."""

    def __init__(
        self, adapter: QueueAdapter, encoding: Encoding, host: str, port: int, patience: float
    ) -> None:
        self.line = Line(host, port, patience, self._reserved)
        self._adapter = adapter
        self._encoding = encoding
        # What each turn asks for is looked up once.
        self._recodes = encoding.differs
        self._queue = next(iter(adapter.queues), "")
        self._has_queues = len(adapter.queues) > 1
        self._now = adapter.clock.now
        self._untold: QueueUnavailable | None = None  # came after a settlement that stands

    def take(
        self, settlement: Settlement | None, timeout: float
    ) -> tuple[Settled, Reservation | None]:
        """Settle the last job and reserve the next in one round trip; then wait, if need be."""
        if self._untold is not None:
            failure, self._untold = self._untold, None
            raise failure
        line = self.line
        line.lock.acquire()  # not by `with`, which takes twice the time
        try:
            link = line.link
            if link is None or timeout <= 0 or link.parked is not None:
                return self._take(settlement, timeout)
            following = self._hop(link, settlement)
            if following is not None:
                return _DONE, following
            # What was sent has yet to be answered, and the wait for the next is part of it.
            return self._take(settlement, timeout, hopped=link.parked is not None)
        finally:
            line.lock.release()

    def _hop(self, link: Link, settlement: Settlement | None) -> Reservation | None:
        """Delete the one job in hand, as nearly always, and return the next; None: see `Link.hop`.

        With other jobs in hand, or a failure to settle, nothing is sent.
        """
        if type(settlement) is not Commit:
            return None
        done, held = settlement.reservation, link.held
        if (
            type(done) is not BeanstalkdReservation
            or held.get(done.number) is not done
            or len(held) > 1
            or self.line.granted is not None
        ):
            return None
        try:
            granted = link.hop(done.number)
            if granted is None:
                return None
            held.clear()
            return self._reserved(link, *granted)
        except BaseException as error:
            self.line.fail(error)
            raise

    def _take(
        self, settlement: Settlement | None, timeout: float, *, hopped: bool = False
    ) -> tuple[Settled, Reservation | None]:
        settled = Settled.NOTHING
        waits = timeout > 0
        line = self.line
        try:
            goes_on = hopped or (waits and settlement is None)
            with line.waiting if goes_on else line.talking as link:
                link.watch(self._adapter.queues)
                if settlement is not None:
                    parks_until = time.monotonic() + timeout if waits else None
                    settled = self._settle(link, settlement, parks_until)
                # A wait that was only left has no answer on its way: one wake-up a look, not two.
                grace = 0.0 if settlement is None else ANSWER_GRACE
                return settled, self._next(link, timeout, grace)
        except QueueUnavailable as failure:
            if settled is Settled.NOTHING:
                raise
            self._untold = failure
            return settled, None  # the settlement stands; the next call will tell the rest

    def settle(self, settlement: Settlement) -> Settled:
        """Settle a job; it may be one whose connection was lost meanwhile."""
        with self.line.talking as link:
            return self._settle(link, settlement)

    def touch(self, reservation: Reservation) -> float:
        """Renew the lease and return its length in seconds; raise ReservationLost."""
        number = int(reservation.job_id)
        try:
            with self.line.talking as link:
                if link.held.get(number) is not reservation:
                    raise ReservationLost(f"job {number}: the connection it was held on is gone")
                link.client.touch(greenstalk.Job(number, b""))
                return float(jobs.facts_of(link, reservation)["ttr"])
        except greenstalk.NotFoundError:
            raise ReservationLost(f"job {number}: the lease had ended") from None

    # -- reserving ----------------------------------------------------------------------------

    def _next(self, link: Link, timeout: float, grace: float) -> Reservation | None:
        """Reserve the next job; a worker is shown idle if none comes in `grace` seconds."""
        late = self.line.take_granted()
        if late is not None:
            return late
        adapter = self._adapter
        deadline = time.monotonic() + timeout
        if link.parked is None:
            granted = link.look(adapter.queues)
        else:
            granted = link.wait(time.monotonic() + grace, ())
        if granted is None and timeout > 0:
            if adapter.before_wait is not None:
                adapter.before_wait()
            link, granted = self._wait(link, deadline)
        if granted is not None:
            return self._reserved(link, *granted)
        if link.parked is not None and not (timeout > 0 and adapter.interrupts) and not link.held:
            # Only a worker's loop comes back soon: for others the server shall not wait on.
            self.line.drop()
        return None

    def _wait(self, link: Link, deadline: float) -> tuple[Link, Granted | None]:
        """Wait for a job, and look now and then whether the server is there at all."""
        while True:
            if link.parked is None:
                link.park(deadline)
            granted = link.wait(min(deadline, link.stale_at), self._adapter.interrupts)
            if granted is not None or time.monotonic() >= deadline or not link.went_stale:
                return link, granted
            link = self.line.connected(resumes=True)
            link.watch(self._adapter.queues)

    def _reserved(self, link: Link, number: int, body: bytes) -> Reservation:
        if self._recodes:
            body = self._encoding.inward(body)
        adapter = self._adapter
        reservation = BeanstalkdReservation(
            self._ask_about,
            link,
            number,
            self._queue,
            body,
            adapter.codec,
            self._now() + adapter.lease,
        )
        if self._has_queues:
            reservation.queue = jobs.queue_of(link, reservation, adapter.queues)
        link.held[number] = reservation
        return reservation

    def _ask_about(self, reservation: BeanstalkdReservation) -> None:
        """Let a reservation learn its counts, if the server can be asked and knows the job."""
        try:
            with self.line.talking as link:
                if reservation.link is link:
                    reservation.facts(link)
        except (QueueUnavailable, greenstalk.NotFoundError):
            return  # its reader has an answer for that

    # -- settling -----------------------------------------------------------------------------

    def _settle(
        self, link: Link, settlement: Settlement, parks_until: float | None = None
    ) -> Settled:
        """Settle; with a deadline ask in the same write for the next job."""
        reservation = settlement.reservation
        number = int(reservation.job_id)
        if link.held.get(number) is not reservation and not self._reclaimed(link, reservation):
            return Settled.LOST
        try:
            command, call = jobs.verb(link, settlement)
        except greenstalk.NotFoundError:
            link.held.pop(number, None)
            return Settled.LOST
        adapter = self._adapter
        try:
            if adapter.evidence is not None and not isinstance(settlement, Commit):
                # First: whoever sees it buried asks why.
                evidence.keep(
                    adapter.evidence, link, settlement, owner=adapter.owner, now=adapter.clock.now()
                )
            if parks_until is not None and self.line.granted is None and link.parked is None:
                link.park(parks_until, after=command)
            call()
        except greenstalk.NotFoundError:
            return Settled.LOST
        except jobs.REFUSALS as refusal:
            return jobs.refused(self.line.where, number, refusal)
        finally:
            link.held.pop(number, None)
        return Settled.DONE

    def _reclaimed(self, link: Link, reservation: Reservation) -> bool:
        return jobs.reclaim(link, reservation, self._encoding.outward(reservation.raw))
