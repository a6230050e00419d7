"""`pulpo-pool list`: the jobs in a state, in the order they would run, or by what went wrong."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli.chosen import NO_MESSAGE, say_unseen
from pulpo_pool.cli.filters import done_option, filter_options, job_filter, limit_option
from pulpo_pool.cli.moments import date
from pulpo_pool.cli.options import examples, json_option, opened_queue, queue_options, state_option
from pulpo_pool.cli.output import print_json, print_table
from pulpo_pool.fingerprint import headline
from pulpo_pool.queues.adapter import JobState
from pulpo_pool.queues.letters import group_by_error, last_setback
from pulpo_pool.queues.records import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pulpo_pool.queues.adapter import JobRecord
    from pulpo_pool.queues.letters import ErrorGroup

ON_A_TERMINAL: Final = 50  # jobs or groups shown to people unless they ask for more
_ERROR_WIDTH: Final = 80  # characters
_MOST_TYPES: Final = 3  # named in a row of the table
_FIRST_COLUMNS: Final = ("JOB", "STATE", "QUEUE", "REQUEST TYPE", "ATTEMPTS")
_COLUMNS: Final = (*_FIRST_COLUMNS, "CRASHES", "DUE", "WHY")
_DONE_COLUMNS: Final = (*_FIRST_COLUMNS, "ENDED", "SECONDS")
_GROUP_COLUMNS: Final = (
    "FINGERPRINT", "REQUEST TYPES", "COUNT", "FIRST", "LAST", "EXAMPLE", "ERROR",
)  # fmt: skip


@click.command(
    "list",
    epilog=examples(
        "pulpo-pool list --state buried --group",
        "pulpo-pool list --state buried --request-type send_email --since 2h --error refused",
        "pulpo-pool list --state buried --json | jq .error",
        "pulpo-pool list --done --since 1h",
    ),
)
@state_option(required=False)
@done_option
@filter_options
@click.option(
    "--group",
    is_flag=True,
    help="Show what failed alike as one: by type, message and place of the last error, whatever "
    "numbers, ids and quoted values it mentions; of a crash by how the worker ended.",
)
@limit_option
@json_option
@queue_options
def list_jobs(
    *,
    state: JobState | None,
    done: bool,
    group: bool,
    limit: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """List jobs, in the order they would run; a table shows 50 of them unless told otherwise."""
    wanted = job_filter(options)
    if done and state is not None:
        raise click.UsageError("--done goes without --state: such a job is in none any more")
    with opened_queue(options) as queue:
        states = JobState if state is None else [state]
        records = wanted.search_done(queue) if done else wanted.search(queue, states)
        if group:
            _print_groups(group_by_error(records), limit, as_json=as_json)
        else:
            _print_jobs(records, limit, done=done, as_json=as_json)
        say_unseen(queue)


def _print_jobs(
    records: Iterator[JobRecord], limit: int | None, *, done: bool, as_json: bool
) -> None:
    if as_json:
        for record in islice(records, limit):
            print_json(describe(record))
        return
    shown = ON_A_TERMINAL if limit is None else limit
    first = islice(records, shown)
    if done:
        print_table(_DONE_COLUMNS, map(_done_row, first))
    else:
        print_table(_COLUMNS, _rows(first))
    if limit is None and next(records, None) is not None:
        click.echo(f"the first {shown} jobs; --limit N shows more", err=True)


def _rows(records: Iterable[JobRecord]) -> Iterator[list[str]]:
    for record in records:
        job = describe(record)
        setback = last_setback(record)
        why = [setback.reason, headline(setback.error)]
        yield [
            *_first_cells(job),
            str(job["crashes"]),
            _date(job["due"]),
            ": ".join(filter(None, why))[:_ERROR_WIDTH],
        ]


def _done_row(record: JobRecord) -> list[str]:
    job = describe(record)
    return [*_first_cells(job), _date(job["ended"]), f"{job['seconds']:.3f}"]


def _first_cells(job: Mapping[str, Any]) -> list[str]:
    kind = job["request_type"] or NO_MESSAGE
    return [job["job_id"], job["state"], job["queue"], kind, str(job["attempts"])]


def _print_groups(groups: list[ErrorGroup], limit: int | None, *, as_json: bool) -> None:
    if as_json:
        for group in groups[:limit]:
            print_json(asdict(group))
        return
    shown = groups[: ON_A_TERMINAL if limit is None else limit]
    print_table(_GROUP_COLUMNS, map(_group_row, shown))
    if limit is None and len(groups) > len(shown):
        click.echo(
            f"the first {len(shown)} of {len(groups):,} groups; --limit N shows more", err=True
        )


def _group_row(group: ErrorGroup) -> list[str]:
    types = group.request_types
    names = [name or NO_MESSAGE for name in sorted(types, key=types.__getitem__, reverse=True)]
    more = f" and {len(names) - _MOST_TYPES} more" if len(names) > _MOST_TYPES else ""
    return [
        group.fingerprint,
        ", ".join(names[:_MOST_TYPES]) + more,
        f"{group.count:,}",
        _date(group.first),
        _date(group.last),
        group.example,
        (group.error or group.reason)[:_ERROR_WIDTH],
    ]


def _date(seconds: float | None) -> str:
    return date(seconds) if seconds else ""
