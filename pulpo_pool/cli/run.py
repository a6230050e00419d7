"""`pulpo-pool run`: a pool in the foreground, until it is told to stop."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulpo_pool.cli.options import examples, run_options
from pulpo_pool.settings import load_settings, read_environment

if TYPE_CHECKING:
    from pulpo_pool.errors import ExitCode
    from pulpo_pool.master.wires import Pipe


@click.command(
    epilog=examples(
        "pulpo-pool -w 8",
        "pulpo-pool -w 8 shop:pulpo",
        "pulpo-pool -w 2 -q mail -q reports --burst shop:pulpo",
    )
)
@run_options
def run(**flags: Any) -> ExitCode:
    """Run a pool of workers for APP, given as MODULE:NAME; without it, the sample handlers.

    \b
    Signals:  TERM, INT  drain: finish what is held, then exit
              QUIT       stop now, as a second INT (Ctrl-C) does; jobs are handed back
              TSTP       quiet: reserve nothing more, stay
              HUP        reload app and settings: one worker first, then a quarter at a time
              TTIN TTOU  one worker more, one less
              USR1       log the status
    \b
    Exit codes:  0 clean   1 jobs were cut off and handed back   2 usage or configuration
                 3 the app does not boot   4 already running, or address in use
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from pulpo_pool.cli.compose import run_pool

    ears: Pipe | None = click.get_current_context().obj
    directory = Path.cwd()
    read = partial(load_settings, flags, directory=directory, environ=read_environment())
    return run_pool(read, directory, ears)
