"""The keeper's judgement, and what it exports of a queue."""

from __future__ import annotations

import signal

import pytest
from prometheus_client import CollectorRegistry
from seats import make_scoreboard

from pulpo_pool.crashes import Coroner, crash_delay
from pulpo_pool.keeper.housekeeping import MOST_QUEUES, QueueGauges, judge_by
from pulpo_pool.keeper.process import StatsPace
from pulpo_pool.queues.adapter import Fate, Owner, QueueStats
from pulpo_pool.scoreboard import Death
from pulpo_pool.states import ExitReason

KILLED = int(signal.SIGKILL)
EXITED_1 = 1 << 8


@pytest.fixture
def scoreboard():
    return make_scoreboard()


def judged(scoreboard, *, pool="pool", instance="now", serial=7):
    return judge_by(scoreboard, Coroner("pool", "now"))(Owner(pool, instance, 3, serial))


def die(scoreboard, reason, wait_status, serial=7):
    scoreboard.record_death(Death(serial, reason, wait_status, 1.0, 84_000_000, 0.3))


def test_another_pools_worker_is_not_ours_to_judge(scoreboard):
    die(scoreboard, ExitReason.SIGNAL, KILLED)

    assert judged(scoreboard, pool="other").fate is Fate.ALIVE


def test_an_earlier_start_of_this_pool_is_dead(scoreboard):
    assert judged(scoreboard, instance="before").fate is Fate.GONE


def test_a_life_that_was_not_reaped_is_alive(scoreboard):
    assert judged(scoreboard).fate is Fate.ALIVE


@pytest.mark.parametrize(
    ("reason", "wait_status", "fate"),
    [
        (ExitReason.SIGNAL, KILLED, Fate.CRASHED),
        (ExitReason.ERROR, EXITED_1, Fate.CRASHED),
        (ExitReason.CUT_OFF, KILLED, Fate.CUT_OFF),
        (ExitReason.IDLE, 0, Fate.GONE),
        (ExitReason.SHUTDOWN, 0, Fate.GONE),
        (ExitReason.OPERATOR, KILLED, Fate.GONE),
    ],
)
def test_how_a_worker_ended_decides_what_its_job_is_charged(scoreboard, reason, wait_status, fate):
    die(scoreboard, reason, wait_status)

    assert judged(scoreboard).fate is fate


def test_a_death_the_ledger_forgot_costs_no_crash(scoreboard):
    ledger_size = 4_096
    die(scoreboard, ExitReason.IDLE, 0, serial=7 + ledger_size)

    assert judged(scoreboard).fate is Fate.GONE


def test_the_evidence_names_the_signal_and_what_the_worker_used(scoreboard):
    die(scoreboard, ExitReason.SIGNAL, KILLED)

    evidence = judged(scoreboard).evidence
    assert "worker 3" in evidence
    assert "signal 9 (SIGKILL)" in evidence
    assert "84 MB" in evidence
    assert "CPU 0.3 s" in evidence


def test_the_evidence_names_a_signal_without_a_name(scoreboard):
    die(scoreboard, ExitReason.SIGNAL, signal.SIGRTMIN + 3)

    assert f"signal {signal.SIGRTMIN + 3}" in judged(scoreboard).evidence


def test_the_evidence_names_the_exit_status(scoreboard):
    die(scoreboard, ExitReason.ERROR, 7 << 8)

    assert "exit status 7" in judged(scoreboard).evidence


def test_the_wait_after_crashes_grows_and_is_bounded():
    assert max(crash_delay(2) for _ in range(200)) <= 2
    assert max(crash_delay(4) for _ in range(200)) > 2
    assert max(crash_delay(10_000) for _ in range(200)) <= 600
    assert min(crash_delay(2) for _ in range(200)) >= 0


def test_all_who_ask_of_one_crash_are_told_the_same_wait():
    """Else each worker that meets the job would draw anew whether it is too early."""
    asked = [crash_delay(9, of=("17", "pool/now/3/7")) for _ in range(3)]

    assert len(set(asked)) == 1
    assert crash_delay(9, of=("17", "pool/now/3/8")) not in asked


def test_the_verdict_has_the_evidence_in_fields_too(scoreboard):
    scoreboard.record_death(Death(7, ExitReason.OOM, KILLED, 5.0, 84_000_000, 0.3))
    setback = judged(scoreboard).setback

    assert (setback.at, setback.worker) == (5.0, "pool/now/3/7")
    assert (setback.signal, setback.exit_code, setback.out_of_memory) == (9, None, True)
    assert (setback.max_rss, setback.cpu) == (84_000_000, 0.3)


def test_an_exit_status_is_no_signal(scoreboard):
    die(scoreboard, ExitReason.ERROR, 7 << 8)
    setback = judged(scoreboard).setback

    assert (setback.signal, setback.exit_code, setback.out_of_memory) == (None, 7, False)


def test_a_queue_is_counted_no_oftener_than_it_can_bear():
    pace = StatsPace(burst=False)
    pace.counted(started=100.0, ended=100.5)

    assert pace.wait(100.5) == pytest.approx(25.0)
    assert pace.wait(125.5) == 0


def test_a_burst_looks_often():
    pace = StatsPace(burst=True)
    pace.counted(started=100.0, ended=100.001)

    assert pace.wait(100.001) == pytest.approx(0.1)


@pytest.fixture
def registry():
    return CollectorRegistry()


def jobs(registry, queue, state):
    return registry.get_sample_value("pulpo_queue_jobs", {"queue": queue, "state": state})


def test_the_pools_queues_are_exported_while_they_are_empty(registry):
    QueueGauges(["mail"], registry).show({}, {})

    assert [jobs(registry, "mail", s) for s in ("ready", "delayed", "reserved", "buried")] == [
        0
    ] * 4


def test_a_queue_that_vanished_falls_to_zero(registry):
    gauges = QueueGauges(["mail"], registry)
    gauges.show({"other": QueueStats(ready=3, buried=1)}, {"other": 1_700_000_000.5})
    before = jobs(registry, "other", "ready")
    oldest = oldest_ready(registry, "other")
    gauges.show({}, {})

    assert (before, oldest) == (3, 1_700_000_000.5)
    assert oldest_ready(registry, "other") == 0
    assert jobs(registry, "other", "ready") == 0
    assert jobs(registry, "other", "buried") == 0


def test_queues_beyond_the_limit_are_added_up(registry):
    gauges = QueueGauges(["mail"], registry)
    names = [f"q{number}" for number in range(MOST_QUEUES + 9)]
    gauges.show(
        dict.fromkeys(names, QueueStats(ready=1)), {name: 5.0 + int(name[1:]) for name in names}
    )

    named = {s.labels["queue"] for family in registry.collect() for s in family.samples}
    assert len(named) == MOST_QUEUES + 1
    assert jobs(registry, "_other", "ready") == 10
    assert oldest_ready(registry, "_other") == 5.0 + MOST_QUEUES - 1


def oldest_ready(registry, queue):
    return registry.get_sample_value("pulpo_queue_oldest_ready_timestamp_seconds", {"queue": queue})
