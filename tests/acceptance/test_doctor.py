"""`pulpo-pool doctor`: it finds what is wrong with a place, soon, and leaves it as it was."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading

import greenstalk
import pytest
from click.testing import CliRunner
from pool import PoolProcess, eventually, publish, queue_in
from servers import Beanstalkd
from shops import SHOP

from pulpo_pool.cgroup import Cgroups
from pulpo_pool.cli import doctor_limits as limits
from pulpo_pool.cli import doctor_machine as machine
from pulpo_pool.cli import doctor_state as state
from pulpo_pool.cli.doctor_broker import SCRATCH
from pulpo_pool.cli.findings import Verdict, examined, ok
from pulpo_pool.cli.main import cli
from pulpo_pool.clock import ManualClock
from pulpo_pool.settings import load_settings

GIB = 1_073_741_824


pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def examine():
    """Call the program; return its exit code and its findings by subject."""

    def examine(*arguments):
        result = CliRunner().invoke(cli, ["doctor", "--json", *arguments])
        answer = json.loads(result.stdout)
        findings = {each["subject"]: each for each in answer["findings"]}
        assert answer["ok"] == (result.exit_code == 0)
        return result.exit_code, findings

    return examine


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def configured(folder, **flags):
    return load_settings(flags, directory=folder, environ={})


class TestAHealthyPlace:
    def test_an_empty_folder_is_well_and_stays_empty(self, examine, folder):
        code, findings = examine()

        assert code == 0
        assert list(findings) == [
            *("broker", "state-dir", "clock", "descriptors", "processes"),
            *("memory", "cpus", "grace", "pool", "versions"),
        ]
        assert "it is not there yet (SQLite 3." in findings["broker"]["said"]
        assert findings["state-dir"]["facts"]["exists"] is False
        assert findings["versions"]["facts"]["python"] == platform.python_version()
        assert "click" in findings["versions"]["facts"]
        assert "mypy" not in findings["versions"]["facts"]  # what only developers need
        assert list(folder.iterdir()) == []

    def test_people_get_a_line_for_each(self, folder):
        result = CliRunner().invoke(cli, ["doctor"])
        words = [line.split()[:2] for line in result.stdout.splitlines()]

        assert result.exit_code == 0
        assert ["ok", "broker"] in words
        assert ["ok", "pool"] in words
        assert len(words) == 10

    def test_a_pool_at_work_is_found_and_not_disturbed(self, folder):
        with PoolProcess(folder, "-w", "1", app=SHOP) as pool:
            pool.ready().publish("note", [{"n": 1}])
            eventually(pool.empty, what="the job is done")
            before = files_in(folder / ".pulpo" / "queue.db.bells")
            done = pool.command("doctor", "--json")
            after = files_in(folder / ".pulpo" / "queue.db.bells")
            left = pool.stats()
            pid, answer = pool.pid, json.loads(done.stdout)
        findings = {each["subject"]: each for each in answer["findings"]}

        assert done.returncode == 0
        assert findings["pool"]["facts"]["pid"] == pid
        assert findings["pool"]["said"] == f"'default' is running, pid {pid}"
        assert findings["broker"]["verdict"] == findings["state-dir"]["verdict"] == "ok"
        assert left.ready == left.reserved == left.buried == left.delayed == 0
        assert before == after

    def test_what_a_killed_doctor_left_is_cleared(self, examine, folder):
        publish(folder, SCRATCH, [{}, {}], queue=SCRATCH)
        publish(folder, "note", [{}])
        code, _ = examine()
        with queue_in(folder) as queue:
            left = queue.stats()

        assert code == 0
        assert list(left) == ["default"]


class TestTheBroker:
    def test_beanstalkd_is_told_with_its_version_and_keeps_nothing(self, examine):
        with Beanstalkd() as server:
            code, findings = examine("--broker", server.url)
            with greenstalk.Client((server.host, server.port)) as client:
                tubes = client.tubes()
                counts = client.stats()

        assert code == 0
        assert "ms (beanstalkd 1." in findings["broker"]["said"]
        assert tubes == ["default"]
        assert counts["total-jobs"] == 1
        assert {counts[f"current-jobs-{each}"] for each in ("ready", "reserved", "buried")} == {0}

    def test_nobody_listens(self, examine):
        with socket.socket() as taken:  # bound, and not listening
            taken.bind(("127.0.0.1", 0))
            code, findings = examine("--broker", f"beanstalkd://127.0.0.1:{taken.getsockname()[1]}")

        assert code == 1
        assert findings["broker"]["verdict"] == "problem"
        assert "nothing listens there" in findings["broker"]["said"]
        assert findings["clock"]["verdict"] == "ok"  # the others are looked at all the same

    def test_one_that_swallows_everything_does_not_hold_it_up(self, examine):
        with socket.socket() as hole:
            hole.bind(("127.0.0.1", 0))
            hole.listen()
            url = f"beanstalkd://127.0.0.1:{hole.getsockname()[1]}?socket_timeout=600"
            code, findings = examine("--broker", url, "--timeout", "0.2")

        assert code == 1
        assert findings["broker"]["said"] == "no answer within 0.2 s"
        assert findings["versions"]["verdict"] == "ok"

    def test_one_that_no_two_processes_share(self, examine):
        code, findings = examine("--broker", "memory:")

        assert code == 1
        assert "lives in one process" in findings["broker"]["said"]

    def test_a_file_that_is_no_queue_is_left_alone(self, examine, folder):
        (folder / "notes.txt").write_text("not a database, and long enough to be read as one" * 50)
        before = (folder / "notes.txt").read_bytes()
        code, findings = examine("--broker", "file:notes.txt")

        assert code == 1
        assert findings["broker"]["verdict"] == "problem"
        assert (folder / "notes.txt").read_bytes() == before


class TestTheDisk:
    @pytest.mark.parametrize("place", ["/proc/pulpo", "/proc/self/pulpo"])
    def test_where_nothing_can_be_written(self, examine, place):
        code, findings = examine("--state-dir", place)

        assert code == 1
        assert findings["state-dir"]["verdict"] == "problem"
        assert "cannot be written" in findings["state-dir"]["said"]

    def test_a_file_in_its_place(self, examine, folder):
        (folder / "state").touch()
        code, findings = examine("--state-dir", "state", "--broker", f"file:{folder}/queue.db")

        assert code == 1
        assert "is a file where a directory has to be" in findings["state-dir"]["said"]

    def test_others_may_write(self, examine, folder):
        (folder / "state").mkdir()
        (folder / "state").chmod(0o777)
        code, findings = examine("--state-dir", "state")

        assert code == 0
        assert findings["state-dir"]["verdict"] == "warning"
        assert "(mode 777)" in findings["state-dir"]["said"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_somebody_elses(self, examine, folder):
        (folder / "state").mkdir(mode=0o700)
        os.chown(folder / "state", 12_345, -1)
        _, findings = examine("--state-dir", "state")

        assert findings["state-dir"]["verdict"] == "warning"
        assert "belongs to user 12345" in findings["state-dir"]["said"]

    def test_the_embedded_queues_folder_is_looked_at_too(self, examine, folder):
        (folder / "data").mkdir()
        _, findings = examine("--broker", "file:data/queue.db")

        assert findings["queue-dir"]["facts"]["path"] == str(folder / "data")

    @pytest.mark.parametrize(
        ("free", "verdict"), [(10**6, "problem"), (10**8, "warning"), (10**10, "ok")]
    )
    def test_room(self, folder, free, verdict):
        (found,) = state.state_directory(configured(folder).settings, Disk(folder, free=free))

        assert found.verdict == verdict

    def test_a_network_filesystem_is_refused(self, folder):
        disk = Disk(folder, filesystem="nfs4")
        (found,) = state.state_directory(configured(folder).settings, disk)

        assert found.verdict is Verdict.PROBLEM
        assert "is a network filesystem (nfs4)" in found.said
        assert found.advice == "use a disk of this machine"


class Disk(state.Disks):
    """One filesystem, mounted where the test is."""

    def __init__(self, place, *, filesystem="ext4", free=10**11):
        self._mounts = [("/", "ext4"), (str(place), filesystem)]
        self._free = free

    def mounts(self):
        return self._mounts

    def free(self, place):
        return self._free


class TestTheLimits:
    @pytest.mark.parametrize(("limit", "verdict"), [(40, "problem"), (128, "warning")])
    def test_few_descriptors(self, folder, limit, verdict):
        program = f"{sys.executable} -m pulpo_pool doctor --json"
        done = subprocess.run(
            ["bash", "-c", f"ulimit -n {limit}; exec {program}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        findings = {each["subject"]: each for each in json.loads(done.stdout)["findings"]}

        assert findings["descriptors"]["verdict"] == verdict
        assert findings["descriptors"]["said"].startswith(f"{limit} a process")
        assert done.returncode == (verdict == "problem")

    @pytest.mark.parametrize(
        ("flags", "quota", "verdict", "said"),
        [
            ({}, None, "ok", "the machine has 17.2 GB"),
            ({"max_memory_hard": "1GiB"}, None, "ok", "8 workers of 1.07 GB, the machine has"),
            ({"max_memory": "2GiB"}, None, "warning", "8 workers of 2.15 GB are more than"),
            ({"max_memory": "100MiB"}, GIB, "ok", "8 workers of 105 MB, the cgroup allows 1.07 GB"),
            ({"max_memory": "200MiB"}, GIB, "warning", "are more than the cgroup allows: 1.07 GB"),
            ({}, GIB, "warning", "nothing limits the 8 workers"),
            ({}, GIB // 32, "problem", "which the pool needs without any worker"),
            ({}, 2 * 16 * GIB, "ok", "the machine has 17.2 GB"),
        ],
    )
    def test_memory(self, folder, tmp_path, flags, quota, verdict, said):
        groups = cgroups(tmp_path, **({} if quota is None else {"memory.max": quota}))
        settings = configured(folder, workers="8", **flags).settings
        (found,) = limits.memory(settings, groups, installed=16 * GIB)

        assert (found.verdict, said in found.said) == (verdict, True), found.said

    def test_the_advice_fits(self, folder, tmp_path):
        groups = cgroups(tmp_path, **{"memory.max": GIB})
        (found,) = limits.memory(configured(folder, workers="4").settings, groups, 16 * GIB)
        advised = dict(word.split(" = ") for word in found.advice.split("set ")[1].split(" and "))
        flags = {name.replace("-", "_"): size for name, size in advised.items()}
        (again,) = limits.memory(configured(folder, workers="4", **flags).settings, groups, GIB)

        assert found.verdict is Verdict.WARNING
        assert again.verdict is Verdict.OK

    @pytest.mark.parametrize(
        ("workers", "quota", "verdict"),
        [("2", "100000 100000", "ok"), ("8", "100000 100000", "warning"), ("8", "max 1", "ok")],
    )
    def test_cpus(self, folder, tmp_path, workers, quota, verdict):
        groups = cgroups(tmp_path, **{"cpu.max": quota})
        (found,) = limits.cpus(configured(folder, workers=workers).settings, groups, usable=1)

        assert found.verdict == verdict

    @pytest.mark.parametrize(("most", "verdict"), [("12", "problem"), ("100", "ok"), ("max", "ok")])
    def test_processes(self, folder, tmp_path, most, verdict):
        groups = cgroups(tmp_path, **{"pids.max": most})
        (found,) = limits.processes(configured(folder, workers="8").settings, groups)

        assert found.verdict == verdict

    @pytest.mark.parametrize(
        ("grace", "verdict", "said"),
        [("60", "ok", "fits into 60 s"), ("20", "warning", "do not fit"), ("0", "ok", "nobody")],
    )
    def test_grace(self, folder, grace, verdict, said):
        (found,) = limits.grace(configured(folder, drain_timeout="25", grace=grace))

        assert (found.verdict, said in found.said) == (verdict, True)

    def test_what_check_warns_of_is_said_here_too(self, examine, monkeypatch):
        monkeypatch.setenv("PULPO_POOL_XYZZY", "1")
        code, findings = examine()

        assert code == 0
        assert "PULPO_POOL_XYZZY: no such setting" in findings["settings"]["said"]


def cgroups(folder, **files):
    """A container's own groups, as the second version shows them."""
    (folder / "membership").write_text("0::/\n")
    (folder / "mounted").mkdir()
    for name, text in files.items():
        (folder / "mounted" / name).write_text(f"{text}\n")
    return Cgroups(folder / "membership", folder / "mounted")


