"""`pulpo-pool kick`: buried and delayed jobs are ready again, with a fresh count."""

from __future__ import annotations

from typing import Any

import click

from pulpo_pool.cli.options import examples, opened_queue, queue_filter, queue_options
from pulpo_pool.cli.output import counted


@click.command(epilog=examples("pulpo-pool kick 17 18", "pulpo-pool kick --all -q mail"))
@click.argument("job_ids", metavar="ID...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every buried job.")
@queue_filter
@queue_options
def kick(*, job_ids: tuple[str, ...], every: bool, queue: tuple[str, ...], **flags: Any) -> None:
    """Make buried or delayed jobs ready again, with a fresh count of attempts and crashes."""
    if every == bool(job_ids):
        raise click.UsageError("expected either the ids of jobs or --all")
    if queue and not every:
        raise click.UsageError("--queue goes with --all; an id needs no queue")
    with opened_queue(flags) as adapter:
        number = adapter.kick_all(queues=queue) if every else adapter.kick(job_ids)
    click.echo(f"kicked {counted(number)}")
