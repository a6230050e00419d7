"""The command line explains itself: help with examples, and an answer to every mistyped word."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from pulpo_pool import __version__
from pulpo_pool.cli.commands import COMMANDS, SECTIONS, route
from pulpo_pool.cli.main import cli
from pulpo_pool.suggestions import did_you_mean, nearest

BEGINNING = SECTIONS["Begin"]  # there are no settings yet


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(cli, list(arguments))

    return call


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_commands_help_ends_with_an_example(self, call, name):
        result = call(name, "--help")

        *_, example = result.stdout.rstrip().splitlines()
        assert result.exit_code == 0
        assert "Example" in result.stdout
        assert example.strip().startswith("pulpo-pool ")

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_option_is_explained(self, call, name):
        context = click.Context(cli)
        command = cli.get_command(context, name)

        bare = [
            each.name for each in command.params if isinstance(each, click.Option) and not each.help
        ]

        assert bare == []

    def test_the_programs_help_names_every_command(self, call):
        result = call("--help")

        shown = {line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")}
        assert result.exit_code == 0
        assert set(COMMANDS) <= shown

    def test_the_programs_help_imports_no_command(self):
        program = (
            "import sys; from pulpo_pool.cli.main import cli\n"
            "try: cli.main(['--help'])\n"
            "except SystemExit: pass\n"
            "print(*sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        loaded = set(done.stdout.splitlines()[-1].split())
        heavy = {entry.path.partition(":")[0] for entry in COMMANDS.values()} | {
            *("asyncio", "greenstalk", "prometheus_client", "psutil", "rich", "sqlite3"),
            *("subprocess", "tenacity", "waitress"),
        }
        assert loaded & heavy == set()

    @pytest.mark.parametrize("option", ["--version", "-V"])
    def test_version(self, call, option):
        assert call(option).stdout == f"pulpo-pool {__version__}\n"


class TestRouting:
    @pytest.mark.parametrize(
        ("arguments", "routed"),
        [
            ([], ["run"]),
            (["-w", "8"], ["run", "-w", "8"]),
            (["shop:pulpo", "-w", "8"], ["run", "shop:pulpo", "-w", "8"]),
            (["--burst"], ["run", "--burst"]),
            (["run", "-w", "8"], ["run", "-w", "8"]),
            (["stats", "--json"], ["stats", "--json"]),
            (["--help"], ["--help"]),
            (["-V"], ["-V"]),
        ],
    )
    def test_run_goes_without_saying(self, arguments, routed):
        assert route(arguments) == routed

    @pytest.mark.parametrize(
        ("word", "meant"), [("stauts", "status"), ("publsh", "publish"), ("kik", "kick")]
    )
    def test_a_mistyped_command(self, call, word, meant):
        result = call(word)

        assert result.exit_code == 2
        assert f"no such command {word!r}; did you mean {meant!r}?" in result.stderr

    def test_a_word_like_no_command(self, call):
        result = call("xyzzy")

        assert result.exit_code == 2
        assert result.stderr.startswith("pulpo-pool: no such command 'xyzzy' (an app is named")

    def test_a_command_after_options_is_told_to_come_first(self, call):
        result = call("-w", "8", "stats")

        assert result.exit_code == 2
        assert "a command comes first: pulpo-pool stats" in result.stderr


class TestMistypedWords:
    @pytest.mark.parametrize("name", [name for name in COMMANDS if name not in BEGINNING])
    def test_an_option_of_every_command(self, call, name):
        result = call(name, "--stat-dir", "x")

        assert result.exit_code == 2
        assert "no such option '--stat-dir'; did you mean '--state-dir'?" in result.stderr
        assert f"Try 'pulpo-pool {name} --help'." in result.stderr

    @pytest.mark.parametrize("name", ["list", "purge"])
    def test_a_state(self, call, name):
        result = call(name, "--state", "burried")

        assert result.exit_code == 2
        assert "got 'burried'; did you mean 'buried'?" in result.stderr

    @pytest.mark.parametrize("name", ["stats", "check"])
    def test_a_setting_in_a_file(self, call, tmp_path, name):
        (tmp_path / "pulpo-pool.toml").write_text("workrs = 3")

        result = call(name)

        assert result.exit_code == 2
        assert result.stderr == (
            "pulpo-pool: pulpo-pool.toml: workrs: no such setting; did you mean 'workers'?\n"
        )

    @pytest.mark.parametrize("name", SECTIONS["A running pool"])
    def test_a_setting_that_a_running_pool_is_not_found_by_keeps_from_nothing(
        self, call, tmp_path, name
    ):
        """A pool can be looked at and stopped while somebody mends its settings."""
        (tmp_path / "pulpo-pool.toml").write_text('workrs = 3\nlease = 0\nname = "mine"')

        result = call(name, *(["1"] if name == "scale" else []))

        assert result.exit_code == 1
        assert result.stderr.startswith("pulpo-pool: no pool named 'mine' runs from .pulpo")

    def test_several_mistakes_are_listed(self, call, tmp_path):
        (tmp_path / "pulpo-pool.toml").write_text("workrs = 3\nlease = 0")

        result = call("stats")

        assert result.stderr.splitlines()[0] == "pulpo-pool: 2 mistakes in the configuration:"
        assert len(result.stderr.splitlines()) == 3

    def test_a_scheme(self, call):
        result = call("stats", "--broker", "fiel:queue.db")

        assert result.exit_code == 2
        assert "did you mean 'file'?" in result.stderr


class TestSuggestions:
    def test_the_same_letters_go_before_likeness(self):
        assert nearest("stauts", ["stats", "status"]) == "status"

    def test_case_makes_no_difference(self):
        assert did_you_mean("echo", ["Echo"]) == "; did you mean 'Echo'?"

    def test_nothing_is_said_where_nothing_is_near(self):
        assert did_you_mean("xyzzy", ["stats"]) == ""
