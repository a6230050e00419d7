"""`pulpo-pool kick`: buried and delayed jobs are ready again, with a fresh count."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli.chosen import choose, say_done, say_unseen, say_what_would_happen
from pulpo_pool.cli.filters import filter_options, job_filter, limit_option
from pulpo_pool.cli.options import examples, json_option, opened_queue, queue_options
from pulpo_pool.cli.output import counted, print_error
from pulpo_pool.cli.pace import Pace, brake, rate_option
from pulpo_pool.cli.progress import progress
from pulpo_pool.errors import NoSuchJob, PulpoPoolError
from pulpo_pool.queues.adapter import JobState

if TYPE_CHECKING:
    from pulpo_pool.cli.chosen import Chosen
    from pulpo_pool.queues.adapter import QueueAdapter
    from pulpo_pool.queues.letters import JobFilter

_KICKABLE: Final = (JobState.BURIED, JobState.DELAYED)
_SIGNALLED: Final = 128  # and the signal's number is what a shell reports
_LONG: Final = 1_000  # jobs, for which people like to see a bar


@click.command(
    epilog=examples(
        "pulpo-pool kick 17 18",
        "pulpo-pool kick --all -q mail --limit 10",
        "pulpo-pool kick --error 'timed out' --since 2h --rate 50/s",
    )
)
@click.argument("job_ids", metavar="ID...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every buried job.")
@filter_options
@limit_option
@rate_option
@click.option("--dry-run", is_flag=True, help="Say what would be kicked, and change nothing.")
@json_option
@queue_options
def kick(
    *,
    job_ids: tuple[str, ...],
    every: bool,
    limit: int | None,
    rate: float | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int | None:
    """Make jobs ready again, with a fresh count of attempts and crashes.

    They are named by id (buried or delayed ones), by what they have in common (buried ones), or
    all buried ones with --all. --limit takes the first of them, as `list` shows them. INT stops
    between two jobs and says how many were kicked.
    """
    wanted = job_filter(options)
    _check_choice(job_ids, wanted, limit, every=every)
    with opened_queue(options) as queue:
        if rate is None and limit is None and not dry_run and not wanted.looks_inside:
            number = queue.kick(job_ids) if job_ids else queue.kick_all(queues=wanted.queues)
            say_done("kicked", number, as_json=as_json)
            return None
        chosen = _choose(queue, job_ids, wanted, limit)
        if dry_run:
            say_what_would_happen("kicked", chosen, as_json=as_json)
            return None
        return _kick(queue, chosen, rate, as_json=as_json)


def _check_choice(
    job_ids: tuple[str, ...], wanted: JobFilter, limit: int | None, *, every: bool
) -> None:
    if [bool(job_ids), every, wanted.looks_inside].count(True) != 1:
        raise click.UsageError("expected the ids of jobs, or filters such as --error, or --all")
    if wanted.queues and job_ids:
        raise click.UsageError("--queue goes with --all or a filter; an id needs no queue")
    if limit is not None and job_ids:
        raise click.UsageError("--limit goes with --all or a filter; name fewer ids instead")


def _choose(
    queue: QueueAdapter, job_ids: tuple[str, ...], wanted: JobFilter, limit: int | None
) -> Chosen:
    if job_ids:
        records = [queue.peek(job_id) for job_id in job_ids]
        return choose(record for record in records if record.state in _KICKABLE)
    chosen = choose(islice(wanted.search(queue, [JobState.BURIED]), limit))
    say_unseen(queue)
    return chosen


def _kick(queue: QueueAdapter, chosen: Chosen, rate: float | None, *, as_json: bool) -> int | None:
    pace = Pace(rate)
    lasts = len(chosen) > _LONG or (rate is not None and len(chosen) > rate)
    left = iter(chosen.states)
    kicked = passed = 0
    with brake() as pedal, progress("kicking", len(chosen), worth_it=lasts) as advance:
        try:
            while pedal.pulled_by is None and passed < len(chosen):
                batch = list(islice(left, pace.allowed()))
                kicked += _kick_unchanged(queue, chosen, batch)
                passed += len(batch)
                advance(len(batch))
                pedal.wait(pace.wait() if passed < len(chosen) else 0.0)
        except (PulpoPoolError, KeyboardInterrupt):
            print_error(f"{kicked:,} of {counted(len(chosen))} were kicked before this:")
            raise
    say_done("kicked", kicked, passed=passed, chosen=chosen, as_json=as_json)
    return None if pedal.pulled_by is None else _SIGNALLED + pedal.pulled_by


def _kick_unchanged(queue: QueueAdapter, chosen: Chosen, job_ids: list[str]) -> int:
    unchanged = list(chosen.unchanged(queue, job_ids))
    try:
        return queue.kick(unchanged)
    except NoSuchJob:  # one was deleted in this moment, and none was kicked
        return sum(_kick_one(queue, job_id) for job_id in unchanged)


def _kick_one(queue: QueueAdapter, job_id: str) -> int:
    try:
        return queue.kick([job_id])
    except NoSuchJob:
        return 0
