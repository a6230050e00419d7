"""`pulpo-pool purge`: every job in a state is removed, once somebody has said yes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pulpo_pool.cli.options import examples, opened_queue, queue_filter, queue_options, state_option
from pulpo_pool.cli.output import counted, print_error

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import JobState, QueueAdapter

_REFUSED = 1


@click.command(epilog=examples("pulpo-pool purge --state buried -q mail --yes"))
@state_option(required=True)
@queue_filter
@click.option("--yes", is_flag=True, help="Do not ask.")
@queue_options
def purge(*, state: JobState, queue: tuple[str, ...], yes: bool, **flags: Any) -> int | None:
    """Remove every job in a state."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; --yes removes the jobs")
    with opened_queue(flags) as adapter:
        if not yes and not _confirmed(adapter, state, queue):
            print_error("nothing was removed")
            return _REFUSED
        number = adapter.purge(state, queues=queue)
        if adapter.unseen:
            click.echo(adapter.unseen, err=True)
    click.echo(f"removed {counted(number)}")
    return None


def _confirmed(adapter: QueueAdapter, state: JobState, queues: tuple[str, ...]) -> bool:
    stats = adapter.stats()
    number = sum(
        getattr(counts, state.value)
        for name, counts in stats.items()
        if not queues or name in queues
    )
    where = f" in {', '.join(queues)}" if queues else ""
    return click.confirm(f"Remove {counted(number, f'{state.value} job')}{where}?", err=True)
