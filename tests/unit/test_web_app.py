"""The WSGI application, called without a server."""

from __future__ import annotations

import gzip
import json
import os
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from seats import WORKERS, make_scoreboard, show_worker

from pulpo_pool.circuits import Circuits
from pulpo_pool.clock import ManualClock
from pulpo_pool.memory import MemoryParts
from pulpo_pool.metrics.catalogue import CATALOGUE, Source
from pulpo_pool.metrics.slot_files import SlotFile
from pulpo_pool.scoreboard import as_text, writing
from pulpo_pool.settings import MAX_WORKERS
from pulpo_pool.states import Activity, ExitReason, ForkReason, PoolState, SlotState
from pulpo_pool.web import slots
from pulpo_pool.web.app import build_app, only_local_names
from pulpo_pool.web.collector import ScoreboardCollector
from pulpo_pool.web.file_collector import FileCollector
from pulpo_pool.web.slots import MEMORY_LOOK, MemoryLooks, SlotCollector


class Web:
    """The application over a scoreboard and a directory of metrics files."""

    def __init__(self, directory, *, workers=WORKERS):
        self.directory = directory
        self.clock = ManualClock()
        self.scoreboard = make_scoreboard(workers=workers)
        self.beat()
        self.looks = MemoryLooks(self.scoreboard, self.clock)
        self.app = build_app(
            self.scoreboard,
            (
                ScoreboardCollector(self.scoreboard, ("default", "mail"), self.clock, "file"),
                SlotCollector(self.scoreboard, self.looks, self.clock),
            ),
            FileCollector(directory, self.scoreboard, self.clock),
            self.clock,
        )

    def beat(self):
        self.scoreboard.header.heartbeat = self.clock.monotonic()
        self.scoreboard.header.queue_seen_at = self.clock.monotonic()

    def get(self, path="/metrics", method="GET", app=None, **headers):
        environ = {"PATH_INFO": path, "REQUEST_METHOD": method}
        setup_testing_defaults(environ)
        environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        answer = {}

        def start_response(status, response_headers):
            answer.update(status=status, headers=dict(response_headers))

        body = b"".join((app or self.app)(environ, start_response))
        return int(answer["status"][:3]), answer["headers"], body

    def sample(self, name, **labels):
        _, _, body = self.get()
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None

    def write(self, kind, identity, name, value, labels=(), timestamp=0.0, metric=None):
        """Put a series into a slot's file, as a process of the pool would."""
        file = SlotFile(self.directory / f"{kind}_{identity}.db")
        key = json.dumps([metric or name, name, dict(labels), "Help."])
        cell = file.cell_of(key)
        file.cells[cell] = value
        file.cells[cell + 1] = timestamp
        file.close()


@pytest.fixture
def web(tmp_path):
    return Web(tmp_path)


def test_healthy_while_the_master_beats(web):
    web.clock.advance(14)

    assert web.get("/healthz")[0] == 200


def test_unhealthy_when_the_master_is_stuck(web):
    web.clock.advance(15)

    assert web.get("/healthz")[0] == 503


def test_a_paused_type_is_exported_with_the_date_its_pause_ends(web):
    circuits = Circuits(web.scoreboard, 1, None, web.clock, lambda low, _high: low)
    name, began = "pulpo_request_type_paused_until_timestamp_seconds", web.clock.monotonic()
    never = web.sample(name, request_type="mail")
    circuits.learn("mail", began=began, pause=60.0, cause="ConnectionError")
    until = web.sample(name, request_type="mail")
    web.clock.advance(60)
    assert circuits.hold_back("mail") is None
    circuits.learn("mail", began=began + 60, succeeded=True)

    assert never is None
    assert until == pytest.approx(web.clock.now())
    assert web.sample(name, request_type="mail") == 0
    assert web.sample("pulpo_request_type_pauses_total", request_type="mail") == 1


