"""Slot files: counts go on across the lives in a slot, whatever becomes of those lives."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector
from seats import until, wait_for_end

from pulpo_pool.metrics import slot_files, slot_values
from pulpo_pool.metrics.jobs import JobMetrics
from pulpo_pool.metrics.slot_files import SlotFile, prepare_metrics_directory
from pulpo_pool.metrics.slot_values import enter_multiprocess, enter_scratch, tell_losses_to
from pulpo_pool.outcomes import JobOutcome

LIVES = 40
JOBS = 25


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "metrics"
    prepare_metrics_directory(directory)
    return directory


def in_a_child(work, *, ended=0):
    """Run `work` in a forked process and wait for its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert wait_for_end(pid) == ended


def total(directory, name):
    files = [str(path) for path in directory.glob("*.db")]
    return sum(
        sample.value
        for family in MultiProcessCollector.merge(files)
        for sample in family.samples
        if sample.name == name
    )


def do_jobs(directory, identity, *, killed=False):
    enter_multiprocess(directory, identity)
    metrics = JobMetrics(CollectorRegistry())
    metrics.prepare(["default"], ["a"])
    for _ in range(JOBS):
        metrics.job_finished("default", "a", JobOutcome.SUCCESS, 0.01)
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_slot_counts_on_over_recycled_and_killed_lives(directory):
    for life in range(LIVES):
        killed = life % 3 == 0
        in_a_child(
            lambda killed=killed, life=life: do_jobs(directory, str(life % 2), killed=killed),
            ended=-signal.SIGKILL if killed else 0,
        )

    assert total(directory, "pulpo_jobs_finished_total") == LIVES * JOBS
    assert total(directory, "pulpo_job_duration_seconds_count") == LIVES * JOBS
    assert {path.name for path in directory.iterdir()} == {
        "counter_0.db", "counter_1.db", "histogram_0.db", "histogram_1.db",
    }  # fmt: skip


def test_metrics_of_handlers_are_kept_too(directory):
    def handle():
        enter_multiprocess(directory, "0")
        registry = CollectorRegistry()
        Counter("shop_sales", "Sales.", ["shop"], registry=registry).labels("x").inc(2)
        Gauge("shop_carts", "Carts.", registry=registry).set(3)
        Histogram("shop_seconds", "Time.", registry=registry).observe(1)

    in_a_child(handle)
    in_a_child(handle)

    assert total(directory, "shop_sales_total") == 4
    assert total(directory, "shop_carts") == 3
    assert total(directory, "shop_seconds_count") == 2


