"""Settings: one frozen record, built once from all sources, checked whole."""

from __future__ import annotations

from pulpo_pool.settings.record import (
    MAX_WORKERS,
    SETTING_FIELDS,
    Loaded,
    Settings,
    load_address,
    load_settings,
    parse_address,
    read_environment,
    usable_cpus,
)

__all__ = [
    "MAX_WORKERS",
    "SETTING_FIELDS",
    "Loaded",
    "Settings",
    "load_address",
    "load_settings",
    "parse_address",
    "read_environment",
    "usable_cpus",
]
