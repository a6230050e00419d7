"""pulpo-pool: the supervisor-first worker pool for Python."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulpo_pool.app.context import JobContext
    from pulpo_pool.app.handlers import HandlerRegistry, PayloadHandler
    from pulpo_pool.app.jobs import Job
    from pulpo_pool.app.pulpo import Middleware, Pulpo
    from pulpo_pool.app.results import Fatal, RequestResult, ResultKind, SoftTimeLimit, Transient
    from pulpo_pool.errors import (
        ConfigError,
        InvalidHandler,
        InvalidMessage,
        MessageTooLarge,
        PartlyPublished,
        PulpoPoolError,
        QueueUnavailable,
    )
    from pulpo_pool.message import Message
    from pulpo_pool.settings import Settings

__all__ = [
    "ConfigError",
    "Fatal",
    "HandlerRegistry",
    "InvalidHandler",
    "InvalidMessage",
    "Job",
    "JobContext",
    "Message",
    "MessageTooLarge",
    "Middleware",
    "PartlyPublished",
    "PayloadHandler",
    "Pulpo",
    "PulpoPoolError",
    "QueueUnavailable",
    "RequestResult",
    "ResultKind",
    "Settings",
    "SoftTimeLimit",
    "Transient",
]

__version__ = "0.1.0"

# Each name is imported when it is first asked for: the master imports this package too, and must
# not load what only apps need.
_HOMES = {
    "app.context": ("JobContext",),
    "errors": (
        "ConfigError",
        "InvalidHandler",
        "InvalidMessage",
        "MessageTooLarge",
        "PartlyPublished",
        "PulpoPoolError",
        "QueueUnavailable",
    ),
    "app.handlers": ("HandlerRegistry", "PayloadHandler"),
    "app.jobs": ("Job",),
    "message": ("Message",),
    "app.pulpo": ("Middleware", "Pulpo"),
    "app.results": ("Fatal", "RequestResult", "ResultKind", "SoftTimeLimit", "Transient"),
    "settings": ("Settings",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
