"""The catalogue of what a pool exports: one table, from which all else about metrics is made.

Prefix `pulpo_`, base units, closed label sets: never an id, a text or a pid in a label.
"""

from __future__ import annotations

import enum
from typing import Final

from pulpo_pool.log import LEVELS
from pulpo_pool.metrics.spec import Kind, MetricSpec, Source, words
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import BuryReason, JobState
from pulpo_pool.states import ExitReason, ForkReason, PoolState

__all__ = ["CATALOGUE", "Kind", "MetricSpec", "Source"]

UNKNOWN: Final = "_unknown"  # the request_type of jobs without a handler, or without a message
OTHER: Final = "_other"  # the queue of whatever is beyond what a label may hold


class WorkerState(enum.StrEnum):
    """A worker's slot, as people see it."""

    EMPTY = "empty"  # wanted, and not started yet
    BOOTING = "booting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    RETIRED = "retired"
    PARKED = "parked"  # left for want of work; comes back when all others are busy


class QueueFailure(enum.StrEnum):
    """What was wrong with a queue that failed."""

    UNAVAILABLE = "unavailable"
    CORRUPT = "corrupt"


RECYCLES: Final = tuple(
    reason
    for reason in ExitReason
    if not reason.failed and reason not in (ExitReason.SHUTDOWN, ExitReason.SCALED_DOWN)
)  # exits that a new worker follows as planned


