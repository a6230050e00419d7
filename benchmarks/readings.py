"""What the result files say: a contender's figures by round, their median and their spread."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESULTS = Path(__file__).parent / "results"


class Where(NamedTuple):
    """Where a figure is: the result file without its .json, and a figure of its runs.

    A figure in a part of a run is named with dots, as half.p99.
    """

    file: str
    contender: str
    figure: str


@dataclass(frozen=True)
class Figure:
    """A figure of all rounds of a contender."""

    by_round: Mapping[int, float]

    @property
    def middle(self) -> float:
        return median(self.by_round.values())

    @property
    def least(self) -> float:
        return min(self.by_round.values())

    @property
    def most(self) -> float:
        return max(self.by_round.values())

    def over(self, other: Figure) -> Measured:
        """Return the ratio of the medians, and the spread of the rounds' own ratios.

        Rounds take turns, so those of one number had the same neighbours. Without a common round
        the spread is that of the extremes.
        """
        common = self.by_round.keys() & other.by_round.keys()
        each = [self.by_round[number] / other.by_round[number] for number in common]
        extremes = [self.least / other.most, self.most / other.least]
        spread = each or extremes
        return Measured(self.middle / other.middle, min(spread), max(spread))


class Measured(NamedTuple):
    """A number, and the smallest and the largest it was in any round."""

    value: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return number(self.value)
        return f"{number(self.value)} ({number(self.least)}-{number(self.most)})"


def number(value: float) -> str:
    """Return it with three digits that matter, and no exponent."""
    size = abs(value)
    digits = (
        0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 0.1 else 3
    )
    return f"{value:,.{digits}f}"


def part(run: Mapping[str, Any], figure: str) -> Any:
    """Return a figure by its dotted name."""
    return reduce(lambda inner, name: inner[name], figure.split("."), run)


class Readings:
    """All result files of a folder."""

    def __init__(self, folder: Path = RESULTS) -> None:
        paths = sorted(folder.glob("*.json"))
        self.files: dict[str, dict[str, Any]] = {
            path.stem: json.loads(path.read_text()) for path in paths
        }
        self._digests = {path.stem: hashlib.sha256(path.read_bytes()).digest() for path in paths}

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def runs(self, name: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.files[name]["runs"]
        return runs

    def contenders(self, name: str) -> list[str]:
        """Return who took part, in the order of their turns."""
        return list(dict.fromkeys(run["contender"] for run in self.runs(name)))

    def figure(self, where: Where) -> Figure | None:
        """Return a figure, unless nobody has measured it."""
        if where.file not in self:
            return None
        own = [run for run in self.runs(where.file) if run["contender"] == where.contender]
        by_round = {run["round"]: float(part(run, where.figure)) for run in own}
        return Figure(by_round) if by_round else None

    def digest(self, names: Iterable[str]) -> str:
        """Return what stands for the content of these files."""
        content = b"".join(self._digests[name] for name in sorted(names))
        return hashlib.sha256(content).hexdigest()[:16]
