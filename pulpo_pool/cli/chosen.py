"""The jobs that a command is about to change: chosen first, counted, then changed one by one."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from pulpo_pool.cli.output import counted, print_json, printable
from pulpo_pool.errors import NoSuchJob
from pulpo_pool.queues.letters import request_type_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pulpo_pool.queues.adapter import JobRecord, JobState, KeptState, QueueAdapter

NO_MESSAGE: Final = "(no message)"


@dataclass(slots=True)
class Chosen:
    """Jobs by id, as they were when they were looked for, and how many of which request_type.

    They are noted before the first is changed: a kicked job may fail again, and be buried again,
    while others still wait for their turn.
    """

    states: dict[str, JobState | KeptState] = field(default_factory=dict)
    request_types: Counter[str] = field(default_factory=Counter)

    def add(self, record: JobRecord) -> None:
        """Count a job in."""
        if record.job_id not in self.states:
            self.states[record.job_id] = record.state
            self.request_types[request_type_of(record) or NO_MESSAGE] += 1

    def __len__(self) -> int:
        return len(self.states)

    def summary(self) -> str:
        """Return "3 jobs: 2 send_email, 1 charge"."""
        return f"{counted(len(self))}: {self.types_text()}" if self.states else counted(0)

    def types_text(self) -> str:
        """Return "2 send_email, 1 charge"."""
        numbers = self.request_types.most_common()
        return ", ".join(f"{number:,} {printable(name)}" for name, number in numbers)

    def unchanged(self, queue: QueueAdapter, job_ids: Iterable[str]) -> Iterator[str]:
        """Yield those of these jobs that are still in the state in which they were chosen.

        Somebody else may be at work too: what was kicked meanwhile shall not be deleted, nor what
        is being retried be started early.
        """
        for job_id in job_ids:
            with suppress(NoSuchJob):
                if queue.peek(job_id).state is self.states[job_id]:
                    yield job_id


def choose(records: Iterable[JobRecord]) -> Chosen:
    """Note these jobs."""
    chosen = Chosen()
    for record in records:
        chosen.add(record)
    return chosen


def say_what_would_happen(verb: str, chosen: Chosen, *, as_json: bool) -> None:
    """Answer --dry-run."""
    if as_json:
        print_json({verb: 0, "dry_run": True} | _as_plain(chosen))
    else:
        click.echo(f"would have {verb} {chosen.summary()}")


def say_done(
    verb: str,
    number: int,
    *,
    as_json: bool,
    passed: int | None = None,
    chosen: Chosen | None = None,
) -> None:
    """Say how many jobs were kicked or deleted; of those chosen, how many had had their turn."""
    if as_json:
        print_json({verb: number} | (_as_plain(chosen) if chosen else {}))
        return
    text = f"{verb} {counted(number)}"
    if chosen is not None and passed is not None:
        if passed < len(chosen):
            text = f"{verb} {number:,} of {counted(len(chosen))}, then was told to stop"
        if number < passed:
            text += f"; {passed - number:,} had changed meanwhile and were left alone"
    click.echo(text)


def say_unseen(queue: QueueAdapter) -> None:
    """Say which jobs the last look could not reach."""
    if queue.unseen:
        click.echo(queue.unseen, err=True)


def _as_plain(chosen: Chosen) -> dict[str, object]:
    return {"chosen": len(chosen), "request_types": dict(chosen.request_types)}