def test_health_never_asks_for_the_queue(web):
    web.scoreboard.header.queue_seen_at = 0

    assert web.get("/healthz")[0] == 200


def test_ready_with_a_worker_a_queue_and_a_running_pool(web):
    show_worker(web.scoreboard, 0, activity=Activity.IDLE)

    status, headers, body = web.get("/readyz")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"ready": True, "reasons": []}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda web: show_worker(web.scoreboard, 0, activity=Activity.BOOTING), "no worker is up"),
        (lambda web: show_worker(web.scoreboard, 0, state=SlotState.BACKOFF), "no worker is up"),
        (lambda web: setattr(web.scoreboard.header, "crash_looping", 1), "crash"),
        (lambda web: setattr(web.scoreboard.header, "pool_state", PoolState.DRAINING), "draining"),
        (lambda web: setattr(web.scoreboard.header, "pool_state", PoolState.STARTING), "starting"),
        (lambda web: setattr(web.scoreboard.header, "queue_seen_at", 0), "queue"),
        (lambda web: web.clock.advance(31), "queue"),
        (lambda web: web.clock.advance(16), "master"),
    ],
)
def test_not_ready_and_why(web, spoil, reason):
    show_worker(web.scoreboard, 0, activity=Activity.IDLE)
    spoil(web)

    status, _, body = web.get("/readyz")
    answer = json.loads(body)
    assert (status, answer["ready"]) == (503, False)
    assert any(reason in text for text in answer["reasons"])


def test_a_paused_pool_is_ready_since_people_paused_it(web):
    show_worker(web.scoreboard, 0, activity=Activity.IDLE)
    web.scoreboard.header.pool_state = PoolState.PAUSED

    assert web.get("/readyz")[0] == 200


def test_a_workers_connection_is_proof_of_the_queue(web):
    show_worker(web.scoreboard, 0, activity=Activity.IDLE, queue_up=1)
    web.scoreboard.header.queue_seen_at = 0

    assert web.get("/readyz")[0] == 200


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 200),
        ("/", "HEAD", 200),
        ("/metrics", "HEAD", 200),
        ("/metrics", "POST", 405),
        ("/healthz", "DELETE", 405),
        ("/nothing", "GET", 404),
        ("/metrics/", "GET", 404),
        ("/metrics\x00", "GET", 404),
    ],
)
def test_routes(web, path, method, status):
    got, headers, body = web.get(path, method)

    assert got == status
    assert (body == b"") == (method == "HEAD")
    assert method == "HEAD" or int(headers["Content-Length"]) == len(body)


def test_openmetrics_for_those_who_ask(web):
    _, headers, body = web.get(accept="application/openmetrics-text; version=1.0.0, */*")

    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_gzip_for_those_who_ask(web):
    _, headers, body = web.get(accept_encoding="gzip, deflate")

    assert headers["Content-Encoding"] == "gzip"
    assert b"pulpo_workers" in gzip.decompress(body)


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/xss-7a1c"])
@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=xss-7a1c",
        "text/plain; version=xss-7a1c; escaping=xss-7a1c",
        "xss-7a1c",
        ";;;,,,",
    ],
)
def test_nothing_of_a_request_comes_back(web, path, accept):
    status, headers, body = web.get(
        path, accept=accept, host="xss-7a1c", accept_encoding="xss-7a1c"
    )

    assert status in (200, 404, 503)
    assert b"xss-7a1c" not in body
    assert "xss-7a1c" not in str(headers)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9700", 200),
        ("127.0.0.1:9700", 200),
        ("[::1]:9700", 200),
        ("pool.localhost", 200),
        ("evil.example.org", 421),
        ("localhost.evil.example.org:9700", 421),
        ("", 421),
        ("[", 421),
        ("[::1", 200),
    ],
)
def test_a_loopback_address_answers_to_local_names_only(web, host, status):
    guarded = only_local_names(web.app)

    assert web.get("/healthz", app=guarded, host=host)[0] == status


