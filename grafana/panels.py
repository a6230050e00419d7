"""What the dashboard shows, in the order of a job's story: it waits, is handled, is settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

JOB: Final = 'job=~"$job"'
QUEUE: Final = f'{JOB}, queue=~"$queue"'
TYPE: Final = f'{QUEUE}, request_type=~"$request_type"'
FAILED: Final = 'reason=~"error|signal|boot|oom|job_timeout|heartbeat"'
WINDOW: Final = "[$__rate_interval]"

Look = Literal["lines", "stack", "stat", "table", "heatmap"]


@dataclass(frozen=True, slots=True)
class Query:
    """A line of PromQL, and what its series are called in the legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `width` is in 24 columns; `limits` colour a stat, each from a value on."""

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    look: Look = "lines"
    width: int = 8
    limits: tuple[tuple[float, str], ...] = ()


def by(labels: str, inner: str) -> str:
    return f"sum by ({labels}) ({inner})"


def rate(name: str, labels: str) -> str:
    return f"rate({name}{{{labels}}}{WINDOW})"


def rates(name: str, labels: str, by_label: str) -> tuple[Query, ...]:
    return (Query(by(by_label, rate(name, labels)), f"{{{{{by_label}}}}}"),)


def quantiles(name: str, labels: str) -> tuple[Query, ...]:
    return tuple(
        Query(
            f"histogram_quantile({share}, {by('le', rate(f'{name}_bucket', labels))})",
            f"{share * 100:g} %",
        )
        for share in (0.5, 0.95, 0.99)
    )


def age(name: str, labels: str) -> str:
    """How long ago a moment was; 0 where there is none."""
    series = f"{name}{{{labels}}}"
    return f"(time() - {series}) * ({series} > bool 0)"


def depth(state: str) -> str:
    """Pools that share a queue all report it, so the largest counts, not the sum."""
    return f'sum(max by (job, queue) (pulpo_queue_jobs{{{QUEUE}, state="{state}"}}))'


ENDED_BADLY: Final = f'{TYPE}, outcome=~"buried|expired"'
ENDED: Final = f'{TYPE}, outcome=~"success|buried|expired"'
LOST: Final = (
    f"sum({rate('pulpo_jobs_finished_total', ENDED_BADLY)}) "
    f"/ (sum({rate('pulpo_jobs_finished_total', ENDED)}) > 0) or vector(0)"
)
BUSY: Final = f'pulpo_workers{{{JOB}, state="busy"}}'

AT_A_GLANCE: Final = (
    Panel(
        "Ready", "Jobs that could run now.", "short", (Query(depth("ready")),), "stat", 4,
        ((0, "green"), (1_000, "orange")),
    ),
    Panel(
        "Oldest ready", "How long the job waits that was published first.", "s",
        (Query(f"max({age('pulpo_queue_oldest_ready_timestamp_seconds', QUEUE)})"),), "stat", 4,
        ((0, "green"), (60, "orange"), (600, "red")),
    ),
    Panel(
        "Attempts a second", "Whatever their outcome.", "ops",
        (Query(f"sum({rate('pulpo_jobs_finished_total', TYPE)})"),), "stat", 4,
    ),
    Panel(
        "Lost", "The part of the jobs that ended buried or expired.", "percentunit",
        (Query(LOST),), "stat", 4, ((0, "green"), (0.01, "orange"), (0.06, "red")),
    ),
    Panel(
        "Busy", "The part of the workers that runs a job.", "percentunit",
        (Query(f"sum({BUSY}) / sum(pulpo_workers_wanted{{{JOB}}})"),), "stat", 4,
        ((0, "green"), (0.95, "orange")),
    ),
    Panel(
        "Buried", "Jobs that wait for people.", "short", (Query(depth("buried")),), "stat", 4,
        ((0, "green"), (1, "orange")),
    ),
)  # fmt: skip
WAITING: Final = (
    Panel(
        "Jobs by state", "In all pools that share the queue.", "short",
        (Query(
            f"sum by (state) (max by (job, queue, state) (pulpo_queue_jobs{{{QUEUE}}}))",
            "{{state}}",
        ),),
    ),
    Panel(
        "Oldest ready job", "Since it could first have run.", "s",
        (Query(
            f"max by (queue) ({age('pulpo_queue_oldest_ready_timestamp_seconds', QUEUE)})",
            "{{queue}}",
        ),),
    ),
    Panel(
        "Wait", "From when a job could have started to when its first attempt did.", "s",
        quantiles("pulpo_job_wait_seconds", QUEUE),
    ),
    Panel(
        "Published by handlers, by request_type", "What other programs publish is not in it.",
        "ops", rates("pulpo_jobs_published_total", TYPE, "request_type"), "stack",
        width=12,
    ),
    Panel(
        "Paused request_types", "How many are paused now, and jobs put back for it a second.",
        "short",
        (
            Query(
                f"count(pulpo_request_type_paused_until_timestamp_seconds{{{JOB}}} > 0) "
                "or vector(0)",
                "paused",
            ),
            Query(f"sum({rate('pulpo_jobs_put_back_total', TYPE)})", "put back"),
        ),
        width=12,
    ),
)  # fmt: skip
HANDLED: Final = (
    Panel(
        "Attempts by outcome", "success and expired end a job well or late, retried puts it back.",
        "ops", rates("pulpo_jobs_finished_total", TYPE, "outcome"), "stack",
    ),
    Panel(
        "Time in the handler", "Of all attempts, however they ended.", "s",
        quantiles("pulpo_job_duration_seconds", TYPE),
    ),
    Panel(
        "Time in the handler, by bucket", "Two job types in one queue show as two bands.", "s",
        (Query(by("le", f"increase(pulpo_job_duration_seconds_bucket{{{TYPE}}}{WINDOW})"),
               "{{le}}"),),
        "heatmap",
    ),
    Panel(
        "In flight", "Jobs inside a handler.", "short",
        (Query(f"sum by (queue) (pulpo_jobs_in_flight{{{QUEUE}}})", "{{queue}}"),),
    ),
    Panel(
        "Longest running", "A line that climbs and climbs is a job that hangs.", "s",
        (Query(
            f"max by (queue) ({age('pulpo_job_longest_running_since_timestamp_seconds', QUEUE)})",
            "{{queue}}",
        ),),
    ),
    Panel(
        "Mean time in the handler, by request_type", "In the time shown.", "s",
        (Query(
            f"sum by (request_type) (increase(pulpo_job_duration_seconds_sum{{{TYPE}}}[$__range]))"
            " / (sum by (request_type) "
            f"(increase(pulpo_job_duration_seconds_count{{{TYPE}}}[$__range])) > 0)",
            "{{request_type}}",
        ),),
        "table",
    ),
)  # fmt: skip
SETTLED: Final = (
    Panel(
        "Retries by reason", "Jobs put back.", "ops",
        rates("pulpo_job_retries_total", TYPE, "reason"), "stack",
    ),
    Panel(
        "Buries by reason", "Jobs set aside: pulpo-pool list --state buried.", "ops",
        rates("pulpo_job_buries_total", TYPE, "reason"), "stack",
    ),
    Panel(
        "Attempts that did not succeed, by request_type", "Retried, buried and expired.", "ops",
        (Query(
            by("request_type", rate("pulpo_jobs_finished_total", f'{TYPE}, outcome!="success"')),
            "{{request_type}}",
        ),),
    ),
    Panel(
        "Settled too late", "Their lease had ended, so these jobs may run twice.", "ops",
        (Query(by("queue", rate("pulpo_job_settlements_lost_total", QUEUE)), "{{queue}}"),),
    ),
    Panel(
        "Queue up", "1 while it can be reached.", "short",
        (Query(f"min by (instance) (pulpo_queue_up{{{JOB}}})", "{{instance}}"),),
    ),
    Panel(
        "Queue errors and reconnects", "Calls that failed, and connections that came back.", "ops",
        (
            *rates("pulpo_queue_errors_total", JOB, "kind"),
            Query(f"sum({rate('pulpo_queue_reconnects_total', JOB)})", "reconnected"),
        ),
    ),
)  # fmt: skip
WORKERS: Final = (
    Panel(
        "Workers by state", "Of those the pool shall have.", "short",
        (
            Query(f"sum by (state) (pulpo_workers{{{JOB}}})", "{{state}}"),
        ), "stack",
    ),
    Panel(
        "Deaths by reason", "Workers that were not told to leave.", "ops",
        rates("pulpo_worker_exits_total", f"{JOB}, {FAILED}", "reason"), "stack",
    ),
    Panel(
        "Recycled by reason", "Workers that were replaced as planned.", "ops",
        rates("pulpo_worker_recycles_total", JOB, "reason"), "stack",
    ),
    Panel(
        "Forks by reason", "replace follows a death, recycle a planned end.", "ops",
        rates("pulpo_worker_forks_total", JOB, "reason"), "stack",
    ),
    Panel(
        "Busy, by slot", "The part of the time spent in handlers.", "percentunit",
        (Query(rate("pulpo_worker_busy_seconds_total", JOB), "{{instance}} {{worker}}"),),
    ),
    Panel(
        "CPU, by slot", "1 is a whole processor; what handlers start is in it.", "percentunit",
        (Query(rate("pulpo_worker_cpu_seconds_total", JOB), "{{instance}} {{worker}}"),),
    ),
    Panel(
        "Memory, by slot", "PSS: with its part of what is shared, so the lines add up.", "bytes",
        (Query(f"pulpo_worker_proportional_memory_bytes{{{JOB}}}", "{{instance}} {{worker}}"),),
        "stack",
    ),
    Panel(
        "Memory of all workers", "Resident counts shared pages in each, unique in none.", "bytes",
        (
            Query(f"sum(pulpo_worker_resident_memory_bytes{{{JOB}}})", "resident (RSS)"),
            Query(f"sum(pulpo_worker_proportional_memory_bytes{{{JOB}}})", "proportional (PSS)"),
            Query(f"sum(pulpo_worker_unique_memory_bytes{{{JOB}}})", "unique (USS)"),
        ),
    ),
    Panel(
        "Age and silence", "Of the oldest worker, and since the last heartbeat of the most silent.",
        "s",
        (
            Query(f"max(time() - pulpo_worker_start_time_seconds{{{JOB}}})", "oldest"),
            Query(
                f"max(time() - pulpo_worker_last_heartbeat_timestamp_seconds{{{JOB}}})",
                "most silent",
            ),
        ),
    ),
)  # fmt: skip
MASTER: Final = (
    Panel(
        "Ready, crash-looping, last reload", "1 is yes; of the reload, that it succeeded.", "short",
        (
            Query(f"min(pulpo_pool_ready{{{JOB}}})", "ready"),
            Query(f"max(pulpo_pool_crash_looping{{{JOB}}})", "crash-looping"),
            Query(f"min(pulpo_config_last_reload_successful{{{JOB}}})", "last reload"),
        ),
    ),
    Panel(
        "Master", "How late its loop came round at worst, and how long ago it did last.", "s",
        (
            Query(f"max(pulpo_master_loop_lag_seconds{{{JOB}}})", "lag"),
            Query(
                f"max(time() - pulpo_master_heartbeat_timestamp_seconds{{{JOB}}})", "last round"
            ),
        ),
    ),
    Panel(
        "Log lines by level", "Of all processes of the pool.", "ops",
        rates("pulpo_log_messages_total", JOB, "level"), "stack",
    ),
    Panel(
        "Reloads", "Of app and settings.", "ops",
        rates("pulpo_config_reloads_total", JOB, "result"),
    ),
    Panel(
        "What runs", "Version, Python and kind of queue, and the generation of the app.", "short",
        (
            Query(
                f"sum by (instance, version, python, broker) (pulpo_build_info{{{JOB}}})",
                "{{instance}}: {{version}}, Python {{python}}, {{broker}}",
            ),
            Query(f"max by (instance) (pulpo_pool_generation{{{JOB}}})", "{{instance}} generation"),
        ),
        "table",
    ),
    Panel(
        "Metrics that are not exported", "Series over the limit, files that were damaged.", "short",
        (
            Query(f"sum(pulpo_metrics_series_refused_total{{{JOB}}})", "series refused"),
            Query(f"sum(pulpo_metrics_files_quarantined_total{{{JOB}}})", "files put aside"),
            Query(f"sum(pulpo_metrics_files_skipped_total{{{JOB}}})", "files skipped"),
        ),
    ),
)  # fmt: skip

ROWS: Final = (
    ("At a glance", AT_A_GLANCE),
    ("Waiting", WAITING),
    ("Handled", HANDLED),
    ("Settled", SETTLED),
    ("Workers", WORKERS),
    ("Master", MASTER),
)
VARIABLES: Final = (
    ("job", "Pool", "label_values(pulpo_build_info, job)"),
    ("queue", "Queue", 'label_values(pulpo_queue_jobs{job=~"$job"}, queue)'),
    (
        "request_type",
        "Request type",
        'label_values(pulpo_jobs_finished_total{job=~"$job", queue=~"$queue"}, request_type)',
    ),
)
RELOADED: Final = f'pulpo_config_reloads_total{{{JOB}, result="success"}}'
RELOADS: Final = f"sum by (instance) (increase({RELOADED}{WINDOW})) > 0"
