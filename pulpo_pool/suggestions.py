"""Did you mean: what to say about a word that nobody knows."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` was probably meant to be, whatever its case.

    The same letters in another order are the surest sign of all.
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    letters = sorted(word.lower())
    swapped = [candidate for candidate in by_lower if sorted(candidate) == letters]
    near = swapped or difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" to end a sentence with, or nothing where no word is near."""
    near = nearest(word, known)
    return "" if near is None else f"; did you mean {near!r}?"
