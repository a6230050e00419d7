"""Settings: one frozen record, built once from all sources, checked whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from pulpo_pool.cgroup import Cgroups
from pulpo_pool.codec import LARGEST_MESSAGE
from pulpo_pool.errors import ConfigError, PulpoPoolError
from pulpo_pool.memory import size_text
from pulpo_pool.message import DEFAULT_QUEUE, check_name
from pulpo_pool.settings.doubts import doubts
from pulpo_pool.settings.fields import Mismatch, about, fields_of
from pulpo_pool.settings.sources import collect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from pulpo_pool.settings.fields import SettingField
    from pulpo_pool.settings.sources import Given

MAX_WORKERS: Final = 256
DEFAULT_SOURCE: Final = "default"

_LONGEST_WAIT: Final = 1_728_000  # seconds, 20 days: epoll counts milliseconds in 31 bits
_LONGEST_POOL_NAME: Final = 64  # characters
_SHORTEST_SUMMARY_INTERVAL: Final = 0.1  # seconds; the master has other work
_PORTS: Final = 65_536

Seconds = Annotated[float, Meta(ge=0, le=_LONGEST_WAIT)]
Count = Annotated[int, Meta(ge=0, le=2**31)]
Size = Annotated[int, Meta(ge=0, le=2**62)]
Limit = Annotated[int, Meta(ge=1, le=2**31)]


def usable_cpus(cgroups: Cgroups | None = None) -> int:
    """Return how many CPUs this process may use: its affinity, or its cgroup's smaller quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = (cgroups or Cgroups()).cpus()
    return min(cpus, quota or cpus, MAX_WORKERS)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, with its default. Times are seconds, sizes bytes."""

    app: Annotated[
        str | None, about("The app to run, MODULE:NAME; without one the samples run.", flag="APP")
    ] = None
    broker: Annotated[
        str,
        about(
            "The queue's address, such as file:PATH; by default queue.db in the state directory.",
            short="-b",
            metavar="URL",
        ),
    ] = ""
    queues: Annotated[
        tuple[str, ...],
        Meta(min_length=1),
        about("The queues to work on; repeat it for several.", flag="--queue", short="-q"),
    ] = (DEFAULT_QUEUE,)
    workers: Annotated[
        int,
        Meta(ge=1, le=MAX_WORKERS),
        about(
            "Worker processes; auto, the default, is one for each CPU that the machine, the "
            "affinity and the cgroup's quota leave.",
            short="-w",
            metavar="N|auto",
            auto=usable_cpus,
        ),
    ] = msgspec.field(default_factory=usable_cpus)
    min_workers: Annotated[
        int,
        Meta(ge=0, le=MAX_WORKERS),
        about(
            "Workers that stay when there is little to do; the idle rest leaves, and returns when "
            "all others are busy. 0: all stay."
        ),
    ] = 0
    name: Annotated[
        str,
        about("The pool's name; each pool of a host needs its own.", short="-n", metavar="NAME"),
    ] = "default"
    state_dir: Annotated[
        str, about("The directory for what the pool keeps on disk.", metavar="DIR")
    ] = ".pulpo"
    pidfile: Annotated[
        str | None,
        about(
            "A file for the master's pid, besides the one in the state directory.", metavar="FILE"
        ),
    ] = None
    http: Annotated[
        str,
        about(
            "HOST:PORT for metrics and health (port 0: any free one), or off.", metavar="ADDRESS"
        ),
    ] = "127.0.0.1:9700"
    drain_timeout: Annotated[
        Seconds,
        about("Seconds that jobs have to finish when the pool stops; the rest is handed back."),
    ] = 25.0
    grace: Annotated[
        Seconds,
        about(
            "Seconds from the platform's TERM to its KILL, if it is known: a warning says when "
            "the drain does not fit. 0: unknown."
        ),
    ] = 0.0
    boot_timeout: Annotated[Seconds, about("Seconds that a new worker has to report for work.")] = (
        60.0
    )
    max_empty_iterations: Annotated[
        Count,
        about("Looks for work that may find nothing in a row before a worker is replaced; 0: any."),
    ] = 60
    sleep_duration: Annotated[
        float,
        Meta(gt=0, le=_LONGEST_WAIT),
        about("Seconds that one look for work waits for a job to arrive."),
    ] = 5.0
    time_limit: Annotated[
        Seconds,
        about("Seconds an attempt may run before its worker is ended; 0: without end."),
    ] = 3600.0
    soft_time_limit: Annotated[
        Seconds,
        about("Seconds after which SoftTimeLimit is raised inside a handler; 0: never."),
    ] = 0.0
    max_jobs: Annotated[
        Count, about("Jobs after which a worker is replaced, give or take a tenth; 0: any number.")
    ] = 0
    max_age: Annotated[
        Seconds, about("Seconds after which a worker is replaced, give or take a tenth; 0: never.")
    ] = 0.0
    max_memory: Annotated[
        Size,
        about(
            "Private memory above which a worker is replaced after its job, give or take a tenth, "
            "such as 200M or 1GiB; 0: any.",
            kind="size",
        ),
    ] = 0
    max_memory_hard: Annotated[
        Size,
        about(
            "Private memory above which a worker is killed, and its job counts a crash; 0: any.",
            kind="size",
        ),
    ] = 0
    lease: Annotated[
        float,
        Meta(ge=1, le=_LONGEST_WAIT),
        about("Seconds that a job stays a worker's own if its host is never heard of again."),
    ] = 60.0
    max_attempts: Annotated[Limit, about("Attempts that a failing job gets before its burial.")] = (
        20
    )
    max_crashes: Annotated[Limit, about("Workers that a job may kill before its burial.")] = 3
    on_expired: Annotated[
        Literal["discard", "bury"], about("What becomes of a job past its expiration.")
    ] = "discard"
    max_message_bytes: Annotated[
        Limit, about("Bytes that an encoded message may have to be published.")
    ] = LARGEST_MESSAGE
    serializer: Annotated[
        Literal["json", "msgpack"], about("How messages are written; both are read.")
    ] = "json"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        about("The least important log lines to show.", short="-l"),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "text", "json"],
        about("How log lines look; auto is text on a terminal and JSON elsewhere."),
    ] = "auto"
    summary_interval: Annotated[
        Seconds, about("Seconds between two log lines that sum up the pool; 0: none.")
    ] = 0.0
    preload: Annotated[
        bool, about("Import the app once and fork workers from there (Linux only).")
    ] = True
    watch: Annotated[bool, about("Reload when a file of the app changes; for development.")] = False
    burst: Annotated[bool, about("Work until the queues are empty, then exit.")] = False
    handlers: Annotated[
        dict[str, dict[str, Any]], about("Options of PayloadHandlers, a table for each of them.")
    ] = {}

    @property
    def run_dir(self) -> Path:
        """The directory of this pool's run-time files."""
        return Path(self.state_dir) / "run" / self.name

    @property
    def evidence_file(self) -> Path:
        """Where it is kept why jobs failed, if their queue cannot keep it."""
        return Path(self.state_dir) / "evidence.db"

    @property
    def control_socket(self) -> Path:
        """The control socket's path, before it is shortened for the kernel's limit."""
        return self.run_dir / "control.sock"

    @property
    def broker_url(self) -> str:
        """The engine's address with the default filled in."""
        if self.broker:
            return self.broker
        from pulpo_pool.queues.opening import file_url

        return file_url(str(Path(self.state_dir) / "queue.db"))

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Where to serve HTTP, as host and port; None for nowhere."""
        return None if self.http == "off" else parse_address(self.http)


SETTING_FIELDS: Final[Mapping[str, SettingField]] = fields_of(Settings)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each value came from, and what deserves a warning."""

    settings: Settings
    sources: Mapping[str, str]  # by the field's name, such as "pulpo-pool.toml: workers"
    warnings: tuple[str, ...] = ()
    hinted: frozenset[str] = frozenset()  # names of what only the platform has an opinion on

    def is_given(self, name: str) -> bool:
        """Tell whether somebody set this, rather than left it to the platform or its default."""
        return self.sources[name] != DEFAULT_SOURCE and name not in self.hinted


