"""A real Prometheus scrapes a real pool under load, with failures, kills, recycling and a reload.

One run, of which all tests look at the numbers.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from functools import partial

import pytest
import yaml
from pool import PoolProcess, eventually, publish
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from promql import CONFIG, RULES, filled, panel_queries, rules
from servers import Prometheus, needed

from grafana.panels import RELOADS
from pulpo_pool.metrics.catalogue import CATALOGUE, TYPE_PAUSES, Kind
from pulpo_pool.queues.adapter import QueueStats

KILLS = 50
NOTES = 400
WRONG = 150
FLAKY = 20
EXPIRED = 5
LATER = 7
DOOMED = 1
ORDERS = 10
ORDERED = 3 * ORDERS  # notes, that handlers publish
PUBLISHED = KILLS + NOTES + WRONG + FLAKY + EXPIRED + LATER + DOOMED + ORDERS + ORDERED

APP = """
import os, time
from prometheus_client import Counter, Gauge, Info
from tenacity import wait_fixed
from pulpo_pool import Fatal, JobContext, Pulpo

pulpo = Pulpo()
SALES = Counter("shop_sales", "Sales.", ["shop"])
CARTS = Gauge("shop_carts", "Carts.", multiprocess_mode="livesum")
BUILD = Info("shop_build", "What the shop is.")


def append(file, *words):
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, " ".join(map(str, words)).encode() + b"\\n")
    os.close(fd)


@pulpo.job()
def note(n):
    CARTS.inc()
    time.sleep(0.01 if n % 10 else 0.1)
    SALES.labels("corner").inc()
    append("done", n)
    CARTS.dec()


@pulpo.job()
def order(n):
    note.publish(n)
    pulpo.publish_many([note.message(n), note.message(n)])
    append("done", n)


@pulpo.job()
def victim(context: JobContext, n):
    append("attempts", "victim", n)
    if context.attempt == 1:
        append("held", n, os.getpid())
        time.sleep(600)
    append("done", n)


@pulpo.job()
def wrong(n):
    append("buried", n)
    raise Fatal("it will never work")


@pulpo.job(wait=wait_fixed(0.05))
def flaky(context: JobContext, n):
    if context.attempt == 1:
        append("retried", n)
        raise ValueError("not yet")
    append("done", n)


@pulpo.job()
def doomed(n):
    append("crashed", n)
    os._exit(7)
