"""`pulpo-pool delete`: jobs are removed, by id."""

from __future__ import annotations

from typing import Any

import click

from pulpo_pool.cli.options import examples, opened_queue, queue_options
from pulpo_pool.cli.output import counted, print_error
from pulpo_pool.errors import ExitCode, NoSuchJob


@click.command(epilog=examples("pulpo-pool delete 17"))
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@queue_options
def delete(*, job_ids: tuple[str, ...], **flags: Any) -> int:
    """Remove jobs in any state. Those that do not exist are named, the others are removed."""
    deleted = 0
    with opened_queue(flags) as adapter:
        for job_id in dict.fromkeys(job_ids):
            try:
                adapter.delete(job_id)
                deleted += 1
            except NoSuchJob as error:
                print_error(str(error))
    click.echo(f"deleted {counted(deleted)}")
    return ExitCode.CLEAN if deleted == len(set(job_ids)) else NoSuchJob.exit_code
