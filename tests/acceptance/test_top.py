"""`pulpo-pool top`: a live view with keys on a terminal, plain lines without one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from pool import PATIENCE, PoolProcess, eventually
from rich.cells import cell_len
from shops import SHOP

from pulpo_pool.cli.top_view import duration

LONG_NAME = "n" * 63  # what a row of the scoreboard holds
APP = SHOP + f"\npulpo.job({LONG_NAME!r})(lambda n: hold(n))\n"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Screen:
    """A person's terminal with `pulpo-pool top` in it."""

    def __init__(self, pool: PoolProcess, *arguments: str, lines: int = 24, columns: int = 80):
        self._ours, self._theirs = pty.openpty()
        self.resize(lines, columns)
        self.before = termios.tcgetattr(self._theirs)
        self.text = ""
        clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pulpo_pool", "top", "--interval", "0.2", *arguments],
            cwd=pool.folder,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env=clean | {"TERM": "xterm-256color"},
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read(self) -> str:
        while select.select([self._ours], [], [], 0)[0]:
            self.text += os.read(self._ours, 65_536).decode()
        return self.text

    def frames(self) -> list[list[str]]:
        """Return what was drawn, each time from the top, as lines without their colours."""
        whole = self.read().split("\x1b[H")[1:-1]
        return [_CONTROL.sub("", frame).replace("\r", "").split("\n") for frame in whole]

    def shows(self, *words: str) -> list[str]:
        """Wait for a picture, drawn from now on, that has all of these in it; return it."""
        seen = len(self.frames())

        def found():
            frames = self.frames()[seen:]
            return next((f for f in frames if all(w in "\n".join(f) for w in words)), None)

        return eventually(found, what=f"{words} is on the screen")

    def wait(self) -> int:
        """Return the exit code; the terminal is read, or the program would wait for that."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.read()
            try:
                return self.process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"top goes on: {self.text[-2000:]!r}")

    def is_as_before(self) -> bool:
        """Tell whether the terminal is what it was: its modes, its screen, its cursor."""
        text = self.read()
        left = text.rfind("\x1b[?1049l") > text.rfind("\x1b[?1049h") >= 0
        cursor = text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0
        return left and cursor and termios.tcgetattr(self._theirs) == self.before


@pytest.fixture
def pool(tmp_path):
    with PoolProcess(tmp_path, "-w", "2", app=APP) as pool:
        yield pool.ready()


def test_it_shows_the_pool_and_every_worker_within_80_columns(pool):
    pool.publish("hold", [{"n": 1}])
    pool.publish(LONG_NAME, [{"n": 2}])
    eventually(lambda: len(pool.lines("started")) == 2, what="the jobs run")
    pool.ask("scale", "3")
    pids = pool.ready().worker_pids()

    with Screen(pool) as screen:
        screen.shows("default: running", "3/3 workers, 2 busy", "hold ", " jobs/s")
        frame = screen.shows("busy", "idle", LONG_NAME[:20], *map(str, pids))
        frames = screen.frames()

    assert len(frame) == 24
    assert max(cell_len(line) for frame in frames for line in frame) <= 80
    assert sum("SLOT" in line for line in frame) == 1
    assert sum("q quit" in line for line in frame) == 1


def test_the_rate_is_what_was_done_between_two_looks(pool):
    with Screen(pool) as screen:
        screen.shows("0.0 jobs/s", "0 jobs done")
        pool.publish("note", [{"n": n} for n in range(50)])
        screen.shows("50 jobs done")

        rates = [float(r.replace(",", "")) for r in re.findall(r"([\d.,]+) jobs/s", screen.read())]
        assert max(rates) > 0


def test_jobs_of_the_dead_are_counted(pool):
    pool.publish("note", [{"n": n} for n in range(20)])
    eventually(pool.empty, what="the jobs are done")
    eventually(lambda: pool.status()["master"]["jobs_total"] == 20, what="they are counted")
    old = pool.worker_pids()
    pool.ask("recycle")
    eventually(lambda: not set(old) & set(pool.ready().worker_pids()), what="all are new")

    master = pool.status()["master"]
    assert master["jobs_total"] == 20
    assert sum(worker["jobs_done"] for worker in pool.status()["workers"]) == 0
    assert (master["forks"]["recycle"], master["exits"]["operator"]) == (2, 2)


def test_keys_pause_scale_and_recycle(pool):
    with Screen(pool) as screen:
        screen.shows("running")
        screen.press("p")
        screen.shows("default: paused")
        paused = pool.status()["master"]["state"]
        screen.press("p")
        screen.shows("default: running")
        screen.press("+")
        screen.shows("3/3 workers")
        grown = pool.status()["master"]["workers_wanted"]
        screen.press("--")
        screen.shows("1/1 workers")
        shrunk = pool.status()["master"]["workers_wanted"]
        old = pool.worker_pids()
        screen.press("\x1b[Br")
        screen.shows("recycle: slots 0")
        eventually(lambda: not set(old) & set(pool.ready().worker_pids()), what="it is replaced")
        screen.press("-")
        screen.shows("a pool has 1 to 256 workers")

    assert (paused, grown, shrunk) == ("paused", 3, 1)


def test_q_leaves_and_the_terminal_is_as_it_was(pool):
    with Screen(pool) as screen:
        screen.shows("running")
        changed = not screen.is_as_before()
        screen.press("q")

        assert changed
        assert screen.wait() == 0
        assert screen.is_as_before()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_leave_the_terminal_as_it_was(pool, number, code):
    with Screen(pool) as screen:
        screen.shows("running")
        screen.process.send_signal(number)

        assert screen.wait() == code
        assert screen.is_as_before()


def test_a_pool_that_goes_away_ends_it(pool):
    with Screen(pool) as screen:
        screen.shows("running")
        pool.signal(signal.SIGTERM)

        assert screen.wait() == 1
        assert screen.is_as_before()
        assert "the pool 'default' has ended" in screen.text.rpartition("\x1b[?1049l")[2]


def test_a_smaller_window_is_filled_anew_and_shows_the_selected_worker(tmp_path):
    with PoolProcess(tmp_path, "-w", "12", app=SHOP) as pool:
        pool.ready()
        with Screen(pool) as screen:
            screen.shows("12/12 workers")
            screen.resize(8, 60)
            screen.process.send_signal(signal.SIGWINCH)
            eventually(lambda: len(screen.frames()[-1]) == 8, what="the picture has eight lines")
            small = screen.shows("q quit")
            screen.press("j" * 12)
            moved = screen.shows("\n  11 ")

    assert max(map(cell_len, small)) <= 60
    assert len(moved) == 8
    assert not any(line.startswith("   0 ") for line in moved)


class TestWithoutATerminal:
    def test_there_is_a_line_for_each_look(self, pool):
        result = pool.command("top", "--interval", "0.1", "--count", "3")

        first, *others = result.stdout.splitlines()
        assert (result.returncode, result.stderr) == (0, "")
        assert first == (
            "running: 2/2 workers, 0 busy, - jobs/s, 0 jobs done, 0 restarts, generation 1"
        )
        assert others == [first.replace("- jobs/s", "0.0 jobs/s")] * 2

    def test_no_pool_is_an_error(self, tmp_path):
        with PoolProcess(tmp_path, "-w", "1", app="raise OSError") as pool:
            pool.wait()
            result = pool.command("top")

        assert result.returncode == 1
        assert "no pool named 'default' runs" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (59.94, "59.9s"),
        (60, "1m00s"),
        (3_599, "59m59s"),
        (3_600, "1h00m"),
        (86_399, "23h59m"),
        (86_400, "1d00h"),
        (8_640_000, "100d00h"),
    ],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
