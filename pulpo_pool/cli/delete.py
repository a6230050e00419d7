"""`pulpo-pool delete`: jobs are removed, by id or by what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pulpo_pool.cli.chosen import choose, say_done, say_what_would_happen
from pulpo_pool.cli.filters import filter_options, job_filter, limit_option
from pulpo_pool.cli.options import examples, json_option, opened_queue, queue_options
from pulpo_pool.cli.output import print_error
from pulpo_pool.cli.removing import Removal
from pulpo_pool.errors import ExitCode, NoSuchJob
from pulpo_pool.queues.adapter import JobState

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import QueueAdapter


@click.command(
    epilog=examples(
        "pulpo-pool delete 17",
        "pulpo-pool delete --request-type ping --limit 10 --yes",
        "pulpo-pool delete --request-type ping --since 1d --dry-run",
    )
)
@click.argument("job_ids", metavar="ID...", nargs=-1)
@filter_options
@limit_option
@click.option("--yes", is_flag=True, help="Do not ask before deleting by a filter.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and change nothing.")
@json_option
@queue_options
def delete(
    *,
    job_ids: tuple[str, ...],
    limit: int | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int | None:
    """Remove jobs by id, in any state or done and kept, or buried ones by what they have in common.

    --limit takes the first of these, as `list` shows them. Ids that do not exist are named, the
    other jobs are removed. `purge` removes what is in other states.
    """
    wanted = job_filter(options)
    if bool(job_ids) == wanted.looks_inside:
        raise click.UsageError("expected either the ids of jobs or filters such as --error")
    if job_ids and wanted.queues:
        raise click.UsageError("--queue goes with a filter; an id needs no queue")
    if job_ids and limit is not None:
        raise click.UsageError("--limit goes with a filter; name fewer ids instead")
    removal = Removal(
        "deleted", yes=yes or bool(job_ids), dry_run=dry_run, as_json=as_json, limit=limit
    )
    removal.check_can_ask()
    with opened_queue(options) as queue:
        if job_ids and not dry_run:
            return _delete_by_id(queue, job_ids, as_json=as_json)
        if job_ids:
            chosen = choose(queue.peek(job_id) for job_id in job_ids)
            say_what_would_happen("deleted", chosen, as_json=as_json)
            return None
        buried = wanted.search(queue, [JobState.BURIED])
        return removal.of_matching(queue, buried, JobState.BURIED.value)


def _delete_by_id(queue: QueueAdapter, job_ids: tuple[str, ...], *, as_json: bool) -> int:
    deleted, exit_code = 0, int(ExitCode.CLEAN)
    for job_id in dict.fromkeys(job_ids):
        try:
            queue.delete(job_id)
            deleted += 1
        except NoSuchJob as error:
            print_error(str(error))
            exit_code = NoSuchJob.exit_code
    say_done("deleted", deleted, as_json=as_json)
    return exit_code
