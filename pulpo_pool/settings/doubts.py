"""Doubts: settings that are right each by itself and may still not be what was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulpo_pool.settings.record import Settings

LEAVING: Final = 5.0  # seconds that handing back and the services' leaving may take after a drain


def doubts(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each; `sources` says where every value came from."""
    drain, grace = settings.drain_timeout, settings.grace
    if 0 < grace < drain + LEAVING:
        shorter = f"set it to at most {grace - LEAVING:g} s or " if grace > LEAVING else ""
        yield (
            f"drain-timeout: {drain:g} s (from {sources['drain_timeout']}), and {LEAVING:g} s for "
            f"leaving, do not fit into the {grace:g} s that the platform waits before it kills "
            f"(grace, from {sources['grace']}); jobs would be killed instead of handed back: "
            f"{shorter}let the platform wait longer"
        )