def test_the_first_version_of_cgroups_writes_no_limit_as_a_number(tmp_path):
    (tmp_path / "membership").write_text("9:memory:/docker/x\n4:pids:/docker/x\n")
    for name, text in (("memory/memory.limit_in_bytes", 2**63 - 4096), ("pids/pids.max", "max")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"{text}\n")
    groups = Cgroups(tmp_path / "membership", tmp_path)

    assert (groups.memory(), groups.processes()) == (None, None)
    (tmp_path / "memory/memory.limit_in_bytes").write_text(f"{GIB}\n")
    assert groups.memory() == GIB


class TestTheClock:
    def test_one_that_jumps(self):
        clock = SteppedClock()
        (found,) = machine.clock(clock, lambda _: clock.step(3.0))

        assert found.verdict is Verdict.WARNING
        assert "jumped by 12.0 s" in found.said

    def test_one_that_was_never_set(self):
        (found,) = machine.clock(ManualClock(now=1_000.0), lambda _: None)

        assert found.verdict is Verdict.PROBLEM
        assert "1000 s since 1970" in found.said

    def test_one_that_goes(self):
        clock = ManualClock()
        (found,) = machine.clock(clock, clock.advance)

        assert found.verdict is Verdict.OK


class SteppedClock(ManualClock):
    """A wall clock that somebody sets while it is looked at."""

    def step(self, seconds):
        self._now += seconds


class TestThePool:
    def test_one_that_is_stuck_is_told(self, folder, examine):
        with PoolProcess(folder, "-w", "1", app=SHOP) as pool:
            pool.ready().signal(signal.SIGSTOP)
            code, findings = examine("--timeout", "0.5")
            pool.signal(signal.SIGCONT)

        assert code == 1
        assert findings["pool"]["said"] == "no answer within 0.5 s"


class TestTime:
    def test_what_never_returns_is_left_behind_and_what_it_had_found_is_kept(self):
        for_ever = threading.Event()

        def stuck():
            yield ok("disk", "the first half is there")
            for_ever.wait()

        try:
            findings = examined("disk", stuck, 0.05)
        finally:
            for_ever.set()

        assert [each.said for each in findings] == [
            "the first half is there",
            "no answer within 0.05 s",
        ]

    def test_a_mistake_of_ours_is_not_hidden(self):
        def wrong():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            examined("disk", wrong, 10)
