"""The failure table on real pools: every row at once, on each engine that pools can share."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import greenstalk
import pytest
from failures import FATES, NEW_SHOP, OPTIONS, SHOP
from groups import memory_group
from pool import PoolProcess, eventually
from servers import Beanstalkd

from pulpo_pool.queues.adapter import JobState
from pulpo_pool.queues.opening import file_url

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import JobRecord

ENOUGH_MEMORY = 500_000_000  # bytes for a pool; a job that takes more is killed by the kernel
DEPENDENT_JOBS = 12
LEASE = "2"  # seconds, of the file queue: long enough for the thread that renews it
GARBAGE = b"\xff no message"


@dataclass
class Seen:
    """What a pool left behind, once every job had come to its end."""

    engine: str
    pool: PoolProcess
    records: dict[str, list[JobRecord]]  # by request_type; of what is no message under ""
    log: list[dict[str, Any]]
    paused: str  # what `status` said during the outage
    pauses: float
    exit_code: int
    oom_kills: float | None  # None where the machine gives no memory cgroup

    def record(self, request_type: str) -> JobRecord:
        (record,) = self.records[request_type]
        return record

    def counted(self, name: str, **labels: str) -> float:
        return self.pool.counted_in_files(name, **labels)

    def evidence(self, request_type: str) -> str:
        """Return what is known of a job's failure: kept with it, or else logged."""
        records = self.records.get(request_type, [])
        logged = [line["message"] for line in self.log if line.get("request_type") == request_type]
        kept = [record.error for record in records if record.error]
        return "\n".join(kept if self.engine == "file" else logged)


def put_garbage(engine: str, url: str) -> None:
    """Put bytes into the queue that are no message, as a stranger would."""
    if engine == "beanstalkd":
        address = urlsplit(url)
        with greenstalk.Client((address.hostname, address.port), encoding=None) as client:
            client.put(GARBAGE)
        return
    path = url.removeprefix("file:")
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        database.execute(
            "INSERT INTO jobs (queue, state, priority, raw) VALUES ('default', 0, 1, ?)",
            (GARBAGE,),
        )


def records_of(pool: PoolProcess) -> dict[str, list[JobRecord]]:
    found: dict[str, list[JobRecord]] = {}
    for state in JobState:
        for record in pool.jobs(state):
            name = "" if record.raw == GARBAGE else record.message().request_type
            found.setdefault(name, []).append(record)
    return found


def came_to_their_ends(pool: PoolProcess) -> bool:
    """Tell whether every job of a row is where it is to be."""
    found = records_of(pool)
    states = {name: [r.state.value for r in found.get(name, [])] for name in FATES}
    wanted = {name: [fate.state] if fate.state else [] for name, fate in FATES.items()}
    return states == wanted and [r.state for r in found.get("", [])] == [JobState.BURIED]


def outage(pool: PoolProcess) -> str:
    """Let a dependency be down until its jobs have paused thrice; return what `status` says."""
    pool.publish("depends", [{"n": n} for n in range(DEPENDENT_JOBS)])
    eventually(
        lambda: pool.counted("pulpo_request_type_pauses_total", request_type="depends") >= 3,
        what="the probes fail",
    )
    said = pool.command("status").stdout
    (pool.folder / "down").unlink()
    return said


def deploy(pool: PoolProcess) -> None:
    """Change the policy of a job that has failed and waits."""
    pool.publish("follows_its_policy", [{}])
    eventually(lambda: pool.lines("policy"), what="it fails by the old policy")
    (pool.folder / "shop.py").write_text(NEW_SHOP)
    pool.ask("reload")
    eventually(lambda: pool.status()["master"]["reload"]["phase"] == "done", what="the reload")


@pytest.fixture(scope="module", params=["file", "beanstalkd"])
def seen(request, tmp_path_factory):
    engine, folder = request.param, tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        broker = file_url(str(folder / "queue.db"))
        if engine == "beanstalkd":
            broker = stack.enter_context(Beanstalkd()).url
        prefix = stack.enter_context(memory_group(ENOUGH_MEMORY))
        (folder / "down").touch()
        pool = stack.enter_context(
            PoolProcess(
                folder, *OPTIONS, "--drain-timeout", "600", app=SHOP, broker=broker,
                prefix=prefix or (), PULPO_POOL_LEASE=LEASE,
            )
        )  # fmt: skip
        yield lived_through(engine, pool, limited=prefix is not None)


