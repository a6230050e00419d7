"""The tables of signals, exit codes and settings in README, made from the program itself.

`python -m pulpo_pool.cli.reference README.md` writes them anew, between the marks that name them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pulpo_pool.errors import ExitCode
from pulpo_pool.master.commands import COMMAND_FOR_SIGNAL, Command
from pulpo_pool.settings import SETTING_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pulpo_pool.settings.fields import SettingField

_MEANINGS: Final[Mapping[Command, str]] = {
    Command.DRAIN: (
        "finish what is held, then exit; repeated `TERM` changes nothing. After `drain-timeout` "
        "the rest is cut off and handed back"
    ),
    Command.STOP: (
        "stop now, as a second `INT` does: jobs get two seconds, the rest is handed back"
    ),
    Command.QUIET: "reserve nothing more, stay",
    Command.RELOAD: (
        "run today's code and settings: one worker first, then a quarter at a time; an app that "
        "does not boot any more, or a mistake in the settings, leaves the old generation at work"
    ),
    Command.RECYCLE: "replace one worker, or all of them a quarter at a time",
    Command.SCALE: "one worker more, one less; the command takes a number too",
    Command.STATUS: "log the status; the command prints it",
    Command.PAUSE: "reserve nothing for a while",
    Command.RESUME: "reserve again",
    Command.DUMP: "show where every process is: its stacks, also of one stuck in C code",
}

_OUTCOMES: Final[Mapping[ExitCode, str]] = {
    ExitCode.CLEAN: "clean",
    ExitCode.JOBS_CUT_OFF: (
        "jobs were cut off at the drain timeout, and are back in the queue; of any other command: "
        "it failed"
    ),
    ExitCode.USAGE: (
        "usage or configuration; every mistake is named, with what may have been meant"
    ),
    ExitCode.APP_DOES_NOT_BOOT: "the app does not boot: its traceback is printed",
    ExitCode.ALREADY_RUNNING: "a pool of this name is running, or the address is in use",
}


def signals() -> str:
    """Return the table of what a running pool can be told, by signal or by command."""
    rows = []
    for command, meaning in _MEANINGS.items():
        heard = [
            (number.name.removeprefix("SIG"), argument)
            for number, (asked, argument) in COMMAND_FOR_SIGNAL.items()
            if asked is command
        ]
        spoken = [f"{command} {argument}".strip() for _, argument in heard] or [command]
        rows.append((_code(name for name, _ in heard), _code(dict.fromkeys(spoken)), meaning))
    return _table(("signal", "command", "meaning"), rows)


def exit_codes() -> str:
    """Return the table of exit codes."""
    return _table(("exit code", "meaning"), [(str(int(c)), text) for c, text in _OUTCOMES.items()])


def settings() -> str:
    """Return the table of settings."""
    rows = [_setting(field) for field in SETTING_FIELDS.values()]
    return _table(("setting", "default", "meaning"), rows)


def _setting(field: SettingField) -> tuple[str, str, str]:
    names = [field.key]
    if field.flag not in (f"--{field.key}", "APP"):
        names.append(field.flag)
    names += [field.short] if field.short else []
    meaning = field.description.removesuffix(".")
    if field.choices:
        meaning += ": " + _code(field.choices)
    return _code(names), _default(field), meaning


def _default(field: SettingField) -> str:
    match field.default:
        case None:
            return "`auto`" if field.auto else ""
        case bool() as switch:
            return f"`{str(switch).lower()}`"
        case tuple() as names:
            return _code(names)
        case float() as number:
            return f"`{number:g}`"
        case "" | {}:
            return ""
        case value:
            return f"`{value}`"


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "signals": signals,
    "exit codes": exit_codes,
    "settings": settings,
}

_MARKED: Final = re.compile(
    rf"(<!-- generated: ({'|'.join(TABLES)}) -->).*?(<!-- end: \2 -->)", re.DOTALL
)


def refreshed(text: str) -> str:
    """Return a page with every marked table as it is today."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
