"""What the commands print: JSON, tables, counts, and errors with their exit codes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from pulpo_pool.errors import AppImportError, ConfigError, ExitCode, PulpoPoolError
from pulpo_pool.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

INTERRUPTED: Final = 130  # what a shell reports for Ctrl-C
_FAILED: Final = 1
_NO_TERMINAL: Final = 10_000  # columns: what is piped on is never cut


def print_json(value: object) -> None:
    """Print one JSON object on a line of its own."""
    click.echo(msgspec.json.encode(value, enc_hook=repr))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows for people: in columns, without frames, so that a pipe can use them too."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(width=None if on_terminal else _NO_TERMINAL, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(value))) for value in row))
    console.print(table)


def printable(text: str) -> str:
    """Return text that cannot command a terminal: control characters are written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def counted(number: int, noun: str = "job") -> str:
    """Return "1 job" or "2,000 jobs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_error(text: str) -> None:
    """Print a line for people on stderr, where a log or a script expects it."""
    click.echo(f"pulpo-pool: {text}", err=True)


def reporting(run: Callable[[], object]) -> int:
    """Call `run`, print the errors that are expected, and return the program's exit code.

    Other exceptions are ours to mend, and keep their traceback.
    """
    try:
        answer = run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except PulpoPoolError as error:
        _report(error)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        print_error(_usage_text(error))
        return error.exit_code
    except BrokenPipeError:
        # The reader has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print_error(f"{place}{error.strerror or error}")
        return _FAILED
    return answer if isinstance(answer, int) else ExitCode.CLEAN


def _report(error: PulpoPoolError) -> None:
    if isinstance(error, AppImportError):
        click.echo(error.app_traceback(), err=True, nl=False)
    problems = error.problems if isinstance(error, ConfigError) else []
    if len(problems) > 1:
        lines = "".join(f"\n  {line}" for line in problems)
        print_error(f"{len(problems)} mistakes in the configuration:{lines}")
    else:
        print_error(str(error))


def _usage_text(error: click.ClickException) -> str:
    context: click.Context | None = getattr(error, "ctx", None)
    text = error.format_message()
    if isinstance(error, click.NoSuchOption):
        text = f"no such option {error.option_name!r}{_near_option(error.option_name, context)}"
    if not isinstance(error, click.UsageError):
        return text
    path = context.command_path if context else "pulpo-pool"
    return f"{text}\nTry '{path} --help'."


def _near_option(name: str, context: click.Context | None) -> str:
    parameters: list[Any] = context.command.get_params(context) if context else []
    known = [option for each in parameters for option in [*each.opts, *each.secondary_opts]]
    return did_you_mean(name, [option for option in known if option.startswith("--")])
