"""The unit: silent under systemd-analyze, and of one mind with the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from manifests import ROOT
from servers import needed

from pulpo_pool.cli.commands import route
from pulpo_pool.errors import ExitCode
from pulpo_pool.settings import load_settings
from pulpo_pool.settings.doubts import LEAVING

UNIT = ROOT / "deploy" / "systemd" / "pulpo-pool.service"
INSTALLED = "/opt/pulpo-pool/bin/pulpo-pool"


@pytest.fixture(scope="module")
def values():
    """Return the values of each key; a key may come more than once."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def one(values, key):
    [value] = values[key]
    return value


@pytest.fixture
def here(tmp_path):
    """The unit, with a program that is there: systemd-analyze looks."""
    path = tmp_path / UNIT.name
    program = str(Path(sys.executable).with_name("pulpo-pool"))
    path.write_text(UNIT.read_text().replace(INSTALLED, program))
    return path


def analyze(*arguments):
    return subprocess.run(
        [needed("systemd-analyze"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_systemd_has_nothing_to_say(here):
    """It ends with 0 even where it does not know a key, but says so."""
    done = analyze("verify", here)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_would_say_it(here):
    here.write_text(here.read_text().replace("KillMode=", "KilMode="))

    assert "KilMode" in analyze("verify", here).stderr


def test_a_broken_handler_reaches_little(here):
    """What systemd counts, in tenths: 10 would be anything, 0 nothing."""
    done = analyze("security", "--offline=true", "--threshold=20", here)

    assert done.returncode == 0, done.stdout


def test_it_starts_the_program_and_reloads_it_as_it_wants_to_be(values):
    program, *arguments = one(values, "ExecStart").split()

    assert program == INSTALLED
    assert route(arguments) == ["run"]
    assert one(values, "ExecReload").split() == ["/bin/kill", "-HUP", "$MAINPID"]
    assert (one(values, "Type"), one(values, "NotifyAccess")) == ("notify", "main")
    assert one(values, "KillMode") == "mixed"


def test_its_environment_is_settings(values, tmp_path):
    environ = dict(line.split("=", 1) for line in values["Environment"])
    loaded = load_settings({}, directory=tmp_path, environ=environ)

    assert loaded.warnings == ()
    assert loaded.settings.state_dir == f"%S/{one(values, 'StateDirectory')}"


def test_a_drain_has_the_time_it_takes(values):
    """Before the pool has asked for more, and where systemd is too old to give it."""
    default = load_settings({}, directory=Path("/nonexistent"), environ={}).settings

    assert int(one(values, "TimeoutStopSec")) >= default.drain_timeout + LEAVING


def test_a_mistake_in_the_settings_is_not_tried_again(values):
    assert one(values, "RestartPreventExitStatus").split() == [str(int(ExitCode.USAGE))]
    assert one(values, "Restart") == "always"
