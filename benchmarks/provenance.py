"""Where a result comes from: when, which commit, which machine, which versions."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.contenders.beanstalkd import found
from benchmarks.contenders.environment import REQUIREMENTS

ROOT = Path(__file__).parents[1]
OURS = ("pulpo-pool", "greenstalk")
SERVERS = {"beanstalkd": "-v", "redis-server": "--version"}  # the option that prints the version
PEERS = ("celery", "dramatiq", "huey", "rq")
GIBIBYTE = 1 << 30


def provenance() -> dict[str, object]:
    """Return what to keep beside the runs."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {_memory()} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": os.getloadavg(),
        "versions": _versions(),
    }


def _commit() -> str:
    """Return the commit, with a plus if the program or the benchmarks differ from it."""
    said = _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _said(
        "git", "-C", str(ROOT), "status", "--porcelain", "pulpo_pool", "benchmarks/*.py"
    )
    return (said or "unknown") + ("+" if changed else "")


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    text = told.read_text() if told.exists() else ""
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return named[1] if named else platform.machine()


def _memory() -> int:
    return round(psutil.virtual_memory().total / GIBIBYTE)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    versions |= {name: version(name) for name in OURS}
    for name, option in SERVERS.items():
        program = found(name)
        number = re.search(r"\d+(\.\d+)+", _said(program, option)) if program else None
        if number:
            versions[name] = number[0]
    pinned = dict(re.findall(r"^(\w+)(?:\[\w+\])?==(\S+)$", REQUIREMENTS.read_text(), re.MULTILINE))
    return versions | {name: pinned[name] for name in PEERS if name in pinned}