def test_a_client_without_a_host_is_no_browser(web):
    environ = {}
    setup_testing_defaults(environ)
    del environ["HTTP_HOST"]
    statuses = []
    only_local_names(web.app)(environ, lambda status, _headers: statuses.append(status))

    assert statuses == ["200 OK"]


def test_workers_by_state(web):
    show_worker(web.scoreboard, 0, activity=Activity.BUSY, queue=as_text("mail"))
    show_worker(web.scoreboard, 1, state=SlotState.BACKOFF)

    assert web.sample("pulpo_workers", state="busy") == 1
    assert web.sample("pulpo_workers", state="backoff") == 1
    assert web.sample("pulpo_workers", state="idle") == 0
    assert web.sample("pulpo_workers_wanted") == 2
    assert web.sample("pulpo_jobs_in_flight", queue="mail") == 1
    assert web.sample("pulpo_jobs_in_flight", queue="default") == 0


def test_rows_beyond_the_last_possible_worker_are_no_workers(tmp_path):
    web = Web(tmp_path, workers=MAX_WORKERS + 6)
    show_worker(web.scoreboard, MAX_WORKERS, activity=Activity.IDLE)
    show_worker(web.scoreboard, MAX_WORKERS + 1, activity=Activity.IDLE)

    assert web.sample("pulpo_workers", state="idle") == 0
    assert "no worker is up" in web.get("/readyz")[2].decode()


def test_empty_slots_count_only_where_a_worker_is_wanted(web):
    web.scoreboard.header.wanted_workers = 1

    assert web.sample("pulpo_workers", state="empty") == 1


def test_forks_and_exits_by_reason(web):
    web.scoreboard.header.forks[ForkReason.REPLACE] = 4
    web.scoreboard.header.exits[ExitReason.IDLE] = 3

    assert web.sample("pulpo_worker_forks_total", reason="replace") == 4
    assert web.sample("pulpo_worker_forks_total", reason="start") == 0
    assert web.sample("pulpo_worker_exits_total", reason="idle") == 3
    assert web.sample("pulpo_worker_exits_total", reason="cut_off") == 0


def test_recycles_are_the_exits_that_were_planned(web):
    web.scoreboard.header.exits[ExitReason.MAX_JOBS] = 3
    web.scoreboard.header.exits[ExitReason.SIGNAL] = 2

    assert web.sample("pulpo_worker_recycles_total", reason="max_jobs") == 3
    assert web.sample("pulpo_worker_recycles_total", reason="signal") is None


def test_the_job_that_has_run_longest_is_shown_by_when_it_started(web):
    now = web.clock.monotonic()
    for slot, started in ((0, now - 60), (1, now - 3600)):
        show_worker(web.scoreboard, slot, activity=Activity.BUSY, queue=as_text("mail"),
                    job_started=started)  # fmt: skip

    name = "pulpo_job_longest_running_since_timestamp_seconds"
    assert web.sample(name, queue="mail") == web.clock.now() - 3600
    assert web.sample(name, queue="default") == 0


def test_a_workers_busy_time_goes_on_through_a_job_and_over_lives(web):
    show_worker(web.scoreboard, 0, activity=Activity.BUSY, busy=100.0,
                busy_since=web.clock.monotonic())  # fmt: skip
    web.clock.advance(5)
    inside = web.sample("pulpo_worker_busy_seconds_total", worker="0")
    with writing(web.scoreboard.work(0)) as row:
        row.busy_since = 0.0  # it was killed, and nobody has added it up yet
    killed = web.sample("pulpo_worker_busy_seconds_total", worker="0")

    assert (inside, killed) == (105, 105)
    assert web.sample("pulpo_worker_busy_seconds_total", worker="1") == 0


