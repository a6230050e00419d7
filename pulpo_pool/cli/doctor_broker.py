"""The doctor looks at the queue: a job goes the whole way through it, and nothing stays behind."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.cli.check import without_password
from pulpo_pool.cli.findings import ok, problem, warning
from pulpo_pool.errors import NoSuchJob, PulpoPoolError, QueueError
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.adapter import JobState
from pulpo_pool.queues.opening import check_url, file_url, open_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.cli.findings import Finding
    from pulpo_pool.queues.adapter import QueueAdapter
    from pulpo_pool.settings import Settings

# One name for all doctors: the keeper makes a metric's series for every queue that it sees.
SCRATCH: Final = "pulpo-pool.doctor"
_MOST_LEFT: Final = 1_000  # jobs of doctors who were killed at work
_SLOW: Final = 0.5  # seconds; a round trip to another continent and a sync of a disk fit in it
_LEASE: Final = 10.0  # seconds; long enough for two calls
_KEPT: Final = 60.0  # seconds after which a scratch job is void, should it ever be left behind


def broker(settings: Settings) -> Iterator[Finding]:
    """Publish, reserve and commit a job in a scratch queue."""
    url = settings.broker_url
    shown = without_password(url)
    if not check_url(url).shared:
        yield problem(
            "broker", f"{shown} lives in one process", "name one that processes share: file:PATH"
        )
        return
    try:
        with _within_reach(url) as (reachable, note):
            seconds, engine = _round_trip(reachable)
    except (PulpoPoolError, OSError) as error:
        yield problem("broker", _without(url, str(error)), "workers would wait for it, without end")
        return
    said = f"{shown}: a job went through in {seconds * 1000:.1f} ms{note}"
    facts: dict[str, Any] = {"broker": shown, "seconds": seconds, "engine": engine}
    if seconds > _SLOW:
        advice = "every publisher and worker waits as long: look at its disk and the way there"
        yield warning("broker", said, advice, **facts)
    else:
        yield ok("broker", f"{said} ({engine})" if engine else said, **facts)


@contextmanager
def _within_reach(url: str) -> Iterator[tuple[str, str]]:
    """Yield the queue to try, and what to say of it.

    An embedded queue that is not there yet is left to the pool to make: one beside its place
    shows what the filesystem can do.
    """
    address = check_url(url)
    place = Path(address.target)
    if address.scheme != "file" or place.exists():
        yield url, ""
        return
    above = next((each for each in place.absolute().parents if each.exists()), Path("/"))
    scratch = tempfile.mkdtemp(prefix=".pulpo-doctor-", dir=above)
    try:
        yield file_url(str(Path(scratch) / "queue.db")), ", beside its place: it is not there yet"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _round_trip(url: str) -> tuple[float, str]:
    """Return the seconds from publishing to the end of a job, and which engine it was."""
    message = Message(request_type=SCRATCH, queue=SCRATCH, expiration=_KEPT)
    with open_queue(url, queues=(SCRATCH,), lease=_LEASE) as adapter:
        engine = adapter.engine()
        began = time.monotonic()
        ((_, job_id),) = Publisher(adapter).publish_many([message])
        try:
            _take(adapter, job_id)
            return time.monotonic() - began, engine
        finally:
            with suppress(PulpoPoolError):
                adapter.delete(job_id)  # where done jobs are kept, this one shall not be


def _take(adapter: QueueAdapter, job_id: str) -> None:
    """Reserve and commit the job, and what another doctor may have left before it."""
    for _ in range(_MOST_LEFT):
        reservation = adapter.dequeue()
        if reservation is None:
            break
        adapter.commit(reservation)
        if reservation.job_id == job_id:
            return
    with suppress(NoSuchJob):  # then another doctor, at work at this moment, was given it
        found = adapter.peek(job_id)
        if found.end is None and found.state is not JobState.RESERVED:
            raise QueueError(f"job {job_id} was published, and nobody is given it")


def _without(url: str, text: str) -> str:
    return text.replace(url, without_password(url))
