"""Settings: one frozen record, built once from all sources, checked whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pulpo_pool.codec import LARGEST_MESSAGE
from pulpo_pool.message import DEFAULT_QUEUE

MAX_WORKERS = 256

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, with its default. Times are seconds, sizes bytes."""

    app: str | None = None
    broker: str = ""  # empty: `file:` with queue.db in the state directory
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    workers: Annotated[int, Meta(ge=1, le=MAX_WORKERS)] = 4
    name: str = "default"
    state_dir: str = ".pulpo"
    pidfile: str | None = None
    http: str = "127.0.0.1:9700"
    drain_timeout: Seconds = 25.0
    boot_timeout: Seconds = 60.0
    max_empty_iterations: Count = 60
    sleep_duration: Annotated[float, Meta(gt=0)] = 5.0
    lease: Annotated[float, Meta(ge=1)] = 60.0
    max_attempts: Annotated[int, Meta(ge=1)] = 20
    max_crashes: Annotated[int, Meta(ge=1)] = 3
    on_expired: Literal["discard", "bury"] = "discard"
    max_message_bytes: Annotated[int, Meta(ge=1)] = LARGEST_MESSAGE
    serializer: Literal["json", "msgpack"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json"] = "auto"
    burst: bool = False
    handlers: dict[str, dict[str, Any]] = {}  # options of PayloadHandlers, by request_type

    @property
    def run_dir(self) -> Path:
        """The directory of this pool's run-time files."""
        return Path(self.state_dir) / "run" / self.name

    @property
    def control_socket(self) -> Path:
        """The control socket's path, before it is shortened for the kernel's limit."""
        return self.run_dir / "control.sock"

    @property
    def broker_url(self) -> str:
        """The engine's address with the default filled in."""
        return self.broker or f"file:{Path(self.state_dir) / 'queue.db'}"