def test_what_a_worker_uses_is_read_from_the_kernel(web):
    """The CPU time of the lives before it is added to its own."""
    show_worker(web.scoreboard, 0)
    life = web.scoreboard.life(0)
    life.pid, life.cpu_before, life.born = os.getpid(), 1_000.0, web.clock.monotonic() - 7
    web.looks.of(0)
    web.looks.look()

    sizes = [
        web.sample(f"pulpo_worker_{part}_memory_bytes", worker="0")
        for part in ("unique", "proportional", "resident")
    ]
    assert 0 < sizes[0] <= sizes[1] <= sizes[2] * 1.1
    assert web.sample("pulpo_worker_cpu_seconds_total", worker="0") > 1_000
    assert web.sample("pulpo_worker_start_time_seconds", worker="0") == web.clock.now() - 7


def test_the_memory_of_one_life_is_not_taken_for_the_nexts(web):
    show_worker(web.scoreboard, 0)
    web.scoreboard.life(0).pid = os.getpid()
    web.looks.of(0)
    web.looks.look()
    seen = web.looks.of(0)
    web.scoreboard.life(0).serial += 1
    gone = web.looks.of(0)
    web.looks.look()

    assert seen
    assert gone is None
    assert web.looks.of(0)


def test_memory_is_looked_at_now_and_then_and_only_for_those_who_scrape(web, monkeypatch):
    looked = []
    parts = MemoryParts(private=1, proportional=2)
    monkeypatch.setattr(slots, "memory_parts", lambda pid: looked.append(pid) or parts)
    show_worker(web.scoreboard, 0)
    web.scoreboard.life(0).pid = os.getpid()
    web.looks.look()
    unasked = list(looked)
    web.looks.of(0)
    for _ in range(3):
        web.looks.look()
    web.clock.advance(MEMORY_LOOK)
    web.looks.look()
    web.clock.advance(slots.ATTENTION + 1)
    web.looks.look()

    assert unasked == []
    assert len(looked) == 2


def test_a_process_that_is_gone_costs_its_own_numbers_only(web):
    show_worker(web.scoreboard, 0)
    web.scoreboard.life(0).pid = 2**22 + 1  # more than there are
    web.looks.of(0)
    web.looks.look()

    assert web.sample("pulpo_worker_resident_memory_bytes", worker="0") is None
    assert web.sample("pulpo_worker_cpu_seconds_total", worker="0") == 0


def test_log_lines_of_all_processes_are_added_up(web):
    web.scoreboard.header.log_lines[2] = 1
    web.scoreboard.work(0).log_lines[2] = 2
    web.scoreboard.work(WORKERS).log_lines[2] = 4

    assert web.sample("pulpo_log_messages_total", level="warning") == 7
    assert web.sample("pulpo_log_messages_total", level="error") == 0


def test_the_queue_is_up_while_somebody_reaches_it(web):
    up = web.sample("pulpo_queue_up")
    web.clock.advance(31)

    assert (up, web.sample("pulpo_queue_up")) == (1, 0)


def test_the_masters_heartbeat_is_a_wall_clock_time(web):
    web.clock.advance(4)

    assert web.sample("pulpo_master_heartbeat_timestamp_seconds") == web.clock.now() - 4


def test_counts_of_all_slots_are_added_up(web):
    labels = {"queue": "default", "request_type": "a", "outcome": "success"}
    for identity, count in (("0", 3), ("1", 4), ("keeper", 1)):
        web.write("counter", identity, "pulpo_jobs_finished_total", count, labels,
                  metric="pulpo_jobs_finished")  # fmt: skip

    assert web.sample("pulpo_jobs_finished_total", **labels) == 8


def test_a_metric_that_a_reload_made_another_kind_costs_the_new_one_only(web):
    web.write("counter", "0", "shop_sales_total", 7, metric="shop_sales")
    web.write("gauge_livesum", "0", "shop_sales", 5)
    web.write("histogram", "1", "shop_sales_sum", 5, metric="shop_sales")
    show_worker(web.scoreboard, 0)

    assert web.sample("shop_sales_total") == 7
    assert web.sample("shop_sales") is None
    assert web.sample("pulpo_metrics_files_skipped_total") == 6  # two at each scrape


