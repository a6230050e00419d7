"""`pulpo-pool purge`: the jobs in a state are removed, once somebody has said yes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pulpo_pool.cli.chosen import say_done, say_unseen
from pulpo_pool.cli.filters import done_option, filter_options, job_filter, limit_option
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
        "pulpo-pool purge --done --yes",
    )
)
@state_option(required=False)
@done_option
@filter_options
@limit_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing.")
@json_option
@queue_options
def purge(
    *,
    state: JobState | None,
    done: bool,
    limit: int | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int | None:
    """Remove every job in a state, or those done and kept, or what a filter finds among these.

    --limit takes the first of them, as `list` shows them.
    """
    wanted = job_filter(options)
    if done == (state is not None):
        raise click.UsageError("expected --state, or --done for jobs that are in none any more")
    removal = Removal("removed", yes=yes, dry_run=dry_run, as_json=as_json, limit=limit)
    removal.check_can_ask()
    with opened_queue(options) as queue:
        few = dry_run or limit is not None or wanted.looks_inside
        if state is None and (few or wanted.queues):
            return removal.of_matching(queue, wanted.search_done(queue), "done")
        if state is not None and few:
            return removal.of_matching(queue, wanted.search(queue, [state]), state.value)
        if not yes and not removal.agreed(_question(queue, state, wanted.queues)):
            return REFUSED
        number = queue.purge(state, queues=wanted.queues) if state else queue.purge_done()
        say_unseen(queue)
    say_done("removed", number, as_json=as_json)
    return None


def _question(queue: QueueAdapter, state: JobState | None, queues: tuple[str, ...]) -> str:
    if state is None:
        return "Forget every job that is done and kept?"
    stats = queue.stats()
    number = sum(
        getattr(counts, state.value)
        for name, counts in stats.items()
        if not queues or name in queues
    )
    where = f" in {', '.join(queues)}" if queues else ""
    return f"Remove {counted(number, f'{state.value} job')}{where}?"