def lived_through(engine: str, pool: PoolProcess, *, limited: bool) -> Seen:
    pool.ready()
    assert pool.ask("pause")["ok"]
    eventually(lambda: set(pool.titles()) == {f"worker {n} resting" for n in range(6)})
    for name in FATES:
        early = name.startswith("expires")
        pool.publish(name, [{}], **({"expiration": 0} if early else {}))
    put_garbage(engine, str(pool.broker))
    if engine == "file":  # beanstalkd notices late that a lease ended: see the contract's `stir`
        pool.publish("falls_silent", [{}])
    assert pool.ask("resume")["ok"]
    paused = outage(pool)
    eventually(lambda: came_to_their_ends(pool), 60, what="every job has come to its end")
    if limited:
        pool.publish("uses_up_the_memory", [{}])
        eventually(
            lambda: pool.counted("pulpo_job_buries_total", request_type="uses_up_the_memory"),
            what="the kernel has killed twice",
        )
    if engine == "file":
        eventually(
            lambda: pool.counted("pulpo_job_settlements_lost_total") == 1,
            what="the late settlement is refused",
        )
    oom_kills = pool.counted("pulpo_worker_exits_total", reason="oom") if limited else None
    deploy(pool)
    eventually(
        lambda: pool.counted("pulpo_job_buries_total", request_type="follows_its_policy"),
        what="the new policy ends it",
    )
    eventually(lambda: len(pool.lines("depended")) == DEPENDENT_JOBS, what="the type goes on")
    pauses = pool.counted("pulpo_request_type_pauses_total", request_type="depends")
    pool.publish("hold", [{}])
    eventually(lambda: pool.lines("held"), what="a job is held")
    pool.signal(signal.SIGTERM)
    eventually(lambda: pool.status()["master"]["state"] == "draining", what="it drains")
    pool.let_go()
    code = pool.wait()
    log = [json.loads(line) for line in pool.log.splitlines() if line.startswith("{")]
    return Seen(engine, pool, records_of(pool), log, paused, pauses, code, oom_kills)


@pytest.mark.parametrize("name", FATES)
def test_a_job_comes_to_its_end(seen, name):
    """State, attempts, crashes, reason and words of each row, and what was counted of it."""
    fate = FATES[name]
    count = {"pulpo_jobs_finished_total": {"outcome": fate.outcome}}
    if fate.state == "delayed":
        count["pulpo_job_retries_total"] = {"reason": fate.why}
    if fate.state == "buried":
        count["pulpo_job_buries_total"] = {"reason": fate.why}
    if name == "has_no_handler":  # counted as _unknown, together with the bytes of no message
        del count["pulpo_jobs_finished_total"]
        counted = [seen.counted("pulpo_job_buries_total", reason=fate.why)]
    else:
        counted = [
            seen.counted(metric, request_type=name, **labels) for metric, labels in count.items()
        ]

    assert len(seen.records.get(name, [])) == (fate.state is not None)
    assert counted == [1] * len(count)
    assert fate.said in seen.evidence(name)
    if fate.state:
        record = seen.record(name)
        kept = fate.why if fate.state == "buried" else None
        assert record.state == fate.state
        if seen.engine == "file":
            facts = (record.attempts, record.crashes, record.reason)
            assert facts == (fate.attempts, fate.crashes, kept)
        else:  # who reserves it after its last crash is the one to bury it
            assert record.attempts == fate.attempts + (fate.crashes > 0)


def test_a_success_has_run(seen):
    assert ["returns_nothing"] in seen.pool.lines("ran")


def test_an_expired_job_is_never_begun(seen):
    assert [words for words in seen.pool.lines("ran") if words[0].startswith("expires")] == []


