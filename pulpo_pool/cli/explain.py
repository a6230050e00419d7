"""`pulpo-pool explain`: the story of one job, and why it is not running now."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
import psutil

from pulpo_pool.cli import story
from pulpo_pool.cli.control_client import CommandRefused, ask
from pulpo_pool.cli.options import (
    examples,
    json_option,
    loaded_settings,
    opened,
    queue_options,
)
from pulpo_pool.cli.output import print_json, printable
from pulpo_pool.cli.story_facts import Facts, PoolSeen
from pulpo_pool.cli.story_past import past
from pulpo_pool.errors import ConfigError, NoSuchJob, PoolNotRunning, PulpoPoolError
from pulpo_pool.queues.adapter import JobState
from pulpo_pool.queues.opening import check_url
from pulpo_pool.queues.records import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.queues.adapter import JobRecord, QueueAdapter
    from pulpo_pool.settings import Settings

_MOST_POOLS: Final = 50  # asked; each run directory with a socket that nobody reads costs a try


@click.command(epilog=examples("pulpo-pool explain 17", "pulpo-pool explain 17 --json"))
@click.argument("job_id", metavar="ID")
@json_option
@queue_options
def explain(*, job_id: str, as_json: bool, **flags: Any) -> None:
    """Tell a job's story: what became of it, what is next, and why it is not running now.

    ID is its job_id, as `list` shows it, or the id of its message (the file queue searches all
    its jobs for that; beanstalkd cannot). The pools of this state directory are asked what they
    do, and the app is imported to see whether it has a handler.
    """
    settings = loaded_settings(flags).settings
    with opened(settings) as adapter:
        record = _found(adapter, job_id)
        ready = record.state is JobState.READY
        in_front = adapter.jobs_in_front(record) if ready else None
        now = adapter.clock.now()
    pools = list(_pools(settings))
    waits = record.state in (JobState.READY, JobState.DELAYED)
    handled, told_by = _handled(record, settings, pools) if waits else (None, "")
    facts = Facts(record, now, pools, in_front, handled, told_by, settings.on_expired)
    causes = story.why_not_running(facts)
    told = [*past(facts), *story.running(facts)]
    coming = story.next_step(facts, causes)
    if as_json:
        print_json(_for_programs(facts, told, causes, coming))
    else:
        _print_for_people(told, causes, coming)


def _found(adapter: QueueAdapter, name: str) -> JobRecord:
    try:
        return adapter.peek(name)
    except NoSuchJob:
        found = adapter.find_message(name)
    if found is not None:
        return adapter.peek(found)
    how = "" if adapter.finds_messages else "; this engine cannot be searched for a message's id"
    raise NoSuchJob(
        f"there is no job {name!r} in this queue: it was done, discarded or deleted, or never "
        f"published here{how}"
    )


# -- the pools ------------------------------------------------------------------------------------


def _pools(settings: Settings) -> Iterator[PoolSeen]:
    """Yield the running pools of the state directory."""
    with suppress(OSError):
        names = sorted(path.name for path in (Path(settings.state_dir) / "run").iterdir())
        for name in names[:_MOST_POOLS]:
            with suppress(PoolNotRunning, CommandRefused):
                answer = ask(msgspec.structs.replace(settings, name=name), "status")
                master = answer["master"]
                same, paused = _same_queue(settings, master), answer["paused_request_types"]
                yield PoolSeen(master, answer["workers"], same, paused)


def _same_queue(settings: Settings, master: dict[str, Any]) -> bool:
    theirs, ours = str(master["broker"]), settings.broker_url
    return theirs == ours or _place(theirs, _directory_of(master["pid"])) == _place(
        ours, Path.cwd()
    )


def _directory_of(pid: int) -> Path:
    try:
        return Path(psutil.Process(pid).cwd())
    except psutil.Error:
        return Path.cwd()


def _place(url: str, directory: Path) -> tuple[str, str]:
    """Return where a queue is, however its URL spells it."""
    try:
        address = check_url(url)
    except ConfigError:
        return "", url
    if address.scheme == "file":
        return "file", str((directory / address.target).resolve())
    return address.scheme, address.target


# -- the handler ----------------------------------------------------------------------------------


def _handled(
    record: JobRecord, settings: Settings, pools: list[PoolSeen]
) -> tuple[bool | None, str]:
    """Tell whether the app has a handler for a job, and who says so; None if nobody can tell.

    The pool's master knows no handlers, so the app that it runs is imported here: that is today's
    code, which a pool that was not reloaded does not run yet.
    """
    try:
        request_type = record.message().request_type
    except PulpoPoolError:
        return None, ""
    apps = {pool.master["app"] for pool in pools if pool.same_queue} or {settings.app}
    answers = {}
    for name in sorted(apps, key=str):
        with suppress(PulpoPoolError), redirect_stdout(sys.stderr):
            answers[name] = request_type in _app(name, settings).registry
    if not answers or len(answers) < len(apps):
        return None, "the app could not be imported here"
    told_by = ", ".join(f"app {name}" if name else "the sample app" for name in answers)
    return any(answers.values()), f"{told_by[:1].upper()}{told_by[1:]}, as it is on disk now,"


def _app(name: str | None, settings: Settings) -> Any:
    from pulpo_pool.app.loading import load_app
    from pulpo_pool.app.samples import sample_pulpo

    return load_app(name, Path.cwd()) if name else sample_pulpo(settings)


# -- the answer -----------------------------------------------------------------------------------


def _for_programs(
    facts: Facts, told: list[str], causes: list[story.Cause], coming: str
) -> dict[str, Any]:
    found = story.holder(facts)
    return {
        "job": describe(facts.record),
        "story": told,
        "why_not_running": [{"code": each.code, "text": each.text} for each in causes],
        "next": coming,
        "in_front": facts.in_front,
        "handler": facts.handled,
        "held_by": {"pool": found[0].name, **found[1]} if found else None,
        "pools": [
            {name: pool.master[name] for name in ("name", "state", "queues", "app", "broker")}
            | {"same_queue": pool.same_queue}
            for pool in facts.pools
        ],
    }


def _print_for_people(told: list[str], causes: list[story.Cause], coming: str) -> None:
    for line in told:
        click.echo(printable(line))
    if causes:
        click.echo("\nWhy it is not running now:")
        for cause in causes:
            click.echo(printable(f"- {cause.text}"))
    click.echo(f"\nNext: {printable(coming)}")
