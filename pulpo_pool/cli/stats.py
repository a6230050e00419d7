"""`pulpo-pool stats`: how many jobs are in each state."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pulpo_pool.cli.options import examples, json_option, opened_queue, queue_options
from pulpo_pool.cli.output import print_json, print_table
from pulpo_pool.queues.adapter import JobState, QueueStats


@click.command(epilog=examples("pulpo-pool stats", "pulpo-pool stats --json | jq .queues.default"))
@json_option
@queue_options
def stats(*, as_json: bool, **flags: Any) -> None:
    """Count the jobs in each state."""
    with opened_queue(flags) as adapter:
        queues = dict(sorted(adapter.stats().items()))
    total = sum(queues.values(), QueueStats())
    if as_json:
        by_queue = {name: asdict(counts) for name, counts in queues.items()}
        print_json(asdict(total) | {"queues": by_queue})
        return
    rows = [_row(name, counts) for name, counts in queues.items()]
    if len(rows) != 1:
        rows.append(_row("all queues", total))
    print_table(["QUEUE", *(state.value.upper() for state in JobState)], rows)


def _row(name: str, counts: QueueStats) -> list[str]:
    return [name, *(f"{getattr(counts, state.value):,}" for state in JobState)]