def test_a_forked_child_of_a_handler_lets_go_of_the_slots_files(directory):
    def handle():
        enter_multiprocess(directory, "0")
        sales = Counter("shop_sales", "Sales.", registry=CollectorRegistry())
        sales.inc()
        in_a_child(lambda: sales.inc(1_000))
        in_a_child(lambda: do_jobs_here(sales))
        sales.inc()

    def do_jobs_here(sales):
        Counter("shop_visits", "Visits.", registry=CollectorRegistry()).inc()
        in_a_child(lambda: sales.inc(1_000))

    in_a_child(handle)

    assert total(directory, "shop_sales_total") == 2
    assert total(directory, "shop_visits_total") == 0
    assert len(list(directory.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that is the point
def test_a_fork_while_a_thread_counts_does_not_lock_the_child_up(directory):
    def handle():
        enter_multiprocess(directory, "0")
        sales = Counter("shop_sales", "Sales.", registry=CollectorRegistry())
        over = threading.Event()

        def sell():
            while not over.is_set():
                sales.inc()

        thread = threading.Thread(target=sell)
        thread.start()
        for _ in range(50):
            in_a_child(sales.inc)
        over.set()
        thread.join()

    in_a_child(handle)

    assert total(directory, "shop_sales_total") > 0


def test_threads_lose_no_count(directory):
    def handle():
        enter_multiprocess(directory, "0")
        sales = Counter("shop_sales", "Sales.", registry=CollectorRegistry())
        threads = [
            threading.Thread(target=lambda: [sales.inc() for _ in range(2_000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_a_child(handle)

    assert total(directory, "shop_sales_total") == 8_000


def test_a_program_started_by_a_handler_leaves_no_files(directory):
    program = "from prometheus_client import Counter; Counter('shop_sales', 'Sales.').inc()"

    def handle():
        enter_multiprocess(directory, "0")
        subprocess.run([sys.executable, "-c", program], check=True)

    in_a_child(handle)

    assert list(directory.iterdir()) == []


def test_metrics_made_before_there_was_a_slot_move_into_it(directory):
    """A template imports the application once; its workers have the slots."""

    def template():
        enter_scratch()
        sales = Counter("shop_sales", "Sales.", registry=CollectorRegistry())
        for identity in ("0", "1", "0"):
            in_a_child(lambda identity=identity: work(sales, identity))

    def work(sales, identity):
        enter_multiprocess(directory, identity)
        sales.inc()

    in_a_child(template)

    assert total(directory, "shop_sales_total") == 3


def foreseen(directory):
    """Return metrics as a worker has them that was forked from a template."""
    enter_scratch()
    metrics = JobMetrics(CollectorRegistry())
    metrics.prepare(["default"], ["a", "b"])
    metrics.foresee()
    enter_multiprocess(directory, "1")
    metrics.prepare(["default"], ["a", "b"])
    return metrics


def series(directory):
    """Return the names and the types of jobs of the series in all files."""
    files = [str(path) for path in directory.glob("*.db")]
    return {
        (sample.name, sample.labels.get("request_type"), sample.labels.get("le"))
        for family in MultiProcessCollector.merge(files)
        for sample in family.samples
    }


def test_what_a_template_foresaw_is_in_no_file_before_it_counts(directory):
    """Then it comes whole: with some of its buckets a histogram would be wrong."""

    def work():
        metrics = foreseen(directory)
        metrics.job_finished("default", "a", JobOutcome.SUCCESS, 0.01)
        in_a_child(lambda: metrics.job_finished("default", "b", JobOutcome.SUCCESS, 0.01))

    in_a_child(work)
    of_a_template = series(directory)
    in_a_child(work)
    in_a_child(lambda: do_jobs(directory, "2"))

    assert series(directory) == of_a_template
    assert "b" not in {request_type for _, request_type, _ in of_a_template}
    assert total(directory, "pulpo_jobs_finished_total") == 2 + JOBS
    assert total(directory, "pulpo_job_duration_seconds_count") == 2 + JOBS


def test_one_slot_has_the_zeros_of_what_was_foreseen(directory):
    in_a_child(lambda: foreseen(directory).export_zeros())

    names = {(name, request_type) for name, request_type, _ in series(directory)}
    assert names >= {
        ("pulpo_jobs_finished_total", "b"),
        ("pulpo_job_duration_seconds_bucket", "b"),
        ("pulpo_job_wait_seconds_bucket", None),
    }


def test_many_series_make_a_file_grow_without_losing_any(directory):
    def handle():
        enter_multiprocess(directory, "0")
        sales = Counter("shop_sales", "Sales.", ["shop"], registry=CollectorRegistry())
        for number in range(2_000):
            sales.labels(f"shop {number}").inc()
        for number in range(2_000):
            sales.labels(f"shop {number}").inc()

    in_a_child(handle)

    assert total(directory, "shop_sales_total") == 4_000


def test_a_file_has_an_end(directory, monkeypatch):
    monkeypatch.setattr(slot_files, "LARGEST_SIZE", 64 * 1024)

    def handle():
        enter_multiprocess(directory, "0")
        sales = Counter("shop_sales", "Sales.", ["shop"], registry=CollectorRegistry())
        for number in range(5_000):
            sales.labels(f"shop {number}").inc()
        assert sales.labels("shop 4999")._value.get() == 1

    in_a_child(handle)

    assert (directory / "counter_0.db").stat().st_size == 64 * 1024
    assert 100 < total(directory, "shop_sales_total") < 5_000


def test_a_label_explosion_ends_at_a_limit_and_is_reported(directory, monkeypatch, caplog):
    """The pool's own series, those it had before, and whole histograms: nothing else is let in."""
    monkeypatch.setattr(slot_values, "MOST_SERIES", 100)

    def handle():
        enter_multiprocess(directory, "0")
        metrics = JobMetrics(CollectorRegistry())
        tell_losses_to(metrics.lost)
        metrics.prepare(["default"], ["a"])
        registry = CollectorRegistry()
        sales = Counter("shop_sales", "Sales.", ["shop"], registry=registry)
        seconds = Histogram("shop_seconds", "Time.", ["shop"], registry=registry)
        for number in range(95):
            sales.labels(f"shop {number}").inc()
        for number in range(3):
            seconds.labels(str(number)).observe(1)
        for number in range(300):
            sales.labels(f"shop {number}").inc()
        sales.labels("x" * 10_000).inc()
        metrics.export_zeros()
        metrics.job_finished("default", "a", JobOutcome.SUCCESS, 0.01)
        assert len(caplog.records) == 1
        assert "100 series of the app already" in caplog.text

    in_a_child(handle)
    in_a_child(lambda: do_jobs(directory, "0"))

    assert total(directory, "shop_sales_total") == 190
    assert total(directory, "shop_seconds_bucket") == 6  # le 1 to +Inf of the one that was let in
    assert total(directory, "pulpo_metrics_series_refused_total") == 2 * 16 + 205 + 1
    assert total(directory, "pulpo_jobs_finished_total") == JOBS + 1


def test_a_kill_in_the_middle_of_a_write_takes_no_count_back(directory):
    """What a scrape has seen once is never more than what one sees later."""

    def count_without_end():
        enter_multiprocess(directory, "0")
        sales = Counter("shop_sales", "Sales.", ["shop"], registry=CollectorRegistry())
        for number in itertools.count():
            sales.labels(str(number % 1_500)).inc()

    seen = [0.0]
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            count_without_end()
        until(lambda: total(directory, "shop_sales_total") > seen[-1] + 500)
        seen.append(total(directory, "shop_sales_total"))
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        seen.append(total(directory, "shop_sales_total"))

    assert seen == sorted(seen)
    assert not (directory / "quarantine").exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0\0",
        b"\xff" * 64,
        b"\x00\x10\x00\x00" + b"\0" * 60,
        b"\x40\0\0\0\0\0\0\0" + b"\xff\xff\xff\x7f" + b"\0" * 52,
        b"\x28\0\0\0\0\0\0\0" + b"\x04\0\0\0" + b"null" + b"\0" * 48,
    ],
)
def test_a_damaged_file_is_put_aside_before_a_life_uses_it(directory, damage):
    file = directory / "counter_0.db"
    file.write_bytes(damage)

    def handle():
        enter_multiprocess(directory, "0")
        tell_losses_to(JobMetrics(CollectorRegistry()).lost)

    in_a_child(handle)
    in_a_child(lambda: do_jobs(directory, "0"))

    quarantined = list((directory / "quarantine").iterdir())
    assert [path.read_bytes() for path in quarantined] == [damage]
    assert total(directory, "pulpo_metrics_files_quarantined_total") == 1
    assert total(directory, "pulpo_jobs_finished_total") == JOBS


def test_the_quarantine_has_an_end(directory):
    for number in range(30):
        (directory / f"counter_{number}.db").write_bytes(b"damaged")
        in_a_child(lambda number=number: do_jobs(directory, str(number)))

    assert len(list((directory / "quarantine").iterdir())) == slot_files.QUARANTINED


def test_a_directory_in_a_files_place_is_put_aside(directory):
    (directory / "counter_0.db").mkdir()
    in_a_child(lambda: do_jobs(directory, "0"))

    assert total(directory, "pulpo_jobs_finished_total") == JOBS


def test_a_file_appears_whole_or_not_at_all(directory):
    (directory / ".counter_0.db.new").write_bytes(b"left by a process that was killed")
    in_a_child(lambda: do_jobs(directory, "0"))

    assert not (directory / ".counter_0.db.new").exists()
    assert total(directory, "pulpo_jobs_finished_total") == JOBS


def test_every_byte_of_a_file_has_room_on_the_disk(directory):
    """A hole in a file on a full tmpfs kills its process by SIGBUS, in the middle of a job."""
    file = SlotFile(directory / "counter_0.db")
    for number in range(1_000):
        file.cell_of(f'["n", "n", {{}}, "{number}"]')
    file.close()

    status = (directory / "counter_0.db").stat()
    assert status.st_blocks * 512 >= status.st_size


def test_a_full_disk_costs_the_metrics_and_not_the_jobs(directory, monkeypatch):
    def full(_descriptor, _offset, _length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    in_a_child(lambda: do_jobs(directory, "0"))

    assert list(directory.iterdir()) == []


def test_a_missing_directory_costs_the_metrics_and_not_the_jobs(tmp_path):
    in_a_child(lambda: do_jobs(tmp_path / "nowhere", "0"))

    assert not (tmp_path / "nowhere").exists()


def test_live_gauges_speak_of_the_living_only(directory):
    def start():
        enter_multiprocess(directory, "0")

    def handle():
        start()
        gauge = Gauge("shop_carts", "Carts.", registry=CollectorRegistry(),
                      multiprocess_mode="livesum")  # fmt: skip
        gauge.inc()

    in_a_child(handle)
    before = total(directory, "shop_carts")
    in_a_child(start)

    assert before == 1
    assert total(directory, "shop_carts") == 0


@pytest.mark.parametrize("identity", ["", "a_b", "../0"])
def test_an_identity_that_would_break_file_names_is_refused(directory, identity):
    before = values.ValueClass

    with pytest.raises(ValueError, match="identity"):
        enter_multiprocess(directory, identity)
    assert values.ValueClass is before


def test_the_directory_is_private_and_begins_empty(tmp_path):
    directory = tmp_path / "run" / "metrics"
    prepare_metrics_directory(directory)
    (directory / "counter_0.db").write_bytes(b"old")
    (directory / "quarantine").mkdir()
    (directory / "quarantine" / "old").write_bytes(b"old")
    directory.chmod(0o755)
    prepare_metrics_directory(directory)

    assert list(directory.iterdir()) == []
    assert directory.stat().st_mode & 0o777 == 0o700


def test_the_master_prepares_it_without_prometheus_client():
    program = (
        "import sys; sys.modules['prometheus_client'] = None\nimport pulpo_pool.metrics.slot_files"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