def test_a_crash_hands_its_job_back_before_the_limit_buries_it(seen):
    names = [name for name, fate in FATES.items() if fate.crashes]
    retries = [
        seen.counted("pulpo_job_retries_total", request_type=name, reason="crash") for name in names
    ]

    assert retries == [1] * len(names)


def test_a_job_waits_as_long_as_its_handler_asked(seen):
    records = {name: seen.record(name) for name in ("returns_transient", "raises")}
    longest = seen.record("raises_transient_in_an_hour")

    assert all(longest.due > record.due + 1_000 for record in records.values())


def test_bytes_that_are_no_message_are_buried(seen):
    record = seen.record("")

    assert record.state is JobState.BURIED
    assert seen.counted("pulpo_job_buries_total", reason="undecodable") == 1
    assert any("buried (undecodable)" in line["message"] for line in seen.log)


def test_a_worker_that_the_kernel_kills_for_its_memory_is_a_crash(seen):
    if seen.oom_kills is None:
        pytest.skip("this machine lets no memory cgroup be made")
    (record,) = seen.records["uses_up_the_memory"]

    assert record.state is JobState.BURIED
    assert seen.oom_kills >= 2  # the kernel may take a bystander as well
    assert "had too much memory and was killed for it" in seen.evidence("uses_up_the_memory")


def test_a_job_whose_lease_lapses_runs_again_and_the_late_settlement_is_refused(seen):
    if seen.engine != "file":
        pytest.skip("a beanstalkd may miss the end of a lease; the contract's tests stir it")
    attempts = seen.pool.numbers("silent")
    lost = [line for line in seen.log if "was settled too late" in line["message"]]

    assert attempts == [1, 2]
    assert seen.pool.numbers("spoke_again") == [1]
    assert "falls_silent" not in seen.records
    assert len(lost) == 1


def test_a_type_whose_dependency_is_down_pauses_and_every_job_of_it_is_done(seen):
    """Each failure is one that paused it, or of a job that was under way by then."""
    runs = seen.pool.lines("depends")
    failures = len(runs) - DEPENDENT_JOBS

    assert seen.pool.numbers("depended") == list(range(DEPENDENT_JOBS))
    assert seen.pauses <= failures <= seen.pauses + 5
    assert "depends is paused" in seen.paused
    assert "ConnectionRefusedError" in seen.paused


def test_a_job_that_is_put_back_spends_no_attempt(seen):
    """Where the engine can count attempts: beanstalkd counts reservations."""
    runs = seen.pool.lines("depends")
    begun = Counter(n for n, _ in runs)
    attempts = {n: int(attempt) for n, attempt in runs}  # the last of each job
    put_back = seen.counted("pulpo_jobs_put_back_total", request_type="depends")

    assert put_back >= DEPENDENT_JOBS - 6
    if seen.engine == "file":
        assert attempts == begun
    else:  # a worker that leaves may hand back, with another, what the server has just given it
        assert sum(attempts.values()) >= len(runs) + put_back


def test_a_policy_changed_by_a_deploy_holds_for_jobs_that_wait_already(seen):
    """The attempts it had before count against the new limit, whether it is begun again or not."""
    record = seen.record("follows_its_policy")
    tried = seen.pool.numbers("policy")
    buries = [line for line in seen.log if line["message"].startswith("buried (exhausted)")]
    ours = [line for line in buries if line["request_type"] == "follows_its_policy"]

    assert len(tried) >= 2
    assert len(ours) == 1
    if seen.engine == "file":  # a beanstalkd counts what a leaving worker hands back as well
        limit = "(stop_after_attempt(max_attempt_number=1))"
        assert tried == list(range(1, len(tried) + 1))
        assert f"gave up at attempt {tried[-1]} {limit}" in record.error


def test_a_pool_that_drains_lets_a_job_in_hand_finish(seen):
    assert "hold" not in seen.records
    assert len(seen.pool.lines("held")) == len(seen.pool.lines("let_go")) == 1
    assert seen.counted("pulpo_jobs_finished_total", request_type="hold", outcome="success") == 1
    assert seen.exit_code == 0
