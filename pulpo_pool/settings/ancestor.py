"""pulpo-messaging's JSON configuration, in the words of our settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pulpo_pool.settings.fields import Mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ADAPTERS: Final = {
    "FileQueueAdapter": "file_queue_adapter",
    "file_queue_adapter": "file_queue_adapter",
    "BeanstalkdQueueAdapter": "beanstalkd_queue_adapter",
    "beanstalkd_queue_adapter": "beanstalkd_queue_adapter",
}

# Sections with a handler's options, and the sample that they are for.
_HANDLERS: Final = {
    "echo_handler": "echo",
    "lower_handler": "lower",
    "upper_handler": "upper",
    "AlwaysSucceedHandler": None,  # these have no options here
    "AlwaysFailHandler": None,
    "FiftyFiftyHandler": None,
}

# What said how its runner looked or polled; here nothing polls, and metrics are always there.
_WITHOUT_MEANING: Final = frozenset(
    {"banner", "enable_output_buffering", "enable_statman_reporting", "queue_adapter_type"}
)
_UNLIMITED: Final = 2**31  # attempts; the ancestor's 0 switched the limit off
_SHORTEST_LOOK: Final = 0.05  # seconds; its sleep of 0
_ENVIRONMENT: Final = "$ENV."


def translated(content: object, environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    """Yield settings as (key of ours or unknown, value, key in the file). Raises Mismatch.

    A value `$ENV.NAME` is read from the environment. Keys that are ours already are passed on.
    """
    if not isinstance(content, dict):
        raise Mismatch(f"expected an object, got {content!r}")
    table = _resolved(content, environ)
    yield from _plain(table)
    handlers = {request_type: table[key] for key, request_type in _HANDLERS.items() if key in table}
    handlers.pop(None, None)
    if handlers:
        yield "handlers", handlers, "the handlers' sections"
    kind = table.get("queue_adapter_type")
    if kind is not None:
        yield from _queue(kind, table)


def _plain(table: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for key, value in table.items():
        if key == "sleep_duration" and value == 0:
            yield key, _SHORTEST_LOOK, key
        elif key not in _WITHOUT_MEANING and key not in _ADAPTERS and key not in _HANDLERS:
            yield key, value, key


def _queue(kind: object, table: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    section = _ADAPTERS.get(kind) if isinstance(kind, str) else None
    if section is None:
        raise Mismatch(
            "queue_adapter_type: expected file_queue_adapter or beanstalkd_queue_adapter, "
            f"got {kind!r}"
        )
    options = table.get(section, {})
    if not isinstance(options, dict):
        raise Mismatch(f"{section}: expected an object, got {options!r}")
    for name, value in _SECTIONS[section](options):
        yield name, value, section
    attempts = options.get("max_number_of_attempts")
    if attempts is not None:
        yield "max_attempts", attempts or _UNLIMITED, f"{section}.max_number_of_attempts"


def _file(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    base = options.get("base_path", "/tmp/kessel/default")  # noqa: S108 - the ancestor's
    yield "broker", "file:" + quote(f"{base}/queue.db", safe="/:@!$&'()*+,;=~ #[]")


def _beanstalkd(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    host, port = options.get("host", "127.0.0.1"), options.get("port", 11_300)
    shown = f"[{host}]" if ":" in str(host) else host
    parameters = {
        "encoding": options.get("encoding"),
        "socket_timeout": options.get("socket_timeout"),
    }
    given = [f"{name}={value}" for name, value in parameters.items() if value is not None]
    yield "broker", f"beanstalkd://{shown}:{port}" + ("?" + "&".join(given) if given else "")
    yield "queues", [options.get("default_tube", "pulpo-beanstalk-queue-adapter")]


_SECTIONS: Final[Mapping[str, Callable[[dict[str, Any]], Iterator[tuple[str, Any]]]]] = {
    "file_queue_adapter": _file,
    "beanstalkd_queue_adapter": _beanstalkd,
}


def _resolved(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(each, environ) for key, each in value.items()}
    if isinstance(value, str) and value.startswith(_ENVIRONMENT):
        name = value.removeprefix(_ENVIRONMENT)
        if name not in environ:
            raise Mismatch(f"{value}: the environment has no {name}")
        return environ[name]
    return value
