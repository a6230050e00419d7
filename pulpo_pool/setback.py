"""Setback: one attempt at a job that did not end well, as evidence for people."""

from __future__ import annotations

import msgspec


class Setback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an attempt ended, when, and where. Kept with the job, the oldest first.

    `outcome` is what became of the job: "retried" or "buried"; `reason` says why in the closed
    words of RetryReason and BuryReason, and with those of Fate where a worker ended whose job is
    not to blame. Resource usage is the worker's, known only if it died.
    """

    at: float  # Unix seconds
    attempt: int
    outcome: str
    reason: str = ""
    error: str = ""  # a traceback, or how the worker ended; cut to a limit
    worker: str = ""  # the owner as text: pool/instance/slot/serial
    host: str = ""
    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    max_rss: int | None = None  # bytes
    cpu: float | None = None  # seconds
    stack: str = ""  # the last that the worker showed before its master ended it