def read_environment() -> dict[str, str]:
    """Return the environment; nothing else in the program reads it."""
    return dict(os.environ)


def load_settings(
    flags: Mapping[str, Any], *, directory: Path, environ: Mapping[str, str]
) -> Loaded:
    """Return the settings from all sources: flags, environment, file, platform, defaults.

    `flags` are named like the fields, None for one that was not given; `config` among them names
    the file to read instead of pulpo-pool.toml or pyproject.toml in `directory`.

    Raises ConfigError with a line for every mistake: unknown names in any source, and every
    value that would have been used.
    """
    findings = collect(SETTING_FIELDS, flags, directory=directory, environ=environ)
    values: dict[str, Any] = {}
    for name, given in findings.given.items():
        try:
            values[name] = _value(SETTING_FIELDS[name], given)
        except (Mismatch, PulpoPoolError) as problem:
            findings.problems.extend(f"{given.source}: {line}" for line in str(problem).split("\n"))
    settings = Settings(**values)
    sources = dict.fromkeys(SETTING_FIELDS, DEFAULT_SOURCE)
    sources |= {name: given.source for name, given in findings.given.items()}
    wrong = findings.given.keys() - values.keys()
    findings.problems += _contradictions(settings, sources, wrong)
    if findings.problems:
        raise ConfigError(findings.problems)
    hinted = frozenset(name for name, given in findings.given.items() if given.is_hint)
    return Loaded(settings, sources, (*findings.warnings, *doubts(settings, sources)), hinted)


