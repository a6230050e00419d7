"""`pulpo-pool peek`: one job, whole."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from pulpo_pool.cli.options import examples, json_option, opened_queue, queue_options
from pulpo_pool.cli.output import print_json, printable
from pulpo_pool.queues.records import describe


@click.command(epilog=examples("pulpo-pool peek 17", "pulpo-pool peek 17 --json"))
@click.argument("job_id", metavar="ID")
@json_option
@queue_options
def peek(*, job_id: str, as_json: bool, **flags: Any) -> None:
    """Show a job without taking it, or one that is done and kept. ID is its job_id."""
    with opened_queue(flags) as adapter:
        job = describe(adapter.peek(job_id))
    if as_json:
        print_json(job)
        return
    width = max(map(len, job))
    for name, value in job.items():
        if value not in (None, []):
            click.echo(f"{name:<{width}}  {_for_people(value, width + 2)}")


def _for_people(value: object, indent: int) -> str:
    if isinstance(value, dict | list):
        raw = msgspec.json.encode(value, enc_hook=repr)
        text = msgspec.json.format(raw, indent=2).decode()
    else:
        text = str(value)
    lines = text.rstrip("\n").split("\n")
    return ("\n" + " " * indent).join(printable(line) for line in lines)
