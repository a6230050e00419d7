"""The commands: their table, and how a command line finds the one it means."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli.output import reporting
from pulpo_pool.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from click.shell_completion import CompletionItem

_INFORMATION: Final = ("--help", "-h", "--version", "-V")


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A command as the group's help shows it; it is imported when it is called."""

    path: str  # module:attribute
    help: str


SECTIONS: Final[Mapping[str, Mapping[str, CommandEntry]]] = {
    "Run": {
        "run": CommandEntry("pulpo_pool.cli.run:run", "Run a pool of workers (the default)."),
        "check": CommandEntry(
            "pulpo_pool.cli.check:check", "Check settings and app without running."
        ),
        "doctor": CommandEntry(
            "pulpo_pool.cli.doctor:doctor", "See whether a pool can live here, and what to mend."
        ),
    },
    "Begin": {
        "init": CommandEntry("pulpo_pool.cli.init:init", "Write a starting app, with its tests."),
        "completion": CommandEntry(
            "pulpo_pool.cli.completion:completion", "Print a script for your shell's TAB."
        ),
    },
    "Jobs": {
        "publish": CommandEntry("pulpo_pool.cli.publish:publish", "Publish jobs."),
        "stats": CommandEntry("pulpo_pool.cli.stats:stats", "Count the jobs in each state."),
        "list": CommandEntry("pulpo_pool.cli.list_jobs:list_jobs", "List jobs."),
        "peek": CommandEntry("pulpo_pool.cli.peek:peek", "Show a job without taking it."),
        "explain": CommandEntry(
            "pulpo_pool.cli.explain:explain", "Tell a job's story, and why it is not running."
        ),
        "kick": CommandEntry(
            "pulpo_pool.cli.kick:kick", "Make buried or delayed jobs ready again."
        ),
        "edit": CommandEntry("pulpo_pool.cli.edit:edit", "Change the message of a waiting job."),
        "delete": CommandEntry("pulpo_pool.cli.delete:delete", "Remove jobs."),
        "purge": CommandEntry("pulpo_pool.cli.purge:purge", "Remove every job in a state."),
    },
    "A running pool": {
        "status": CommandEntry(
            "pulpo_pool.cli.control:status", "Show the master, its workers and services."
        ),
        "top": CommandEntry("pulpo_pool.cli.top:top", "Watch the pool live; keys steer it."),
        "dump": CommandEntry(
            "pulpo_pool.cli.dump:dump", "Show where every process is: its stacks."
        ),
        "metrics": CommandEntry(
            "pulpo_pool.cli.metrics:metrics", "Show what the pool exports, or list what it can."
        ),
        "scale": CommandEntry("pulpo_pool.cli.control:scale", "Change the number of workers."),
        "pause": CommandEntry("pulpo_pool.cli.control:pause", "Stop reserving jobs for a while."),
        "resume": CommandEntry("pulpo_pool.cli.control:resume", "Reserve jobs again."),
        "quiet": CommandEntry(
            "pulpo_pool.cli.control:quiet", "Reserve nothing more, and stay until stopped."
        ),
        "drain": CommandEntry("pulpo_pool.cli.control:drain", "Finish what is held, then exit."),
        "stop": CommandEntry("pulpo_pool.cli.control:stop", "Exit now; jobs are handed back."),
        "reload": CommandEntry("pulpo_pool.cli.control:reload", "Run today's code, if it boots."),
        "recycle": CommandEntry(
            "pulpo_pool.cli.control:recycle", "Replace workers once they are idle."
        ),
    },
}

COMMANDS: Final[Mapping[str, CommandEntry]] = {
    name: entry for section in SECTIONS.values() for name, entry in section.items()
}


def route(arguments: Sequence[str]) -> list[str]:
    """Return the command line with its command in front: `run` is what goes without saying.

    Raises click.UsageError for a first word that is neither a command nor an app.
    """
    first = arguments[0] if arguments else ""
    if first in _INFORMATION or first in COMMANDS:
        return list(arguments)
    if not first or first.startswith("-") or ":" in first:
        return ["run", *arguments]
    raise click.UsageError(
        f"no such command {first!r}{did_you_mean(first, COMMANDS)} "
        "(an app is named MODULE:NAME, such as shop:pulpo)"
    )


class PulpoGroup(click.Group):
    """Imports a command when it is called, and reports every expected error in one way.

    What a command returns, if it is a number, is the exit code.
    """

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        """Run the program and exit."""
        extra |= {"prog_name": "pulpo-pool", "standalone_mode": False}
        start = super().main

        def run() -> object:
            return start(route(sys.argv[1:] if args is None else args), **extra)

        sys.exit(reporting(run))

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Route the words before a shell's TAB too; a first word that is none yet is let be."""
        if extra.get("resilient_parsing") and args and args[0] not in COMMANDS:
            args = ["run", *args]
        return super().make_context(info_name, args, parent, **extra)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return commands, and the options of `run`, which goes without saying."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            run = self.get_command(ctx, "run")
            assert run is not None
            options = [
                *click.Command.shell_complete(self, ctx, incomplete),
                *run.shell_complete(click.Context(run, parent=ctx), incomplete),
            ]
            return list({item.value: item for item in options}.values())
        return [
            CompletionItem(name, help=entry.help)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.path.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands from the table, so that help imports none of them."""
        del ctx
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()])