def load_address(
    flags: Mapping[str, Any], *, directory: Path, environ: Mapping[str, str]
) -> Settings:
    """Return settings of which only `name` and `state_dir` are read: they find a running pool.

    Raises ConfigError for mistakes in these two; what else is wrong does not keep from asking.
    """
    given = collect(SETTING_FIELDS, flags, directory=directory, environ=environ).given
    values: dict[str, Any] = {}
    for name in ("name", "state_dir"):
        if name in given:
            try:
                values[name] = _value(SETTING_FIELDS[name], given[name])
            except Mismatch as problem:
                raise ConfigError(f"{given[name].source}: {problem}") from problem
    return Settings(**values)


def _contradictions(
    settings: Settings, sources: Mapping[str, str], wrong: AbstractSet[str]
) -> Iterator[str]:
    """Yield what cannot hold together, of the settings that are no mistake by themselves."""
    low, high = settings.min_workers, settings.workers
    if low > high and not wrong & {"min_workers", "workers"}:
        yield (
            f"{sources['min_workers']}: {low} workers cannot stay in a pool of {high} "
            f"(workers, from {sources['workers']})"
        )
    soft, hard = settings.max_memory, settings.max_memory_hard
    if 0 < hard <= soft and not wrong & {"max_memory", "max_memory_hard"}:
        yield (
            f"{sources['max_memory']}: expected less than max-memory-hard "
            f"({size_text(hard)}, from {sources['max_memory_hard']}), got {size_text(soft)}"
        )
    early, late = settings.soft_time_limit, settings.time_limit
    if 0 < late <= early and not wrong & {"soft_time_limit", "time_limit"}:
        yield (
            f"{sources['soft_time_limit']}: expected less than time-limit "
            f"({late:g} s, from {sources['time_limit']}), got {early:g} s"
        )


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and port in HOST:PORT or [IPV6]:PORT; raise Mismatch if there are none."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    sound = host and host.isascii() and host.isprintable() and " " not in host
    if not sound or (":" in host) != bracketed or not (port.isascii() and port.isdigit()):
        raise Mismatch(f"expected HOST:PORT (such as 127.0.0.1:9700) or off, got {text!r}")
    if int(port) >= _PORTS:
        raise Mismatch(f"expected a port from 0 to {_PORTS - 1}, got {port}")
    return host, int(port)


def _value(setting: SettingField, given: Given) -> Any:
    value = setting.read(given.value, from_text=given.from_text)
    check = _CHECKS.get(setting.name)
    if check is not None:
        check(value)
    return value


def _check_http(text: str) -> None:
    if text != "off":
        parse_address(text)


def _check_pool_name(name: str) -> None:
    sound = 0 < len(name) <= _LONGEST_POOL_NAME and name.isprintable() and "/" not in name
    if not sound or name in (".", ".."):
        raise Mismatch(
            f"expected 1 to {_LONGEST_POOL_NAME} characters that make a directory's name, "
            f"got {name!r}"
        )


def _check_summary_interval(seconds: float) -> None:
    if 0 < seconds < _SHORTEST_SUMMARY_INTERVAL:
        raise Mismatch(f"expected 0 or {_SHORTEST_SUMMARY_INTERVAL} and more, got {seconds}")


def _check_path(path: str | None) -> None:
    if path is not None and (not path or "\0" in path):
        raise Mismatch(f"expected a path, got {path!r}")


def _check_queues(queues: tuple[str, ...]) -> None:
    for queue in queues:
        check_name(queue, "a queue's name")


def _check_broker(url: str) -> None:
    if url:
        from pulpo_pool.queues.opening import check_url

        check_url(url)


_CHECKS: Final[Mapping[str, Callable[[Any], None]]] = {
    "broker": _check_broker,
    "http": _check_http,
    "name": _check_pool_name,
    "pidfile": _check_path,
    "queues": _check_queues,
    "state_dir": _check_path,
    "summary_interval": _check_summary_interval,
}
