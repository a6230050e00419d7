"""A job in hand on a beanstalkd: what is known of it, how it is settled, how it is got back."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

import greenstalk

from pulpo_pool.errors import UndecodableMessage
from pulpo_pool.queues.adapter import Bury, Commit, Reservation, Settled
from pulpo_pool.queues.beanstalkd_people import attempts
from pulpo_pool.queues.beanstalkd_puts import whole_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pulpo_pool.codec import Codec
    from pulpo_pool.queues.adapter import Settlement
    from pulpo_pool.queues.beanstalkd_link import Link

logger = logging.getLogger(__name__)

REFUSALS: Final = (greenstalk.BuriedError, greenstalk.OutOfMemoryError, greenstalk.InternalError)


class BeanstalkdReservation(Reservation):
    """A reservation whose counts cost a round trip, made when one of them is first read.

    `attempt` counts reservations, so cut connections count as well. It says 1 while the server
    cannot be asked.
    """

    attempt_is_free: ClassVar[bool] = False

    __slots__ = ("_ask", "_facts", "link", "number", "reserved_at")

    def __init__(
        self,
        ask: Callable[[BeanstalkdReservation], None],
        link: Link,
        number: int,
        queue: str,
        raw: bytes,
        codec: Codec,
        lease_end: float,
    ) -> None:
        # One is made for each job: by way of super(), or by keyword, it costs double.
        self.job_id = str(number)
        self.number = number
        self.queue = queue
        self.raw = raw
        self.codec = codec
        self.crashes = self.token = 0
        self.lease_end = lease_end
        self._message = None
        self._ask = ask
        self._facts: greenstalk.StatsJob | None = None
        self.link = link
        self.reserved_at = time.monotonic()

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        facts = self._told()
        return max(1, attempts(facts)) if facts else 1

    @attempt.setter
    def attempt(self, value: int) -> None:
        """Ignore what the record is born with."""

    @property
    def pardons(self) -> int:
        """How often people kicked the job."""
        facts = self._told()
        return facts["kicks"] if facts else 0

    def facts(self, link: Link) -> greenstalk.StatsJob:
        """Return what the server knows of the job, asked once; raises NotFoundError."""
        if self._facts is None:
            self._facts = link.client.stats_job(int(self.job_id))
        return self._facts

    def _told(self) -> greenstalk.StatsJob | None:
        if self._facts is None:
            self._ask(self)
        return self._facts


def verb(link: Link, settlement: Settlement) -> tuple[bytes, Callable[[], None]]:
    """Return the command that settles, and the call that sends it and reads its answer."""
    client, number = link.client, int(settlement.reservation.job_id)
    if isinstance(settlement, Commit):
        return b"delete %d\r\n" % number, partial(client.delete, number)
    job = greenstalk.Job(number, b"")
    # Released or buried without it, the job would get the default priority.
    priority = int(facts_of(link, settlement.reservation)["pri"])
    if isinstance(settlement, Bury):
        return b"bury %d %d\r\n" % (number, priority), partial(client.bury, job, priority)
    delay = whole_seconds(settlement.delay, least=0)
    command = b"release %d %d %d\r\n" % (number, priority, delay)
    return command, partial(client.release, job, priority, delay)


def refused(where: str, number: int, refusal: greenstalk.Error) -> Settled:
    """Say what a server that lacks memory or disk did instead of settling; return what it means.

    A job that it cannot write down as delayed, buried or done is nobody's: it cannot be reserved,
    deleted or kicked any more, but its log still has it as it was (beanstalkd 1.12, prot.c).
    """
    if isinstance(refusal, greenstalk.BuriedError):
        logger.error(
            "beanstalkd at %s is out of memory and has buried job %d, which was to be tried again: "
            "kick it once there is memory", where, number,
        )  # fmt: skip
        return Settled.DONE
    logger.error(
        "beanstalkd at %s cannot write down what became of job %d (is its disk full?): it shows "
        "and runs that job again only after a restart", where, number,
    )  # fmt: skip
    return Settled.LOST


def facts_of(link: Link, reservation: Reservation) -> greenstalk.StatsJob:
    """Return what the server knows of a job; raises NotFoundError."""
    if isinstance(reservation, BeanstalkdReservation):
        return reservation.facts(link)
    return link.client.stats_job(int(reservation.job_id))


def queue_of(link: Link, reservation: BeanstalkdReservation, queues: Collection[str]) -> str:
    """Return which of several queues a job came from: what is written in it, if that fits."""
    try:
        named = reservation.message.header.get("queue")
    except UndecodableMessage:
        named = None
    if named in queues:
        return str(named)
    try:
        return str(reservation.facts(link)["tube"])
    except greenstalk.NotFoundError:  # its lease has ended already
        return next(iter(queues))


def reclaim(link: Link, reservation: Reservation, stored: bytes) -> bool:
    """Take back a job that a lost connection let go of; tell whether it is ours again.

    It must wait in the queue, be the same bytes, and be older than our reservation: a server that
    restarted without a log gives its ids to other jobs.
    """
    if not isinstance(reservation, BeanstalkdReservation) or reservation.link is link:
        return False
    number = int(reservation.job_id)
    seconds_ago = int(time.monotonic() - reservation.reserved_at)
    try:
        facts = link.client.stats_job(number)
        if facts["state"] != "ready" or facts["age"] < seconds_ago - 1:
            return False
        if link.client.peek(number).body != stored:
            return False
        link.client.reserve_job(number)
    except greenstalk.NotFoundError:
        return False
    link.held[number] = reservation
    return True
