"""`pulpo-pool list`: the jobs in a state, in the order they would run."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli.options import (
    examples,
    json_option,
    opened_queue,
    queue_filter,
    queue_options,
    state_option,
)
from pulpo_pool.cli.output import print_json, print_table
from pulpo_pool.queues.adapter import JobState, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pulpo_pool.queues.adapter import JobRecord, QueueAdapter

ON_A_TERMINAL: Final = 50  # jobs shown to people unless they ask for more
_ERROR_WIDTH: Final = 80  # characters
_COLUMNS: Final = ("JOB", "STATE", "QUEUE", "REQUEST TYPE", "ATTEMPTS", "CRASHES", "DUE", "WHY")


@click.command(
    "list",
    epilog=examples(
        "pulpo-pool list --state buried", "pulpo-pool list --state buried --json | jq .error"
    ),
)
@state_option(required=False)
@queue_filter
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most so many jobs.")
@json_option
@queue_options
def list_jobs(
    *,
    state: JobState | None,
    queue: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """List jobs, in the order they would run; a table shows 50 of them unless told otherwise."""
    with opened_queue(flags) as adapter:
        records = _records(adapter, state, queue)
        if as_json:
            for record in islice(records, limit):
                print_json(describe(record))
            _say_unseen(adapter)
            return
        shown = ON_A_TERMINAL if limit is None else limit
        print_table(_COLUMNS, _rows(islice(records, shown)))
        if limit is None and next(records, None) is not None:
            click.echo(f"the first {shown} jobs; --limit N shows more", err=True)
        _say_unseen(adapter)


def _say_unseen(adapter: QueueAdapter) -> None:
    if adapter.unseen:
        click.echo(adapter.unseen, err=True)


def _records(
    adapter: QueueAdapter, state: JobState | None, queues: tuple[str, ...]
) -> Iterator[JobRecord]:
    states = JobState if state is None else (state,)
    return chain.from_iterable(adapter.list_jobs(each, queues=queues) for each in states)


def _rows(records: Iterable[JobRecord]) -> Iterator[list[str]]:
    for record in records:
        job = describe(record)
        why = [job["reason"] or "", (job["error"] or "").strip().rpartition("\n")[2]]
        yield [
            job["job_id"],
            job["state"],
            job["queue"],
            job["request_type"] or "(no message)",
            str(job["attempts"]),
            str(job["crashes"]),
            "" if job["due"] is None else f"{datetime.fromtimestamp(job['due'], UTC):%F %TZ}",
            ": ".join(filter(None, why))[:_ERROR_WIDTH],
        ]
