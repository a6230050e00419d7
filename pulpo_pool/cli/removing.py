"""Removing the jobs that a filter finds, once somebody has said yes."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from pulpo_pool.cli.chosen import choose, say_done, say_unseen, say_what_would_happen
from pulpo_pool.cli.output import counted, print_error
from pulpo_pool.errors import NoSuchJob, QueueError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pulpo_pool.cli.chosen import Chosen
    from pulpo_pool.queues.adapter import JobRecord, QueueAdapter

REFUSED: Final = 1  # the exit code


@dataclass(frozen=True, slots=True)
class Removal:
    """How a command was told to remove jobs; `done` is its word for it, such as "deleted"."""

    done: str
    yes: bool
    dry_run: bool
    as_json: bool
    limit: int | None = None

    def check_can_ask(self) -> None:
        """Raise click.UsageError where a question would have no answer."""
        if not self.yes and not self.dry_run and not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on; --yes removes the jobs")

    def agreed(self, question: str) -> bool:
        """Ask, unless that was answered beforehand."""
        if self.yes or click.confirm(question, err=True):
            return True
        print_error(f"nothing was {self.done}")
        return False

    def of_matching(self, queue: QueueAdapter, found: Iterable[JobRecord], kind: str) -> int | None:
        """Remove what a filter finds, such as "buried" ones; return the exit code if not 0."""
        chosen = choose(islice(found, self.limit))
        say_unseen(queue)
        if self.dry_run:
            say_what_would_happen(self.done, chosen, as_json=self.as_json)
            return None
        if chosen.states and not self.agreed(
            f"Remove {counted(len(chosen), f'{kind} job')} ({chosen.types_text()})?"
        ):
            return REFUSED
        removed = self._remove(queue, chosen)
        say_done(self.done, removed, passed=len(chosen), chosen=chosen, as_json=self.as_json)
        return None

    def _remove(self, queue: QueueAdapter, chosen: Chosen) -> int:
        removed = 0
        try:
            for job_id in chosen.unchanged(queue, chosen.states):
                with suppress(NoSuchJob):  # somebody else was faster
                    queue.delete(job_id)
                    removed += 1
        except (QueueError, KeyboardInterrupt):
            print_error(f"{removed:,} of {counted(len(chosen))} were {self.done} before this:")
            raise
        return removed
