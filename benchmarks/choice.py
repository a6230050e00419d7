"""The options of every measurement: how often, of whom, and where the results go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from benchmarks.contenders.publishers import Publishing
    from benchmarks.harness import Contender

AnyContender = TypeVar("AnyContender", bound="Contender | Publishing")


def add_choice(command: argparse.ArgumentParser, *, rounds: int) -> None:
    command.add_argument("--rounds", type=int, default=rounds)
    command.add_argument(
        "--only", metavar="TEXT", action="append", help="in the contenders' names; repeatable"
    )
    add_save(command)


def add_save(command: argparse.ArgumentParser) -> None:
    command.add_argument("--save", type=Path, help="where the raw results go, as JSON")


def chosen(
    options: argparse.Namespace, contenders: Iterable[AnyContender], usual: Sequence[str] = ("",)
) -> list[AnyContender]:
    """Return those that are asked for, or else those that have one of the `usual` names."""
    wanted = options.only or usual
    return [each for each in contenders if any(text in each.name for text in wanted)]