"""


@dataclass
class Run:
    """What the run left behind."""

    pool: PoolProcess
    prometheus: Prometheus
    began: float
    stats: QueueStats = field(default_factory=QueueStats)
    exposed: str = ""

    def sum(self, name, **labels):
        return self.pool.counted(name, **labels)

    def journal(self, file):
        return len(self.pool.lines(file))

    def over_the_run(self, expression):
        """Return the numbers that an expression had at any moment of the run."""
        found = self.prometheus.query(expression, start=self.began, end=time.time(), step="0.5")
        values = [float(value) for series in found for _, value in series["values"]]
        return [value for value in values if math.isfinite(value)]


def scraping(address):
    """Return the configuration that we ship, for this pool and in a hurry."""
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [address]}]
    return config


def publish_all(pool):
    pool.publish("later", [{"n": n} for n in range(LATER)], delay=3600)
    pool.publish("doomed", [{"n": 0}])
    pool.publish("flaky", [{"n": n} for n in range(1_000, 1_000 + FLAKY)])
    pool.publish("order", [{"n": n} for n in range(3_001, 3_001 + ORDERS)])
    pool.publish("wrong", [{"n": n} for n in range(WRONG)])
    pool.publish("victim", [{"n": n} for n in range(2_000, 2_000 + KILLS)])
    pool.publish("note", [{"n": n} for n in range(NOTES)], priority=100_000)


def kill_each_victims_worker(pool):
    """Each in the middle of its handler, so that the journal knows what was cut off."""
    killed = 0
    while killed < KILLS:
        held = eventually(partial(held_after, pool, killed), what="a worker to kill")
        for _, pid in held:
            os.kill(int(pid), signal.SIGKILL)
        killed += len(held)


def held_after(pool, killed):
    return pool.lines("held")[killed:]


def finish(run):
    pool = run.pool
    eventually(
        lambda: pool.stats() == QueueStats(delayed=LATER, buried=WRONG + DOOMED),
        what="all but the delayed jobs are settled",
    )
    pool.ask("reload")
    eventually(
        lambda: pool.status()["master"]["reload"]["phase"] == "done", what="a new generation"
    )
    pool.publish("note", [{"n": NOTES}])
    eventually(lambda: pool.stats().ready + pool.stats().reserved == 0, what="one more is done")
    run.stats = pool.stats()
    done = eventually(lambda: run.sum("pulpo_jobs_finished_total"), what="the counts")
    eventually(
        lambda: seen_by(run.prometheus, "sum(pulpo_jobs_finished_total)") >= done,
        what="Prometheus has seen the last attempt",
    )
    eventually(
        lambda: seen_by(run.prometheus, "sum(pulpo_queue_jobs)") == LATER + WRONG + DOOMED,
        what="the keeper has counted the queue",
    )
    run.exposed = pool.http("/metrics")[1]


def seen_by(prometheus, expression):
    found = prometheus.query(expression)
    return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    needed("promtool")
    publish(folder, "note", [{"n": -n} for n in range(1, EXPIRED + 1)], expiration=0.001)
    with PoolProcess(folder, "-w", "4", "--max-jobs", "100", app=APP) as pool:
        pool.ready()
        address = pool.status()["master"]["http"]
        with Prometheus(folder / "prometheus", scraping(address)) as prometheus:
            eventually(lambda: seen_by(prometheus, "sum(up)"), what="the first scrape")
            run = Run(pool, prometheus, time.time())
            publish_all(pool)
            kill_each_victims_worker(pool)
            finish(run)
            yield run


def test_the_numbers_of_the_run_agree_with_the_handlers_journal(run):
    """After fifty kills: what was published is done, buried, expired or still waits."""
    outcomes = {
        outcome: run.sum("pulpo_jobs_finished_total", outcome=outcome)
        for outcome in ("success", "retried", "buried", "expired")
    }
    waiting = run.stats.ready + run.stats.delayed + run.stats.reserved

    assert run.journal("held") == KILLS
    well = KILLS + NOTES + FLAKY + ORDERS + ORDERED + 1
    assert outcomes["success"] == run.journal("done") == well
    assert outcomes["buried"] == run.journal("buried") + DOOMED == run.stats.buried
    assert outcomes["expired"] == EXPIRED
    assert outcomes["retried"] == run.journal("retried") + KILLS + run.journal("crashed") - DOOMED
    assert sum(outcomes.values()) - outcomes["retried"] + waiting == PUBLISHED + 1
    assert run.sum("pulpo_job_retries_total", reason="crash") == KILLS + run.journal("crashed") - 1
    assert run.sum("pulpo_job_retries_total", reason="exception") == FLAKY
    assert run.sum("pulpo_job_buries_total", reason="fatal") == WRONG
    assert run.sum("pulpo_job_buries_total", reason="crashed") == DOOMED


def test_what_handlers_publish_is_counted_and_what_the_test_does_is_not(run):
    assert run.sum("pulpo_jobs_published_total", queue="default", request_type="note") == ORDERED
    assert run.sum("pulpo_jobs_published_total") == ORDERED


def test_what_became_of_workers_is_told_too(run):
    exits = {
        reason: run.sum("pulpo_worker_exits_total", reason=reason)
        for reason in ("signal", "error", "max_jobs", "reload")
    }
    recycled = run.sum("pulpo_worker_recycles_total")

    assert exits["signal"] == KILLS
    assert exits["error"] == run.journal("crashed")
    assert exits["reload"] >= 1
    assert exits["max_jobs"] >= 1
    assert recycled == exits["reload"] + exits["max_jobs"]
    assert run.sum("pulpo_worker_forks_total") == run.sum("pulpo_worker_exits_total") + 4
    assert run.sum("pulpo_log_messages_total", level="error") >= KILLS
    assert run.sum("pulpo_config_last_reload_successful") == 1


def test_busy_time_is_that_of_the_handlers(run):
    """Also of those that were killed in them, of whose time the histogram knows nothing."""
    busy = run.sum("pulpo_worker_busy_seconds_total")

    assert busy >= run.sum("pulpo_job_duration_seconds_sum")
    assert run.sum("pulpo_worker_cpu_seconds_total") > 0


def test_what_handlers_count_goes_on_over_recycling_kills_and_a_reload(run):
    assert run.sum("shop_sales_total", shop="corner") == NOTES + ORDERED + 1
    assert run.sum("shop_carts") == 0


def test_what_cannot_be_exported_was_named_at_the_start(run):
    assert run.pool.log.count("the metric shop_build is not exported: an Info") == 2  # generations
    assert "shop_build" not in run.exposed


def test_prometheus_scraped_without_an_error(run):
    """As OpenMetrics, which it asks for first. On a slow machine a scrape may be late."""
    eventually(
        lambda: [
            target
            for target in run.prometheus.get("targets")["activeTargets"]
            if (target["health"], target["lastError"]) == ("up", "")
        ],
        what="a scrape in time",
    )

    assert (run.prometheus.folder / "log").read_text() == ""


def test_no_counter_ever_went_back(run):
    counters = [
        name
        for spec in CATALOGUE
        if spec.kind is not Kind.GAUGE
        for name in (*spec.series, "shop_sales_total")
    ]

    fallen = [name for name in counters if run.prometheus.query(f"resets({name}[10m]) > 0")]
    unseen = [name for name in counters if not run.prometheus.query(name)]
    assert fallen == []
    assert set(unseen) == {TYPE_PAUSES.name}  # nothing was paused


def test_every_panel_shows_something(run):
    empty = [
        (title, expression)
        for title, expression, panel in panel_queries(window="10s", scope=".+")
        if not run.over_the_run(expression)
    ]

    assert empty == []
    assert max(run.over_the_run(filled(RELOADS, "10s", ".+"))) >= 1


def test_every_rule_is_evaluated_and_those_that_should_see_the_failures(run):
    groups = run.prometheus.get("rules")["groups"]
    sick = [
        (rule["name"], rule.get("lastError"))
        for group in groups
        for rule in group["rules"]
        if rule["health"] != "ok"
    ]
    without = [
        rule["record"]
        for rule in rules()
        if "record" in rule and not run.over_the_run(rule["record"])
    ]
    firing = {
        rule["alert"] for rule in rules() if "alert" in rule and run.over_the_run(rule["expr"])
    }

    assert sick == []
    assert without == []
    assert firing >= {
        "PulpoErrorBudgetBurnsFast",
        "PulpoErrorBudgetBurnsSlowly",
        "PulpoBuriedGrowing",
        "PulpoPoolCrashLooping",
    }
    assert not firing & {"PulpoQueueDown", "PulpoConfigReloadFailed"}


def test_promtool_finds_no_fault_with_the_names(run):
    ours = re.sub(r"^(# \w+ )?shop_.*\n", "", run.exposed, flags=re.MULTILINE)
    done = subprocess.run(
        [needed("promtool"), "check", "metrics"],
        input=ours, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_shows_what_a_scrape_gets(run):
    shown = run.pool.command("metrics")

    assert shown.returncode == 0
    assert {line.split()[2] for line in shown.stdout.splitlines() if line.startswith("# HELP")} == {
        line.split()[2] for line in run.exposed.splitlines() if line.startswith("# HELP")
    }


def test_openmetrics_is_what_its_own_parser_reads(run):
    address = run.pool.status()["master"]["http"]
    request = urllib.request.Request(
        f"http://{address}/metrics", headers={"Accept": "application/openmetrics-text"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))

    assert {family.name for family in families} >= {"pulpo_jobs_finished", "shop_sales"}