def test_what_a_file_gains_between_two_scrapes_is_seen(web):
    seen = []
    for number in range(3):
        web.write("counter", "0", f"shop_{number}_total", number, metric=f"shop_{number}")
        seen.append(web.sample(f"shop_{number}_total"))
    web.write("counter", "0", "shop_2_total", 40, metric="shop_2")
    changed = web.sample("shop_2_total")
    (web.directory / "counter_0.db").unlink()
    web.write("counter", "0", "shop_9_total", 9, metric="shop_9")

    assert seen == [0, 1, 2]
    assert changed == 40
    assert web.sample("shop_9_total") == 9
    assert web.sample("shop_2_total") is None


def test_files_of_strangers_are_not_read(web):
    for identity in ("2", "12345", "x"):
        web.write("counter", identity, "shop_sales_total", 1, metric="shop_sales")

    assert web.sample("shop_sales_total") is None


def test_live_gauges_of_a_dead_process_are_left_out(web):
    web.write("gauge_livesum", "0", "shop_carts", 5)
    dead = web.sample("shop_carts")
    show_worker(web.scoreboard, 0)

    assert dead is None
    assert web.sample("shop_carts") == 5


def test_a_handler_cannot_hide_a_metric_of_the_pool(web):
    web.write("counter", "0", "pulpo_worker_forks_total", 999, {"reason": "start"},
              metric="pulpo_worker_forks")  # fmt: skip
    web.write("counter", "0", "pulpo_shop_total", 999, metric="pulpo_shop")

    assert web.sample("pulpo_worker_forks_total", reason="start") == 0
    assert web.sample("pulpo_shop_total") is None


def test_queue_depths_are_missing_rather_than_frozen_while_the_queue_is_away(web):
    show_worker(web.scoreboard, 2)  # the keeper's slot
    labels = {"queue": "default", "state": "ready"}
    web.write("gauge_livemostrecent", "keeper", "pulpo_queue_jobs", 5, labels, timestamp=1.0)
    seen = web.sample("pulpo_queue_jobs", **labels)
    web.clock.advance(31)

    assert seen == 5
    assert web.sample("pulpo_queue_jobs", **labels) is None


@pytest.mark.parametrize("content", [b"", b"\0\1", b"\x7f" * 4096, b"\x10\0\0\0" * 99])
def test_a_damaged_file_costs_its_own_numbers_only(web, content):
    web.write("counter", "0", "shop_sales_total", 7, metric="shop_sales")
    (web.directory / "counter_1.db").write_bytes(content)

    assert web.sample("shop_sales_total") == 7
    assert web.sample("pulpo_metrics_files_skipped_total") > 0


@given(content=st.binary(max_size=400), used=st.integers(0, 500))
def test_no_file_content_breaks_a_scrape(tmp_path_factory, content, used):
    web = Web(tmp_path_factory.mktemp("metrics"))
    (web.directory / "counter_1.db").write_bytes(used.to_bytes(4, "little") + content)

    assert web.get()[0] == 200


def test_a_label_that_cannot_be_encoded_costs_its_own_metric_only(web):
    web.write("counter", "0", "shop_sales_total", 7, {"who": "\ud800"}, metric="shop_sales")
    web.write("counter", "0", "shop_visits_total", 2, metric="shop_visits")

    assert web.sample("shop_visits_total") == 2
    assert b"shop_sales" not in web.get()[2]


def test_what_the_catalogue_promises_of_the_scoreboard_is_exported(web):
    _, _, body = web.get()
    exported = {f.name for f in text_string_to_metric_families(body.decode())}

    promised = {
        spec.name.removesuffix("_total")
        for spec in CATALOGUE
        if spec.source in (Source.SCOREBOARD, Source.WEB)
    }
    assert promised <= exported
