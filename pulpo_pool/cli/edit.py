"""`pulpo-pool edit`: the message of a job that waits is put right, by path or in an editor."""

from __future__ import annotations

import copy
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli import message_paths as paths
from pulpo_pool.cli import message_text as texts
from pulpo_pool.cli.options import (
    examples,
    json_option,
    loaded_settings,
    opened_queue,
    queue_options,
)
from pulpo_pool.cli.output import print_error, print_json, printable
from pulpo_pool.errors import (
    AppImportError,
    AppNotFound,
    InvalidMessage,
    JobReserved,
    PulpoPoolError,
    QueueError,
    UndecodableMessage,
)
from pulpo_pool.fingerprint import headline
from pulpo_pool.message import Message
from pulpo_pool.queues.adapter import JobState
from pulpo_pool.queues.letters import last_setback
from pulpo_pool.queues.records import kept_only
from pulpo_pool.suggestions import did_you_mean

if TYPE_CHECKING:
    from pulpo_pool.queues.adapter import JobRecord, QueueAdapter
    from pulpo_pool.settings import Settings

_PARTS: Final = ("id", "header", "body")
_FIXED: Final = {  # of the header; and who decides instead
    "queue": "a job stays in its queue; publish another one there",
    "published_at": "it says when the job was published",
    "not_before": "`kick` makes a delayed job ready",
    "delay": "`kick` makes a delayed job ready",
    "expiration_utc": "set header.expiration",
}
_PROBLEM: Final = "#! "  # begins what is said of the last try, above the text


