"""What tests of the command line share: a place without settings, and ways to call the program."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from pulpo_pool.cli.main import cli

HINTS = {"WEB_CONCURRENCY", "PORT", "PS", "DYNO", "HONCHO_PROCESS_NAME", "EDITOR", "VISUAL"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, without settings, hints or an editor in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("PULPO_POOL_") or name in HINTS:
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def call():
    """Call the program in this process; return exit code, stdout and stderr."""

    def call(*arguments, stdin=None):
        return CliRunner().invoke(cli, list(arguments), input=stdin)

    return call


@pytest.fixture
def lines(call):
    """Call the program with --json; return the objects it printed."""

    def lines(*arguments, stdin=None):
        result = call(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return lines
