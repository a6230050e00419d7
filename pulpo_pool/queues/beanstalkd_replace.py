"""Putting a job in the place of another on a beanstalkd, which cannot change one.

The new job is stored before the old one goes, so that none is lost. Whoever is cut off between
these steps leaves both: two jobs with one message id, which `list` shows.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import greenstalk

from pulpo_pool.errors import JobReserved, NoSuchJob
from pulpo_pool.queues.beanstalkd_puts import LONGEST_DELAY, Put, check_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.queues.beanstalkd_link import Link


class Draft(NamedTuple):
    """What the new job is to say, and its priority; `stored` is told its id before the old goes."""

    body: bytes
    priority: int
    stored: Callable[[int], None]


def replace(link: Link, number: int, draft: Draft) -> str:
    """Store the draft where job `number` is, and delete that; return the new job's id.

    Raises NoSuchJob, JobReserved, MessageTooLarge.
    """
    try:
        facts = link.client.stats_job(number)
    except greenstalk.NotFoundError:
        raise NoSuchJob(f"there is no job '{number}' in this queue") from None
    delays = {"ready": 0, "buried": LONGEST_DELAY, "delayed": facts["time-left"] + 1}
    if facts["state"] not in delays:
        raise _reserved(number)
    put = Put(
        tube=str(facts["tube"]),
        body=draft.body,
        priority=draft.priority,
        delay=min(delays[facts["state"]], LONGEST_DELAY),
        lease=facts["ttr"],
    )
    check_size(put, link.largest)
    if facts["state"] == "ready":
        _hold(link, number)
    stored: list[int] = []
    try:
        link.put_all([put], stored)
    except greenstalk.BeanstalkdError:  # it drains, or is out of memory
        if facts["state"] == "ready":
            link.client.release(greenstalk.Job(number, b""), facts["pri"])
        raise
    (new,) = stored
    if facts["state"] == "buried":
        _bury(link, new, put.priority)
    draft.stored(new)
    _take_away(link, number, new)
    return str(new)


def _hold(link: Link, number: int) -> None:
    """Take a ready job in hand, so that no worker begins with it meanwhile."""
    try:
        link.client.reserve_job(number)
    except greenstalk.NotFoundError:
        raise _reserved(number) from None


def _bury(link: Link, number: int, priority: int) -> None:
    """Bury a job that nobody holds, in one write: it was put with a delay that never ends.

    Put without one, a worker might take it; held when the connection breaks, it would be ready.
    """
    reserve, bury = b"reserve-job %d\r\n" % number, b"bury %d %d\r\n" % (number, priority)
    link.wire.send_ahead((reserve, bury))
    job = link.client.reserve_job(number)
    link.client.bury(job, priority)


def _take_away(link: Link, number: int, new: int) -> None:
    """Delete the old job; if a worker got it in this moment, the new one instead."""
    try:
        link.client.delete(number)
    except greenstalk.NotFoundError:
        with suppress(greenstalk.NotFoundError):
            link.client.delete(new)
        raise _reserved(number) from None


def _reserved(number: int) -> JobReserved:
    return JobReserved(f"job {number} is in a worker's hands")
