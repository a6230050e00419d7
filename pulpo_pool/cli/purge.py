"""`pulpo-pool purge`: the jobs in a state are removed, once somebody has said yes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pulpo_pool.cli.chosen import say_done, say_unseen
from pulpo_pool.cli.filters import filter_options, job_filter, limit_option
from pulpo_pool.cli.options import (
    examples,
    json_option,
    opened_queue,
    queue_options,
    state_option,
)
from pulpo_pool.cli.output import counted
from pulpo_pool.cli.removing import REFUSED, Removal

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import JobState, QueueAdapter


@click.command(
    epilog=examples(
        "pulpo-pool purge --state buried -q mail --yes",
        "pulpo-pool purge --state ready --request-type ping --limit 1000",
    )
)
@state_option(required=True)
@filter_options
@limit_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing.")
@json_option
@queue_options
def purge(
    *,
    state: JobState,
    limit: int | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int | None:
    """Remove every job in a state, or those that a filter finds there.

    --limit takes the first of them, as `list` shows them.
    """
    wanted = job_filter(options)
    removal = Removal("removed", yes=yes, dry_run=dry_run, as_json=as_json, limit=limit)
    removal.check_can_ask()
    with opened_queue(options) as queue:
        if dry_run or limit is not None or wanted.looks_inside:
            return removal.of_matching(queue, wanted, state)
        if not yes and not removal.agreed(_question(queue, state, wanted.queues)):
            return REFUSED
        number = queue.purge(state, queues=wanted.queues)
        say_unseen(queue)
    say_done("removed", number, as_json=as_json)
    return None


def _question(queue: QueueAdapter, state: JobState, queues: tuple[str, ...]) -> str:
    stats = queue.stats()
    number = sum(
        getattr(counts, state.value)
        for name, counts in stats.items()
        if not queues or name in queues
    )
    where = f" in {', '.join(queues)}" if queues else ""
    return f"Remove {counted(number, f'{state.value} job')}{where}?"
