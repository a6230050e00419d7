"""The catalogue of metrics, and the counters of jobs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, Enum, Gauge, Info, PlatformCollector, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from seats import make_scoreboard

from pulpo_pool.cli.main import cli
from pulpo_pool.master.lag import REMEMBERED, LoopLag
from pulpo_pool.metrics.catalogue import CATALOGUE, OTHER, UNKNOWN, Kind
from pulpo_pool.metrics.jobs import JobMetrics
from pulpo_pool.metrics.slot_values import enter_scratch
from pulpo_pool.metrics.unexported import warn_of_unexported
from pulpo_pool.outcomes import JobOutcome, RetryReason
from pulpo_pool.queues.adapter import BuryReason

ROOT = Path(__file__).parents[2]
UNITS = ("_seconds", "_info", "_total", "_jobs", "_workers", "_in_flight", "_wanted", "_state",
         "_bytes", "_up", "_ready", "_looping", "_successful", "_generation")  # fmt: skip


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry, monkeypatch):
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # back to it when all is done
    enter_scratch()
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


def test_the_reference_page_is_what_the_catalogue_says():
    """After a change: pulpo-pool metrics --catalog --format markdown > docs/metrics.md"""
    done = CliRunner().invoke(cli, ["metrics", "--catalog", "--format", "markdown"])

    assert done.stdout == (ROOT / "docs" / "metrics.md").read_text()


@pytest.mark.parametrize("form", ["table", "json"])
def test_the_catalogue_can_be_listed(form):
    done = CliRunner().invoke(cli, ["metrics", "--catalog", "--format", form])

    assert done.exit_code == 0
    assert all(spec.name in done.stdout and spec.help in done.stdout for spec in CATALOGUE)


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


def test_what_is_published_is_counted_by_queue_and_type(metrics, registry):
    metrics.prepare(["default"], ["send_email"], published_to=["default", "mail"])
    metrics.jobs_published("default", "send_email", 1)
    metrics.jobs_published("mail", "send_email", 2)
    metrics.jobs_published("mail", "send_email", 3)

    assert published(registry) == {("default", "send_email"): 1, ("mail", "send_email"): 5}


def test_names_that_only_a_publisher_knows_are_counted_together(metrics, registry):
    """A queue for each customer would be a series for each, in every life of every slot."""
    for number in range(100):
        metrics.jobs_published(f"customer_{number}", "send_email", 1)
        metrics.jobs_published("default", f"guess_{number}", 1)
        metrics.jobs_published(f"customer_{number}", f"guess_{number}", 1)

    assert published(registry) == {
        (OTHER, "send_email"): 100,
        ("default", UNKNOWN): 100,
        (OTHER, UNKNOWN): 100,
    }


def test_new_names_hold_for_what_was_counted_before_too(metrics, registry):
    metrics.jobs_published("default", "send_email", 1)
    metrics.prepare(["mail"], ["send_email"])
    metrics.jobs_published("default", "send_email", 1)

    assert published(registry) == {("default", "send_email"): 1, (OTHER, "send_email"): 1}


def test_known_series_start_at_zero(metrics, registry):
    metrics.export_zeros()

    labels = {"queue": "default", "request_type": "send_email"}
    for outcome in ("success", "retried", "buried", "expired"):
        assert finished(registry, "send_email", outcome) == 0
    for reason in RetryReason:
        assert value(registry, "pulpo_job_retries_total", **labels, reason=reason) == 0
    for reason in BuryReason:
        assert value(registry, "pulpo_job_buries_total", **labels, reason=reason) == 0
    assert published(registry) == {("default", "send_email"): 0, ("default", UNKNOWN): 0}
    assert value(registry, "pulpo_queue_reconnects_total") == 0


def test_what_cannot_be_added_up_over_processes_is_named(registry, caplog):
    Info("shop_build", "Text.", registry=registry)
    Enum("shop_door", "Text.", states=["open", "shut"], registry=registry)
    Gauge("shop_carts", "A number.", registry=registry)
    PlatformCollector(registry)

    class Stock(Collector):
        def collect(self):
            yield GaugeMetricFamily("shop_stock", "Asked.", value=1)

    registry.register(Stock())
    warn_of_unexported(registry)

    said = sorted(record.getMessage().partition(";")[0] for record in caplog.records)
    assert [line.partition(": ")[0] for line in said] == [
        "the metric of Stock is not exported",
        "the metric shop_build is not exported",
        "the metric shop_door is not exported",
    ]
    assert "a custom collector" in said[0]
    assert "an Info" in said[1]
    assert "an Enum" in said[2]


def test_a_late_turn_of_the_loop_is_remembered_for_a_while():
    scoreboard = make_scoreboard()
    lag = LoopLag(scoreboard)
    lag.look(100.0, 2.0)
    lag.look(101.0, 2.0)
    early = scoreboard.header.loop_lag
    lag.look(103.5, 2.0)
    late = scoreboard.header.loop_lag
    shown = []
    for now in (105.5, 105.5 + REMEMBERED, 105.5 + 2 * REMEMBERED):
        lag.look(now, REMEMBERED)
        shown.append(scoreboard.header.loop_lag)

    assert (early, late) == (0, 0.5)
    assert shown[0] == 0.5
    assert shown[-1] == 0


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


def published(registry):
    return {
        (sample.labels["queue"], sample.labels["request_type"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "pulpo_jobs_published_total"
    }


def finished(registry, request_type, outcome):
    return value(
        registry, "pulpo_jobs_finished_total",
        queue="default", request_type=request_type, outcome=outcome,
    )  # fmt: skip
