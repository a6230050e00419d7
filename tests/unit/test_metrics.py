"""The catalogue of metrics, and the counters of jobs."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry

from pulpo_pool.metrics.catalogue import CATALOGUE, UNKNOWN, JobMetrics, Kind
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import BuryReason

UNITS = ("_seconds", "_info", "_total", "_jobs", "_workers", "_in_flight", "_wanted", "_state",
         "_ready", "_looping", "_successful", "_generation")  # fmt: skip


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    metrics = JobMetrics(registry)
    metrics.prepare(["default"], ["send_email"])
    return metrics


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_every_metric_keeps_to_the_conventions(spec):
    assert re.fullmatch(r"pulpo_[a-z_]+", spec.name)
    assert spec.name.endswith(UNITS)
    assert spec.name.endswith("_total") == (spec.kind is Kind.COUNTER)
    assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)
    assert spec.help.endswith(".")
    assert set(spec.values) <= set(spec.labels)
    assert not set(spec.labels) & {"id", "job_id", "pid", "error"}


def test_no_two_metrics_share_a_name():
    names = [spec.name for spec in CATALOGUE]

    assert len(set(names)) == len(names)


def test_a_finished_job_is_counted_and_timed(metrics, registry):
    metrics.job_finished("default", "send_email", JobOutcome.SUCCESS, 0.2)
    metrics.job_finished("default", "send_email", JobOutcome.SUCCESS, 0.3)

    labels = {"queue": "default", "request_type": "send_email"}
    assert finished(registry, "send_email", "success") == 2
    assert registry.get_sample_value("pulpo_job_duration_seconds_sum", labels) == 0.5


def test_names_that_no_handler_has_are_counted_together(metrics, registry):
    for number in range(100):
        metrics.job_finished("default", f"guess_{number}", JobOutcome.RETRIED, 0)
    metrics.job_finished("default", "", JobOutcome.RETRIED, 0)
    metrics.job_retried("default", "guess", RetryReason.UNKNOWN_TYPE)
    metrics.job_buried("default", "guess", BuryReason.UNKNOWN_TYPE)

    exported = {
        sample.labels["request_type"]
        for family in registry.collect()
        for sample in family.samples
        if "request_type" in sample.labels
    }
    assert exported == {UNKNOWN}
    assert finished(registry, UNKNOWN, "retried") == 101


def test_known_series_start_at_zero(metrics, registry):
    metrics.export_zeros()

    labels = {"queue": "default", "request_type": "send_email"}
    for outcome in ("success", "retried", "buried", "expired"):
        assert finished(registry, "send_email", outcome) == 0
    for reason in RetryReason:
        assert value(registry, "pulpo_job_retries_total", **labels, reason=reason) == 0
    for reason in BuryReason:
        assert value(registry, "pulpo_job_buries_total", **labels, reason=reason) == 0
    assert value(registry, "pulpo_queue_reconnects_total") == 0


def test_a_crash_is_an_attempt_that_ended(metrics, registry):
    metrics.job_crashed("default", "send_email", JobOutcome.RETRIED)
    metrics.job_crashed("default", "send_email", JobOutcome.BURIED)

    labels = {"queue": "default", "request_type": "send_email"}
    assert finished(registry, "send_email", "retried") == 1
    assert finished(registry, "send_email", "buried") == 1
    assert value(registry, "pulpo_job_retries_total", **labels, reason="crash") == 1
    assert value(registry, "pulpo_job_buries_total", **labels, reason="crashed") == 1


def value(registry, name, **labels):
    return registry.get_sample_value(name, labels)


def finished(registry, request_type, outcome):
    return value(
        registry, "pulpo_jobs_finished_total",
        queue="default", request_type=request_type, outcome=outcome,
    )  # fmt: skip
