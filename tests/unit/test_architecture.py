"""The rooms of the house and who may enter which: imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pulpo_pool

PACKAGE = Path(pulpo_pool.__file__).parent

# What everybody may stand on: it knows nothing of queues, workers or masters.
GROUND = {
    "__init__", "cgroup", "clock", "errors", "forks", "heap", "log", "memory", "signals",
    "states", "suggestions",
}  # fmt: skip
WORDS = GROUND | {"message", "codec", "fingerprint", "outcomes", "setback"}
POOL = GROUND | {"scoreboard", "seat", "service", "settings", "stacks"}

MAY_IMPORT = {
    "queues": WORDS,
    "fingerprint": set(),
    "publishing": WORDS | {"queues"},
    "settings": WORDS | {"queues"},
    "app": WORDS | {"publishing", "queues", "settings"},
    "scoreboard": GROUND,
    "circuits": GROUND | {"scoreboard"},
    "stacks": {"signals", "states"},
    "seat": {"scoreboard", "stacks", "states"},
    "service": POOL,
    "watcher": POOL,
    "master": POOL | {"circuits"},  # never a queue, a handler, a metric or the worker
    "metrics": GROUND | {"outcomes", "queues", "scoreboard"},
    "crashes": {"queues", "scoreboard", "setback", "stacks", "states"},
    "keeper": POOL | WORDS | {"crashes", "metrics", "queues"},
    "web": POOL | {"circuits", "metrics"},
    "worker": POOL | WORDS | {"app", "circuits", "crashes", "metrics", "queues"},
    "testing": WORDS | {"app", "queues", "worker"},
    "contracts": WORDS | {"queues"},
}


def rooms_entered(room: str) -> set[str]:
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else []
    files += (PACKAGE / room).rglob("*.py")
    assert files, f"there is no room called {room}"
    return {name for file in files for name in imported_rooms(file)} - {room}


def imported_rooms(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pulpo_pool"):
            parts = (node.module or "").split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {"__init__"}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            rooms |= {name[1] for name in names if name[0] == "pulpo_pool" and len(name) > 1}
    return rooms


def test_imports_go_one_way():
    """Each room enters only those below it."""
    trespasses = {room: rooms_entered(room) - allowed for room, allowed in MAY_IMPORT.items()}

    assert {room: names for room, names in trespasses.items() if names} == {}


def test_nobody_imports_the_command_line():
    """`cli` composes everything, so nothing may depend on it; `__main__` only calls it."""
    users = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "cli" in imported_rooms(file) and file.relative_to(PACKAGE).parts[0] != "cli"
    }

    assert users <= {"__main__.py"}


def test_only_settings_read_the_environment():
    """One place, so that every setting can say where it came from."""
    readers = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "os.getenv(" in (text := file.read_text())
        or "os.environ.get(" in text
        or "dict(os.environ)" in text
    }

    assert {reader.split("/")[0].removesuffix(".py") for reader in readers} == {"settings"}


def test_a_producer_imports_little():
    """`import pulpo_pool` in a web application must not drag in the pool's machinery."""
    heavy = ["prometheus_client", "rich", "click", "waitress", "psutil", "sqlite3", "greenstalk"]
    script = f"import sys, pulpo_pool; print([name for name in {heavy} if name in sys.modules])"

    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    assert found.strip() == "[]"
