"""What a goal is: a number got from results, a bound, and the verdict on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from benchmarks.endured import change
from benchmarks.readings import Figure, Measured, Where, number

if TYPE_CHECKING:
    from benchmarks.readings import Readings


LONG = 600.0  # seconds; a shorter run is a try


class Source(Protocol):
    """How a goal's number is got."""

    def __call__(self, readings: Readings) -> Measured | None:
        """Return it; None while what it needs is not measured."""


@dataclass(frozen=True)
class Value:
    """A figure itself."""

    where: Where

    def __call__(self, readings: Readings) -> Measured | None:
        figure = readings.figure(self.where)
        return Measured(figure.middle, figure.least, figure.most) if figure else None


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs."""

    ours: Where
    theirs: Where

    def __call__(self, readings: Readings) -> Measured | None:
        ours, theirs = readings.figure(self.ours), readings.figure(self.theirs)
        return ours.over(theirs) if ours and theirs else None


@dataclass(frozen=True)
class Each:
    """What one more adds: the difference of two figures over what differs."""

    many: Where
    few: Where
    more: int

    def __call__(self, readings: Readings) -> Measured | None:
        many, few = readings.figure(self.many), readings.figure(self.few)
        if not many or not few:
            return None
        common = many.by_round.keys() & few.by_round.keys()
        each = Figure({n: (many.by_round[n] - few.by_round[n]) / self.more for n in common})
        return Measured((many.middle - few.middle) / self.more, each.least, each.most)


@dataclass(frozen=True)
class Change:
    """Of the long run: a quantity in the last tenth over the second (see `endured`)."""

    file: str
    quantity: str

    def __call__(self, readings: Readings) -> Measured | None:
        if self.file not in readings or readings.files[self.file]["seconds"] < LONG:
            return None
        ratio = change(readings.runs(self.file), self.quantity)
        return Measured(ratio, ratio, ratio)


@dataclass(frozen=True)
class Goal:
    """`demands` names the number; exactly one of the bounds is set, in `unit`."""

    work: str
    demands: str
    source: Source
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def keeps(self, value: float) -> bool:
        """Tell whether this number is good enough."""
        too_little = self.at_least is not None and value < self.at_least
        return not too_little and (self.at_most is None or value <= self.at_most)

    @property
    def text(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        assert bound is not None
        return f"{self.demands} {sign} {number(bound)}{self.unit}"

    def row(self, readings: Readings) -> tuple[str, str, str, str]:
        """Return work, goal, what was measured, and the verdict."""
        found = self.source(readings)
        if found is None:
            return self.work, self.text, "", "not measured"
        verdict = "met" if self.keeps(found.value) else "**missed**"
        mixed = self.keeps(found.least) != self.keeps(found.most)
        return self.work, self.text, str(found), verdict + (", not in each round" if mixed else "")