JOBS_PUBLISHED: Final = MetricSpec(
    "pulpo_jobs_published_total", Kind.COUNTER, Source.WORKER,
    "Jobs that handlers published through the pool's app; what other programs do is not in it.",
    ("queue", "request_type"),
)  # fmt: skip
JOBS_FINISHED: Final = MetricSpec(
    "pulpo_jobs_finished_total", Kind.COUNTER, Source.WORKER,
    "Attempts that ended, by how they ended.",
    ("queue", "request_type", "outcome"), {"outcome": words(JobOutcome)},
)  # fmt: skip
JOB_DURATION: Final = MetricSpec(
    "pulpo_job_duration_seconds", Kind.HISTOGRAM, Source.WORKER,
    "Time that attempts spent inside their handler.",
    ("queue", "request_type"),
    buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600),
)  # fmt: skip
JOB_WAIT: Final = MetricSpec(
    "pulpo_job_wait_seconds", Kind.HISTOGRAM, Source.WORKER,
    "Time from when a job could have started to when its first attempt did.",
    ("queue",),
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600),
)  # fmt: skip
JOB_RETRIES: Final = MetricSpec(
    "pulpo_job_retries_total", Kind.COUNTER, Source.WORKER,
    "Jobs put back to be tried again, by why.",
    ("queue", "request_type", "reason"), {"reason": words(RetryReason)},
)  # fmt: skip
JOB_BURIES: Final = MetricSpec(
    "pulpo_job_buries_total", Kind.COUNTER, Source.WORKER,
    "Jobs set aside for people, by why.",
    ("queue", "request_type", "reason"), {"reason": words(BuryReason)},
)  # fmt: skip
JOBS_PUT_BACK: Final = MetricSpec(
    "pulpo_jobs_put_back_total", Kind.COUNTER, Source.WORKER,
    "Times that a job was not begun, as its request_type was paused or it had just crashed.",
    ("queue", "request_type"),
)  # fmt: skip
SETTLEMENTS_LOST: Final = MetricSpec(
    "pulpo_job_settlements_lost_total", Kind.COUNTER, Source.WORKER,
    "Attempts whose lease ended before they were settled: their jobs may run twice.",
    ("queue",),
)  # fmt: skip
RECONNECTS: Final = MetricSpec(
    "pulpo_queue_reconnects_total", Kind.COUNTER, Source.WORKER,
    "Times that a process of the pool lost the queue and found it again.",
)  # fmt: skip
QUEUE_ERRORS: Final = MetricSpec(
    "pulpo_queue_errors_total", Kind.COUNTER, Source.WORKER,
    "Times that the queue failed a process of the pool, by what was wrong.",
    ("kind",), {"kind": words(QueueFailure)},
)  # fmt: skip
QUEUE_JOBS: Final = MetricSpec(
    "pulpo_queue_jobs", Kind.GAUGE, Source.KEEPER,
    "Jobs in the queue by state; missing while the queue cannot be seen.",
    ("queue", "state"), {"state": words(JobState)},
)  # fmt: skip
QUEUE_OLDEST_READY: Final = MetricSpec(
    "pulpo_queue_oldest_ready_timestamp_seconds", Kind.GAUGE, Source.KEEPER,
    "Since when the ready job that was published first has waited; 0 if none is ready.",
    ("queue",),
)  # fmt: skip
QUEUE_UP: Final = MetricSpec(
    "pulpo_queue_up", Kind.GAUGE, Source.SCOREBOARD,
    "1 while a process of the pool reaches the queue, 0 when none has for half a minute.",
)  # fmt: skip
QUEUE_SEEN: Final = MetricSpec(
    "pulpo_queue_last_seen_timestamp_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the keeper last reached the queue; 0 before the first time.",
)  # fmt: skip
JOBS_IN_FLIGHT: Final = MetricSpec(
    "pulpo_jobs_in_flight", Kind.GAUGE, Source.SCOREBOARD,
    "Jobs inside a handler now.", ("queue",),
)  # fmt: skip
LONGEST_RUNNING: Final = MetricSpec(
    "pulpo_job_longest_running_since_timestamp_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the job started that has run longest; 0 if none runs.",
    ("queue",),
)  # fmt: skip
WORKERS: Final = MetricSpec(
    "pulpo_workers", Kind.GAUGE, Source.SCOREBOARD,
    "Workers by state.", ("state",), {"state": words(WorkerState)},
)  # fmt: skip
WORKERS_WANTED: Final = MetricSpec(
    "pulpo_workers_wanted", Kind.GAUGE, Source.SCOREBOARD,
    "Workers the pool shall have.",
)  # fmt: skip
WORKER_FORKS: Final = MetricSpec(
    "pulpo_worker_forks_total", Kind.COUNTER, Source.SCOREBOARD,
    "Workers started, by why.", ("reason",), {"reason": words(ForkReason)},
)  # fmt: skip
WORKER_EXITS: Final = MetricSpec(
    "pulpo_worker_exits_total", Kind.COUNTER, Source.SCOREBOARD,
    "Workers that ended, by why.", ("reason",), {"reason": words(ExitReason)},
)  # fmt: skip
WORKER_RECYCLES: Final = MetricSpec(
    "pulpo_worker_recycles_total", Kind.COUNTER, Source.SCOREBOARD,
    "Workers that were replaced as planned, by why; among the exits.",
    ("reason",), {"reason": tuple(reason.name.lower() for reason in RECYCLES)},
)  # fmt: skip
WORKER_HEARTBEAT: Final = MetricSpec(
    "pulpo_worker_last_heartbeat_timestamp_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the worker last said that it lives: around each job, and while it waits.",
    ("worker",),
)  # fmt: skip
WORKER_START: Final = MetricSpec(
    "pulpo_worker_start_time_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the worker that sits in this slot started.",
    ("worker",),
)  # fmt: skip
WORKER_BUSY: Final = MetricSpec(
    "pulpo_worker_busy_seconds_total", Kind.COUNTER, Source.SCOREBOARD,
    "Time that the slot's workers spent inside handlers, of all its lives.",
    ("worker",),
)  # fmt: skip
WORKER_CPU: Final = MetricSpec(
    "pulpo_worker_cpu_seconds_total", Kind.COUNTER, Source.WEB,
    "Processor time of the slot's workers and their children, of all its lives.",
    ("worker",),
)  # fmt: skip
WORKER_RSS: Final = MetricSpec(
    "pulpo_worker_resident_memory_bytes", Kind.GAUGE, Source.WEB,
    "Memory of the worker, with all pages that it shares with others.",
    ("worker",),
)  # fmt: skip
WORKER_PSS: Final = MetricSpec(
    "pulpo_worker_proportional_memory_bytes", Kind.GAUGE, Source.WEB,
    "Memory of the worker, with its part of what it shares; adds up over workers.",
    ("worker",),
)  # fmt: skip
WORKER_USS: Final = MetricSpec(
    "pulpo_worker_unique_memory_bytes", Kind.GAUGE, Source.WEB,
    "Memory that only the worker has, as max-memory counts it.",
    ("worker",),
)  # fmt: skip
POOL_STATE: Final = MetricSpec(
    "pulpo_pool_state", Kind.GAUGE, Source.SCOREBOARD,
    "1 for the state the pool is in, 0 for the others.",
    ("state",), {"state": words(PoolState)},
)  # fmt: skip
POOL_READY: Final = MetricSpec(
    "pulpo_pool_ready", Kind.GAUGE, Source.SCOREBOARD,
    "1 while the pool takes jobs: what /readyz says.",
)  # fmt: skip
CRASH_LOOPING: Final = MetricSpec(
    "pulpo_pool_crash_looping", Kind.GAUGE, Source.SCOREBOARD,
    "1 while workers die so fast that their replacement is held back.",
)  # fmt: skip
CONFIG_RELOADS: Final = MetricSpec(
    "pulpo_config_reloads_total", Kind.COUNTER, Source.SCOREBOARD,
    "Reloads of the app that ended, by how.", ("result",), {"result": ("success", "failure")},
)  # fmt: skip
CONFIG_RELOADED: Final = MetricSpec(
    "pulpo_config_last_reload_successful", Kind.GAUGE, Source.SCOREBOARD,
    "1 unless the last reload failed, and the old generation goes on.",
)  # fmt: skip
CONFIG_RELOADED_AT: Final = MetricSpec(
    "pulpo_config_last_reload_success_timestamp_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the app that runs was loaded.",
)  # fmt: skip
GENERATION: Final = MetricSpec(
    "pulpo_pool_generation", Kind.GAUGE, Source.SCOREBOARD,
    "Which generation of the app new workers run.",
)  # fmt: skip
POOL_START: Final = MetricSpec(
    "pulpo_pool_start_time_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the master started.",
)  # fmt: skip
MASTER_HEARTBEAT: Final = MetricSpec(
    "pulpo_master_heartbeat_timestamp_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the master last went round its loop.",
)  # fmt: skip
PAUSED_UNTIL: Final = MetricSpec(
    "pulpo_request_type_paused_until_timestamp_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "When the pause of a request_type ends, or ended without its jobs going on yet; 0: it runs.",
    ("request_type",),
)  # fmt: skip
TYPE_PAUSES: Final = MetricSpec(
    "pulpo_request_type_pauses_total", Kind.COUNTER, Source.SCOREBOARD,
    "Pauses of a request_type, because what it depends on was down.", ("request_type",),
)  # fmt: skip
LOOP_LAG: Final = MetricSpec(
    "pulpo_master_loop_lag_seconds", Kind.GAUGE, Source.SCOREBOARD,
    "By how much the worst turn of the master's loop in the last half minute was late.",
)  # fmt: skip
LOG_MESSAGES: Final = MetricSpec(
    "pulpo_log_messages_total", Kind.COUNTER, Source.SCOREBOARD,
    "Lines that processes of the pool logged, by level.",
    ("level",), {"level": LEVELS},
)  # fmt: skip
SERIES_REFUSED: Final = MetricSpec(
    "pulpo_metrics_series_refused_total", Kind.COUNTER, Source.WORKER,
    "Series of handlers that are not exported: over the limit, or no room on the disk.",
)  # fmt: skip
FILES_QUARANTINED: Final = MetricSpec(
    "pulpo_metrics_files_quarantined_total", Kind.COUNTER, Source.WORKER,
    "Damaged metrics files that were put aside; their counts began again.",
)  # fmt: skip
FILES_SKIPPED: Final = MetricSpec(
    "pulpo_metrics_files_skipped_total", Kind.COUNTER, Source.WEB,
    "Damaged metrics files left out of a scrape.",
)  # fmt: skip
BUILD_INFO: Final = MetricSpec(
    "pulpo_build_info", Kind.GAUGE, Source.WEB,
    "Always 1; the labels say what is running.", ("version", "python", "broker"),
)  # fmt: skip

