"""The program `pulpo-pool`: the group of commands."""

from __future__ import annotations

import click

from pulpo_pool import __version__
from pulpo_pool.cli.commands import PulpoGroup
from pulpo_pool.cli.options import CONTEXT, examples


@click.group(
    cls=PulpoGroup,
    context_settings=CONTEXT,
    subcommand_metavar="[COMMAND] [ARGS]...",
    epilog=examples("pulpo-pool -w 8 shop:pulpo", "pulpo-pool publish echo --payload hello"),
)
@click.version_option(__version__, "-V", "--version", message="pulpo-pool %(version)s")
def cli() -> None:
    """Keep worker processes alive that take jobs from a queue and run handlers.

    Without a command it runs a pool: `pulpo-pool -w 8` is `pulpo-pool run -w 8`, and
    `pulpo-pool run --help` tells what can be set.
    """
