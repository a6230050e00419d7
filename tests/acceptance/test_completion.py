"""A shell's TAB: commands, options and values, in each shell that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from pool import publish

from pulpo_pool.cli.commands import COMMANDS
from pulpo_pool.cli.completion import SHELLS, VARIABLE
from pulpo_pool.cli.main import cli

MAIL = [{"to": "a@example.org"}]


pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def tab():
    """Press TAB after a line; the last word is the one that is begun."""

    def tab(line):
        *words, begun = line.split(" ")
        shell = ShellComplete(cli, {}, "pulpo-pool", VARIABLE)
        return [item.value for item in shell.get_completions(words[1:], begun)]

    return tab


def typed_in(shell, script):
    """Run a script in a real shell that has read what `completion` prints; return what it says."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [program, *quiet, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": path, "HOME": str(Path.cwd())},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class TestWords:
    def test_the_first_word_is_a_command(self, tab):
        assert tab("pulpo-pool ") == list(COMMANDS)
        assert tab("pulpo-pool st") == ["stats", "status", "stop"]

    def test_or_an_option_since_run_goes_without_saying(self, tab):
        assert tab("pulpo-pool --vers") == ["--version"]
        assert tab("pulpo-pool --log") == ["--log-level", "--log-format"]
        assert tab("pulpo-pool --h") == ["--help", "--http"]

    @pytest.mark.parametrize("before", ["-w 8", "run -w 8", "shop:pulpo", "shop : pulpo"])
    def test_a_pool_without_its_command_has_the_options_of_run(self, tab, before):
        """The colon is a word of its own in bash."""
        assert tab(f"pulpo-pool {before} --max-mem") == ["--max-memory", "--max-memory-hard"]

    def test_a_command_has_options_of_its_own(self, tab):
        assert tab("pulpo-pool kick --a") == ["--all"]

    @pytest.mark.parametrize("line", ["pulpo-pool --state-dir", "pulpo-pool stats --state-dir"])
    def test_where_a_path_is_expected_the_shell_is_asked_for_folders(self, line):
        shell = ShellComplete(cli, {}, "pulpo-pool", VARIABLE)
        (item,) = shell.get_completions(line.split()[1:], "so")

        assert (item.type, item.value) == ("dir", "so")

    def test_files(self):
        shell = ShellComplete(cli, {}, "pulpo-pool", VARIABLE)
        types = [
            item.type
            for words in (["--pidfile"], ["-c"], ["publish", "--from-file"])
            for item in shell.get_completions(words, "")
        ]

        assert types == ["file", "file", "file"]


class TestValues:
    def test_states_and_choices(self, tab):
        assert tab("pulpo-pool list --state ") == ["ready", "delayed", "reserved", "buried"]
        assert tab("pulpo-pool --log-format t") == ["text"]
        assert tab("pulpo-pool --workers ") == ["auto"]
        assert tab("pulpo-pool completion ") == list(SHELLS)

    @pytest.mark.parametrize("command", ["", "list ", "publish "])
    def test_queues_are_those_that_are_configured_and_those_with_jobs(self, tab, folder, command):
        (folder / "pulpo-pool.toml").write_text('queues = ["default", "reports"]')
        publish(folder, "send", MAIL, queue="mail")

        assert tab(f"pulpo-pool {command}-q ") == ["default", "mail", "reports"]
        assert tab(f"pulpo-pool {command}--queue re") == ["reports"]

    def test_a_tab_makes_no_queue(self, tab, folder):
        assert tab("pulpo-pool list -q ") == ["default"]
        assert list(folder.iterdir()) == []

    def test_a_tab_says_nothing_of_mistakes(self, tab, folder):
        (folder / "pulpo-pool.toml").write_text("workers = many")
        publish(folder, "send", MAIL)

        assert tab("pulpo-pool list -q ") == []


class TestShells:
    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_script_for_each(self, shell):
        result = CliRunner().invoke(cli, ["completion", shell])

        assert result.exit_code == 0
        assert f"{VARIABLE}={shell}_complete" in result.stdout

    def test_another_shell(self):
        result = CliRunner().invoke(cli, ["completion", "tcsh"])

        assert result.exit_code == 2
        assert "'bash', 'zsh', 'fish'" in result.stderr

    def test_bash(self):
        script = """
            source <(pulpo-pool completion bash)
            complete -p pulpo-pool
            for line in "pulpo-pool sta" "pulpo-pool list --state b" "pulpo-pool shop : pulpo --bu"
            do
                COMP_WORDS=($line) COMPREPLY=()
                COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
                _pulpo_pool_completion pulpo-pool
                echo "${COMPREPLY[@]}"
            done
        """

        assert typed_in("bash", script) == [
            "complete -o nosort -F _pulpo_pool_completion pulpo-pool",
            "stats status",
            "buried",
            "--burst",
        ]

    def test_zsh(self):
        script = """
            autoload -U compinit && compinit -u
            source <(pulpo-pool completion zsh)
            echo $_comps[pulpo-pool]
            compadd() { echo $completions }
            _describe() { echo $completions_with_descriptions }
            words=(pulpo-pool sta) CURRENT=2 _pulpo_pool_completion
            words=(pulpo-pool list --state b) CURRENT=4 _pulpo_pool_completion
        """
        binding, *said = typed_in("zsh", script)

        assert binding == "_pulpo_pool_completion"
        assert said == [
            "stats:Count the jobs in each state. status:Show the master, its workers and services.",
            "buried",
        ]

    def test_fish(self):
        script = """
            pulpo-pool completion fish | source
            complete -C "pulpo-pool sta"
            complete -C "pulpo-pool list --state b"
        """

        found = [line.partition("\t")[0] for line in typed_in("fish", script)]

        assert found == ["stats", "status", "buried"]
