"""How an attempt ended, in closed sets: the words of metrics, logs and observers."""

from __future__ import annotations

import enum


class JobOutcome(enum.StrEnum):
    """The end of one attempt."""

    SUCCESS = "success"
    RETRIED = "retried"
    BURIED = "buried"
    EXPIRED = "expired"
    LOST = "lost"  # counted beside the handler's outcome: its settlement came too late


class RetryReason(enum.StrEnum):
    """Why a job went back into the queue."""

    EXCEPTION = "exception"
    REQUESTED = "requested"  # Transient, or a transient result
    UNKNOWN_TYPE = "unknown_type"
    TIMEOUT = "timeout"  # its soft time limit was over
    CRASH = "crash"
