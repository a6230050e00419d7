"""The pages people read, taken apart: which commands they show, and which files."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pool import PATIENCE, eventually, queue_in

from pulpo_pool.cli.commands import route

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])

_MARK = re.compile(r"<!-- ((?:not )?run\b.*) -->")


@dataclass(frozen=True)
class Block:
    """Fenced text: its language, the heading above it, and what a mark before it says."""

    language: str
    text: str
    heading: str
    mark: str = ""


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found, heading, mark, fenced = [], "", "", None
    for line in page.read_text().splitlines():
        if fenced is not None:
            if line == "```":
                text = "\n".join(fenced[1:]) + "\n"
                found.append(Block(fenced[0], text, heading, mark))
                fenced, mark = None, ""
            else:
                fenced.append(line)
        elif line.startswith("```"):
            fenced = [line.removeprefix("```")]
        elif line.startswith("#"):
            heading = line.lstrip("# ")
        elif line:
            marked = _MARK.fullmatch(line)
            mark = marked[1] if marked else ""
    assert fenced is None, f"{page}: a fence is left open"
    return found


def inline_commands(page: Path) -> set[str]:
    """Return what stands between backticks and calls the program."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {code for code in re.findall(r"`([^`]+)`", text) if code.startswith("pulpo-pool ")}


def starts_a_pool(line: str) -> bool:
    words = shlex.split(line, comments=True)
    ours = bool(words) and Path(words[0]).name == "pulpo-pool"
    return ours and "--burst" not in words and route(words[1:])[0] == "run"


class Reader:
    """Somebody who types what a page says, line by line, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.home = self.folder = folder
        self.has_ended_it = False  # the pool that it started
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PULPO_POOL")}
        path = f"{Path(sys.executable).parent}:{clean['PATH']}"
        self.environment = clean | {"PATH": path, "PULPO_POOL_HTTP": "127.0.0.1:0"}

    def follow(self, text: str) -> None:
        """Type a block; the pools it starts are left alone until they are idle, then drained."""
        self.folder = self.home
        with ExitStack() as pools:
            for line in filter(str.strip, text.splitlines()):
                if starts_a_pool(line):
                    self.start(line, pools)
                else:
                    self.type(line)

    def type(self, line: str) -> str:
        """Type a line and return what it prints; every `cd` starts from home, in a new terminal."""
        words = shlex.split(line, comments=True)
        if words[0] == "cd":
            (self.folder,) = (self.home / word for word in words[1:])
            return ""
        self.has_ended_it = line.startswith(("pulpo-pool drain", "pulpo-pool stop"))
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str, pools: ExitStack) -> None:
        log = self.folder / "pool.log"
        self.has_ended_it = False
        with log.open("wb") as file:
            pool = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        pools.callback(self.end, pool, log)
        eventually(
            lambda: self.is_idle(log) or pool.poll() is not None, what=f"{line} has done its jobs"
        )

    def is_idle(self, log: Path) -> bool:
        """Tell whether the pool hears signals, and has done all there was."""
        if " starts " not in log.read_text():
            return False
        with queue_in(self.folder) as queue:
            return not any(each.ready or each.reserved for each in queue.stats().values())

    def end(self, pool: subprocess.Popen[bytes], log: Path) -> None:
        if not self.has_ended_it:  # a signal might meet it on its way out of Python
            pool.send_signal(signal.SIGTERM)
        try:
            code = pool.wait(PATIENCE)
        finally:
            pool.kill()
        assert code == 0, log.read_text()
