"""Housekeeping: whose jobs are taken back, and how much waits in each queue."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from prometheus_client import Gauge

from pulpo_pool.crashes import FORGOTTEN, crash_delay
from pulpo_pool.errors import UndecodableMessage
from pulpo_pool.metrics.catalogue import OTHER, QUEUE_JOBS, QUEUE_OLDEST_READY
from pulpo_pool.outcomes import JobOutcome
from pulpo_pool.queues.adapter import CrashLimit, Fate, JobState, QueueStats, Verdict
from pulpo_pool.states import ExitReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import CollectorRegistry

    from pulpo_pool.crashes import Coroner, CrashBook
    from pulpo_pool.metrics.jobs import JobMetrics
    from pulpo_pool.queues.adapter import Judge, Owner, QueueAdapter, Rescued
    from pulpo_pool.scoreboard import Scoreboard

logger = logging.getLogger(__name__)

MOST_QUEUES: Final = 200  # exported by name; publishers choose names, so there must be an end
MOST_REQUEST_TYPES: Final = 500  # the same, of jobs that killed their worker


def judge_by(scoreboard: Scoreboard, coroner: Coroner) -> Judge:
    """Return who decides about an owner: by what this pool's master saw of its death.

    Another pool's owner is left to its own keeper, or to the end of its lease. An owner from an
    earlier start of this pool is gone: this start holds the pool's lock, so that one is dead.
    """

    def judge(owner: Owner) -> Verdict:
        if owner.pool != coroner.pool:
            return Verdict(Fate.ALIVE)
        if owner.instance != coroner.instance:
            return Verdict(Fate.GONE, "its pool died")
        death = scoreboard.death_of(owner.serial)
        if death is None:
            return Verdict(Fate.ALIVE)
        setback = coroner.setback(owner.slot, death)
        evidence = f"{setback.error}\n{setback.stack}".rstrip("\n")
        fate = Fate.CRASHED
        if death.reason is ExitReason.CUT_OFF:
            fate = Fate.CUT_OFF
        elif death.wait_status == FORGOTTEN or not death.reason.failed:
            fate = Fate.GONE
        return Verdict(fate, evidence, setback)

    return judge


class Rescuer:
    """Takes back the jobs of dead workers, and says so."""

    def __init__(
        self, judge: Judge, book: CrashBook, metrics: JobMetrics, *, max_crashes: int
    ) -> None:
        self._judge = judge
        self._book = book
        self._limit = CrashLimit(max_crashes, crash_delay)
        self._metrics = metrics
        self._request_types: set[str] = set()

    def rescue(self, queue: QueueAdapter) -> int:
        """Take back what dead workers held; return how many jobs. Raises QueueUnavailable."""
        if queue.numbering() is not None:
            return self._note_crashes(queue)
        rescued = queue.rescue(self._judge, self._limit)
        for job in rescued:
            self._tell(job, _request_type(queue, job))
        return len(rescued)

    def _note_crashes(self, queue: QueueAdapter) -> int:
        """Write down the crashes of jobs that their engine has freed by itself.

        A job at its limit is buried by the worker that gets it next, who also counts that.
        """
        noted = 0
        for job, crashes, setback in self._book.write_down(queue):
            noted += 1
            logger.warning(
                "job %s (%s) is back in queue %s, crashes so far %d: %s",
                job.job_id,
                job.request_type or "undecodable",
                job.queue,
                crashes,
                setback.error,
            )
            if crashes % self._limit.max_crashes:
                self._count(job.queue, job.request_type, JobOutcome.RETRIED)
        return noted

    def _count(self, queue: str, request_type: str, outcome: JobOutcome) -> None:
        if len(self._request_types) < MOST_REQUEST_TYPES:
            self._request_types.add(request_type)
            self._metrics.prepare((), self._request_types)
        self._metrics.job_crashed(queue, request_type, outcome)

    def _tell(self, job: Rescued, request_type: str) -> None:
        crashed = job.verdict.fate is Fate.CRASHED
        logger.log(
            logging.WARNING if crashed else logging.INFO,
            "job %s (%s) was taken back into queue %s as %s, crashes so far %d: %s",
            job.job_id,
            request_type or "undecodable",
            job.queue,
            job.state.value,
            job.crashes,
            job.verdict.evidence.partition("\n")[0],  # the stack is kept with the job
        )
        if crashed:
            buried = job.state is JobState.BURIED
            self._count(
                job.queue, request_type, JobOutcome.BURIED if buried else JobOutcome.RETRIED
            )


def _request_type(queue: QueueAdapter, job: Rescued) -> str:
    try:
        return queue.codec.decode(job.raw).request_type
    except UndecodableMessage:
        return ""


class QueueGauges:
    """Exports how many jobs wait; a queue that empties and vanishes falls to 0."""

    def __init__(self, queues: Iterable[str], registry: CollectorRegistry) -> None:
        self._gauge = QUEUE_JOBS.make(Gauge, registry)
        self._oldest = QUEUE_OLDEST_READY.make(Gauge, registry)
        self._shown = dict.fromkeys(queues)

    def show(self, stats: Mapping[str, QueueStats], waiting_since: Mapping[str, float]) -> None:
        """Set every queue's numbers; those beyond the first MOST_QUEUES are put together."""
        rest = QueueStats()
        for queue, counts in stats.items():
            if queue in self._shown or len(self._shown) < MOST_QUEUES:
                self._shown[queue] = None
            else:
                rest += counts
        for queue in self._shown:
            self._set(queue, stats.get(queue, QueueStats()), waiting_since.get(queue, 0.0))
        if len(self._shown) >= MOST_QUEUES:
            others = [at for queue, at in waiting_since.items() if queue not in self._shown]
            self._set(OTHER, rest, min(others, default=0.0))

    def _set(self, queue: str, counts: QueueStats, oldest_ready: float) -> None:
        self._oldest.labels(queue).set(oldest_ready)
        for state in JobState:
            self._gauge.labels(queue, state.value).set(getattr(counts, state.value))
