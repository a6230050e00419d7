"""A starting app, as text: which files it has, what is in each, and what to type next."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from pulpo_pool import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

APP: Final = "app"
SETTINGS_FILE: Final = "pulpo-pool.toml"

# Where each template goes; a folder that has settings has an app already.
_FILES: Final[Mapping[str, Mapping[str, str]]] = {
    APP: {
        "jobs.py": "jobs.py",
        "test_jobs.py": "test_jobs.py",
        SETTINGS_FILE: SETTINGS_FILE,
    },
    "procfile": {"Procfile": "Procfile"},
    "systemd": {"deploy/$name.service": "unit.service"},
    "docker": {
        "Dockerfile": "Dockerfile",
        ".dockerignore": "dockerignore",
        "requirements.txt": "requirements.txt",
    },
    "kubernetes": {"deploy/kubernetes.yaml": "kubernetes.yaml"},
}
EXTRAS: Final = tuple(part for part in _FILES if part != APP)

# What to type, with a remark; a tool that is not there is installed first.
_TRY: Final = (
    ("$python -m pytest", "try the jobs, without a pool"),
    ("$python jobs.py", "publish two of them"),
    ("$pulpo check", "see the settings, and what the app can do"),
    ("$pulpo", "run the pool; Ctrl-C ends it"),
)
_MEANWHILE: Final = (
    ("$pulpo status", "who does what"),
    ("$pulpo reload", "run today's code"),
    ("$pulpo drain", "finish, and stop"),
)
_DEPLOY: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "procfile": (("honcho start", "run what the Procfile says"),),
    "systemd": (
        ("sudo cp deploy/$name.service /etc/systemd/system/", ""),
        ("sudo systemctl enable --now $name", "run it as a service"),
    ),
    "docker": (
        ("docker build --tag $name .", ""),
        ("docker run --rm --volume $name:/var/lib/pulpo-pool $name", "run it in a container"),
    ),
    "kubernetes": (("kubectl apply --filename deploy/kubernetes.yaml", "run it in a cluster"),),
}

_LONGEST_NAME: Final = 40  # characters; a Kubernetes label has 63, and pods get a suffix


@dataclass(frozen=True, slots=True)
class Draft:
    """A file to be: its path in the folder, and its text."""

    path: str
    text: str


class Scaffold:
    """What a folder is to get, and who is there already."""

    def __init__(self, folder: Path, extras: Collection[str]) -> None:
        """`extras` are names of EXTRAS; with some, a folder that has an app gets only these."""
        self.folder = folder
        self.has_app = os.path.lexists(folder / SETTINGS_FILE)
        parts = [*([] if extras and self.has_app else [APP]), *extras]
        words = _words(folder)
        self.drafts = [
            Draft(filled(path, words), filled(template(name), words))
            for part in parts
            for path, name in _FILES[part].items()
        ]
        self._parts = parts
        self._spoken = words

    def in_the_way(self) -> list[Path]:
        """Return what is there already, or is a file where a folder has to be."""
        taken = dict.fromkeys(
            path for draft in self.drafts for path in self._on_the_way_to(self.folder / draft.path)
        )
        return list(taken)

    def _on_the_way_to(self, place: Path) -> Iterator[Path]:
        if os.path.lexists(place):
            yield place
        for above in place.parents:
            if above.exists() or above.is_symlink():
                if not above.is_dir():
                    yield above
                return

    def write(self) -> None:
        """Write all files. A file that appears meanwhile is kept: raises FileExistsError."""
        for draft in self.drafts:
            place = self.folder / draft.path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("x", encoding="utf-8") as file:
                file.write(draft.text)

    def next_commands(self) -> dict[str, list[str]]:
        """Return what to type next, a line each with a remark, under a title for each terminal."""
        deploy = [line for part in self._parts for line in _DEPLOY.get(part, ())]
        steps = {"Or, deployed": _with_honcho(deploy)}
        if APP in self._parts:
            steps = {"Next": _with_pytest(_TRY), "While it runs, elsewhere": _MEANWHILE} | steps
        return {
            title: [*self._way_there(), *self._lines(commands)]
            for title, commands in steps.items()
            if commands
        }

    def _way_there(self) -> list[str]:
        """Each block may be typed in a terminal of its own, where the first command was."""
        here = self.folder.resolve() == Path.cwd()
        return [] if here else [f"cd {shlex.quote(str(self.folder))}"]

    def _lines(self, commands: Sequence[tuple[str, str]]) -> Iterator[str]:
        lines = [(filled(command, self._spoken), remark) for command, remark in commands]
        width = max(len(command) for command, _ in lines)
        for command, remark in lines:
            yield f"{command:<{width}}  # {remark}" if remark else command


def _with_pytest(commands: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    there = find_spec("pytest") is not None
    return commands if there else [("$python -m pip install pytest", ""), *commands]


def _with_honcho(commands: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    wanted = any(command.startswith("honcho ") for command, _ in commands)
    there = not wanted or shutil.which("honcho") is not None
    return commands if there else [("$python -m pip install honcho", ""), *commands]


def _words(folder: Path) -> dict[str, str]:
    """Return what templates may name."""
    own = _own_program()
    return {
        "name": _deployment_name(folder.resolve().name),
        "version": __version__,
        "folder": str(folder.resolve()).replace("%", "%%"),  # as systemd.unit(5) reads it
        "program": own.replace("%", "%%"),
        "pulpo": "pulpo-pool" if shutil.which("pulpo-pool") else own,
        "python": _python(),
    }


def _own_program() -> str:
    """Return what starts this very program from any folder."""
    script = Path(sys.executable).with_name("pulpo-pool")
    words = [str(script)] if script.exists() else [sys.executable, "-m", "pulpo_pool"]
    return shlex.join(words)


def _python() -> str:
    """Return the Python that has pulpo-pool: what a shell calls python may be another."""
    found = shutil.which("python")
    same = found is not None and Path(found).parent == Path(sys.executable).parent
    return "python" if same else shlex.quote(sys.executable)


def _deployment_name(text: str) -> str:
    """Return a name for units, images and pods: letters, digits and dashes."""
    sound = re.sub(r"[^a-z0-9]+", "-", text.lower())[:_LONGEST_NAME].strip("-")
    return sound or "app"


def template(name: str) -> str:
    """Return the text of a file to be, with the places for names."""
    return (files("pulpo_pool.cli") / "templates" / f"{name}.template").read_text("utf-8")


def filled(text: str, words: Mapping[str, str]) -> str:
    """Return a text with its names in place."""
    return Template(text).substitute(words)