@click.command(
    epilog=examples(
        "pulpo-pool edit 17",
        "pulpo-pool edit 17 --set body.to=a@example.org --set header.priority=0",
        "pulpo-pool edit 17 --set 'body.items[0]={\"sku\": 5}' --unset body.coupon",
    )
)
@click.argument("job_id", metavar="ID")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set a part of the body, or of the header; repeatable. VALUE is JSON, or else text.",
)
@click.option(
    "--unset",
    "removals",
    multiple=True,
    metavar="PATH",
    help="Remove a part of the body or the header, before anything is set; repeatable.",
)
@json_option
@queue_options
def edit(
    *,
    job_id: str,
    assignments: tuple[str, ...],
    removals: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Change the message of a job that nobody holds: with --set and --unset, or in an editor.

    The editor is VISUAL or EDITOR. The message is checked as a publisher's is; its id and what
    is not named stay as they are, and so does the job's state: `kick` lets it run. On beanstalkd
    the job gets a new job_id and a fresh count, because the server cannot change one.
    """
    sets = [paths.parse_assignment(text) for text in assignments]
    unsets = [paths.parse_path(text) for text in removals]
    with opened_queue(flags) as queue:
        record = queue.peek(job_id)
        before = _message_of(record)
        after, text = (
            (_changed(before, sets, unsets), "")
            if sets or unsets
            else _edited(queue, record, before)
        )
        new_id = record.job_id
        if after != before:
            _warn_of_unknown_type(loaded_settings(flags).settings, before, after)
            new_id = _replaced(queue, record, after, text)
    _say(record.job_id, new_id, changed=after != before, as_json=as_json)


def _message_of(record: JobRecord) -> Message:
    if record.end is not None:
        raise kept_only(record.job_id)
    if record.state is JobState.RESERVED:
        raise JobReserved(
            f"job {record.job_id} is in a worker's hands: try again when it is done, rolled back "
            "or buried"
        )
    try:
        return record.message()
    except UndecodableMessage as error:
        raise QueueError(
            f"job {record.job_id}: {error}; only messages can be edited: publish a good one and "
            "delete this"
        ) from None


def _changed(
    before: Message, sets: list[tuple[paths.Steps, Any]], unsets: list[paths.Steps]
) -> Message:
    parts = _parts_of(before)
    for steps in unsets:
        paths.take(parts, steps)
    for steps, value in sets:
        paths.put(parts, steps, value)
    return _built(parts, before)


def _edited(queue: QueueAdapter, record: JobRecord, before: Message) -> tuple[Message, str]:
    """Return what somebody made of a message in an editor, and the text; as often as it takes."""
    given = texts.as_text(_parts_of(before), _comments(record))
    if texts.read_text(given) != _parts_of(before):
        raise QueueError(
            f"job {record.job_id}: this message holds what JSON cannot say; use --set and --unset"
        )
    text = given
    while True:
        saved = texts.edited(text)
        text = "".join(line for line in saved.splitlines(True) if not line.startswith(_PROBLEM))
        if text == given:
            return before, text
        try:
            parts = texts.read_text(text)
            after = before if parts is None else _built(parts, before)
            queue.codec.encode(after)
        except InvalidMessage as error:
            print_error(str(error))
            if not sys.stdin.isatty() or not click.confirm("Edit again?", default=True, err=True):
                raise _kept(error, text, record.job_id) from None
            problem = printable(str(error))
            text = f"{_PROBLEM}{problem}\n{text}"
        else:
            return after, text


def _kept(error: PulpoPoolError, text: str, job_id: str) -> PulpoPoolError:
    """Return the error with the place where the text is, and how to go on with it."""
    path = texts.keep(text, job_id)
    again = shlex.quote(f"cp {shlex.quote(path)}")
    return type(error)(
        f"{error}\nNothing was changed. The text is in {path}; mend it there, then\n"
        f"  EDITOR={again} pulpo-pool edit {job_id}"
    )


def _parts_of(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "header": dict(message.header),
        "body": copy.deepcopy(message.body),
    }


def _built(parts: dict[str, Any], before: Message) -> Message:
    """Return a message that a publisher could have sent; raise InvalidMessage for any other."""
    for name in parts:
        if name not in _PARTS:
            raise InvalidMessage(
                f"{name}: a message has {', '.join(_PARTS)}{did_you_mean(name, _PARTS)}"
            )
    if parts.get("id") != before.id:
        raise InvalidMessage("id: cannot be changed: it is the message's for life")
    after = Message(header=parts.get("header"), body=parts.get("body"))
    given = parts.get("header") or {}
    for name, instead in _FIXED.items():
        if given.get(name) != before.header.get(name):
            raise InvalidMessage(f"header.{name}: cannot be changed: {instead}")
    return Message.restored(before.id, dict(after.header), after.body)


def _comments(record: JobRecord) -> list[str]:
    setback = last_setback(record)
    why = ": ".join(filter(None, (setback.reason, headline(setback.error))))
    return [
        f"Job {record.job_id} of queue {record.queue}, {record.state.value}.",
        *([why] if why else []),
        "",
        "The body may be changed, and in the header request_type, priority, expiration and",
        "fields of your own. What is saved empty, or as it is now, changes nothing.",
        "Lines that begin with # are left out.",
    ]


def _warn_of_unknown_type(settings: Settings, before: Message, after: Message) -> None:
    """Say so where the app, if one is configured, has no handler for a changed request_type."""
    if settings.app is None or after.request_type == before.request_type:
        return
    from pulpo_pool.app.loading import load_app

    try:
        with redirect_stdout(sys.stderr):  # what the app prints is not the answer
            registry = load_app(settings.app, Path.cwd()).registry
    except (AppImportError, AppNotFound) as error:
        print_error(f"warning: nobody could check header.request_type: {error}")
        return
    name = after.request_type
    if registry.find(name) is None:
        near = did_you_mean(name, [handler.request_type for handler in registry])
        print_error(f"warning: {settings.app} has no handler for {name!r}{near}")


def _replaced(queue: QueueAdapter, record: JobRecord, after: Message, text: str) -> str:
    """Replace the message, unless it is not the one that was looked at; return the job_id."""
    try:
        if queue.peek(record.job_id).raw != record.raw:
            raise QueueError(f"job {record.job_id} was changed by somebody else meanwhile")
        return queue.replace(record.job_id, after)
    except PulpoPoolError as error:
        if not text:
            raise
        raise _kept(error, text, record.job_id) from error


def _say(job_id: str, new_id: str, *, changed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"job_id": new_id, "was": job_id, "changed": changed})
    elif not changed:
        click.echo("nothing was changed")
    elif new_id == job_id:
        click.echo(f"edited job {job_id}")
    else:
        click.echo(f"edited job {job_id}, which is job {new_id} now, with a fresh count")