CATALOGUE: Final = (
    JOBS_PUBLISHED, JOBS_FINISHED, JOB_DURATION, JOB_WAIT, JOB_RETRIES, JOB_BURIES,
    SETTLEMENTS_LOST, JOBS_IN_FLIGHT, LONGEST_RUNNING, JOBS_PUT_BACK, PAUSED_UNTIL, TYPE_PAUSES,
    QUEUE_JOBS, QUEUE_OLDEST_READY, QUEUE_UP, QUEUE_SEEN, RECONNECTS, QUEUE_ERRORS,
    WORKERS, WORKERS_WANTED, WORKER_FORKS, WORKER_EXITS, WORKER_RECYCLES, CRASH_LOOPING,
    WORKER_START, WORKER_HEARTBEAT, WORKER_BUSY, WORKER_CPU, WORKER_RSS, WORKER_PSS, WORKER_USS,
    POOL_STATE, POOL_READY, POOL_START, MASTER_HEARTBEAT, LOOP_LAG, LOG_MESSAGES,
    CONFIG_RELOADS, CONFIG_RELOADED, CONFIG_RELOADED_AT, GENERATION,
    SERIES_REFUSED, FILES_QUARANTINED, FILES_SKIPPED, BUILD_INFO,
)  # fmt: skip
