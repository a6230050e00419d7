"""`pulpo-pool publish`: one job, many alike, or a file of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice, repeat
from typing import IO, TYPE_CHECKING, Any, Final

import click
import msgspec

from pulpo_pool.cli.job_lines import build_message, check_lines, message_in, read_lines
from pulpo_pool.cli.options import (
    complete_queues,
    examples,
    json_option,
    loaded_settings,
    opened,
    queue_options,
)
from pulpo_pool.cli.output import counted, print_error, print_json
from pulpo_pool.cli.progress import progress
from pulpo_pool.errors import InvalidMessage, PulpoPoolError
from pulpo_pool.message import DEFAULT_QUEUE
from pulpo_pool.publishing import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pulpo_pool.message import Message
    from pulpo_pool.publishing import Published
    from pulpo_pool.settings import Settings

AT_ONCE: Final = 1_000  # jobs in a transaction: other publishers wait for some milliseconds

_NAMES: Final = {
    "request_type": "REQUEST_TYPE",
    "body": "--body",
    "payload": "--payload",
    "queue": "--queue",
    "priority": "--priority",
    "delay": "--delay",
    "expires_in": "--expires-in",
}


@click.command(
    epilog=examples(
        'pulpo-pool publish send_email --body \'{"to": "a@example.org"}\' --delay 30',
        "pulpo-pool publish echo --payload hello --count 100",
        "pulpo-pool publish --from-file jobs.jsonl",
    )
)
@click.argument("request_type", required=False)
@click.option("--body", metavar="JSON", help="The body: an object.")
@click.option("--payload", metavar="TEXT", help="The body's payload, in place of --body.")
@click.option(
    "-q",
    "--queue",
    metavar="NAME",
    shell_complete=complete_queues,
    help="The queue. [default: default, or the first of the settings' queues]",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="So many jobs alike.")
@click.option("--delay", type=float, metavar="SECONDS", help="Not before so many seconds.")
@click.option("--priority", type=int, metavar="N", help="0 is the most urgent. [default: 65536]")
@click.option("--expires-in", type=float, metavar="SECONDS", help="Not after so many seconds.")
@click.option(
    "--from-file",
    type=click.File("rb"),
    metavar="FILE",
    help="Publish every line of FILE, or of stdin for -; other options are for lines without.",
)
@json_option
@queue_options
def publish(
    *, from_file: IO[bytes] | None, count: int | None, as_json: bool, **options: Any
) -> None:
    """Publish jobs of a REQUEST_TYPE, or those in a file; with all of them valid or none at all.

    A line of the file is an object: request_type, and where wanted body or payload, queue,
    priority, delay, expires_in, header.
    """
    given = {word: options.pop(word) for word in _NAMES}
    given = {word: value for word, value in given.items() if value is not None}
    settings = loaded_settings(options).settings
    given.setdefault("queue", _usual_queue(settings))
    batch = _alike(given, count) if from_file is None else _in_file(from_file, given, count)
    with opened(settings) as adapter:
        publisher = Publisher(adapter)
        batch.check(publisher)
        queues = Counter[str]()
        for message, job_id in _published(publisher, batch):
            queues[message.queue] += 1
            if as_json:
                print_json({"id": message.id, "job_id": job_id})
    if not as_json:
        click.echo(_summary(queues))


def _usual_queue(settings: Settings) -> str:
    """Return where a job goes that names no queue: never to one that the settings leave out."""
    return DEFAULT_QUEUE if DEFAULT_QUEUE in settings.queues else settings.queues[0]


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is to be published, and how to find out beforehand whether all of it can be."""

    total: int
    messages: Iterable[Message]
    check: Callable[[Publisher], None]


def _alike(given: dict[str, Any], count: int | None) -> _Batch:
    if "request_type" not in given:
        raise click.UsageError("expected a REQUEST_TYPE or --from-file FILE")
    body = _object(given["body"]) if "body" in given else None
    message = _from_options(given | {"body": body})
    total = 1 if count is None else count
    return _Batch(total, repeat(message, total), lambda publisher: publisher.check(message))


def _in_file(file: IO[bytes], given: dict[str, Any], count: int | None) -> _Batch:
    for word in ("request_type", "body", "payload"):
        if word in given:
            raise click.UsageError(f"{_NAMES[word]} and --from-file exclude each other")
    if count is not None:
        raise click.UsageError("--count and --from-file exclude each other")
    _from_options(given | {"request_type": "any"})  # what holds for every line is named here
    lines = read_lines(file)

    def check(publisher: Publisher) -> None:
        check_lines(lines, lambda line: publisher.check(message_in(line, given)))

    return _Batch(len(lines), (message_in(line, given) for line in lines), check)


def _from_options(fields: dict[str, Any]) -> Message:
    try:
        return build_message(fields)
    except InvalidMessage as error:
        word, colon, rest = str(error).partition(":")
        raise InvalidMessage(_NAMES.get(word, word) + colon + rest) from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"--body: is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidMessage(f'--body: expected a JSON object, such as {{"a": 1}}, got {text!r}')
    return found


def _published(publisher: Publisher, batch: _Batch) -> Iterator[Published]:
    """Publish chunk by chunk; a failure says how much was published before it."""
    messages = iter(batch.messages)
    done = 0
    with progress("publishing", batch.total, worth_it=batch.total > AT_ONCE) as advance:
        try:
            while chunk := list(islice(messages, AT_ONCE)):
                published = publisher.publish_many(chunk)
                done += len(published)
                advance(len(published))
                yield from published
        except (PulpoPoolError, KeyboardInterrupt):
            if done:
                print_error(f"{done:,} of {counted(batch.total)} were published before this:")
            raise


def _summary(queues: Counter[str]) -> str:
    text = f"published {counted(queues.total())}"
    if len(queues) == 1:
        return f"{text} to {next(iter(queues))}"
    parts = (f"{number:,} to {queue}" for queue, number in queues.most_common())
    return f"{text}: {', '.join(parts)}" if queues else text
