"""From a queue's URL to its adapter: the only place that imports drivers, each when it is named."""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from pulpo_pool.errors import ConfigError, InvalidMessage
from pulpo_pool.message import DEFAULT_QUEUE, check_name
from pulpo_pool.queues.adapter import DEFAULT_LEASE, Owner, QueueAdapter
from pulpo_pool.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from pulpo_pool.clock import Clock
    from pulpo_pool.codec import Codec


@dataclass(frozen=True, slots=True)
class QueueAddress:
    """A queue's URL, read and found right; `shared` says whether processes can share it."""

    url: str
    scheme: str
    target: str
    parameters: Mapping[str, Any]

    @property
    def shared(self) -> bool:
        """Whether the adapters of several processes see the same jobs."""
        return _ENGINES[self.scheme].shared


@dataclass(frozen=True, slots=True)
class _Engine:
    shared: bool
    read_target: Callable[[str], str]
    parameters: Mapping[str, Callable[[str], Any]]
    open: Callable[[str, dict[str, Any]], QueueAdapter]
    module: str
    keeps_evidence: bool = True  # with its jobs


@lru_cache(maxsize=8)  # a pool reads one: its workers would, again, for 0.1 MB of each
def check_url(url: str) -> QueueAddress:
    """Read a queue's URL without opening anything; raise ConfigError if it cannot be right."""
    scheme, colon, rest = url.partition(":")
    if not colon or not scheme.isalnum():
        raise ConfigError(
            f"broker {url!r}: expected a scheme and a colon in front, such as "
            f"file:{url or 'PATH'}; schemes: {', '.join(_ENGINES)}"
        )
    engine = _ENGINES.get(scheme.lower())
    if engine is None:
        raise ConfigError(
            f"broker {url!r}: unknown scheme {scheme!r}{_hint(scheme.lower(), _ENGINES)}; "
            f"schemes: {', '.join(_ENGINES)}"
        )
    target, _, query = rest.partition("?")
    try:
        return QueueAddress(
            url=url,
            scheme=scheme.lower(),
            target=engine.read_target(target),
            parameters=MappingProxyType(_read_parameters(query, engine)),
        )
    except ValueError as problem:
        raise ConfigError(f"broker {url!r}: {problem}") from None


def open_queue(
    url: str,
    *,
    queues: Sequence[str] = (DEFAULT_QUEUE,),
    lease: float = DEFAULT_LEASE,
    owner: Owner | None = None,
    codec: Codec | None = None,
    clock: Clock | None = None,
    evidence_file: Path | None = None,
) -> QueueAdapter:
    """Open the queue at a URL. What the URL says of the lease goes before the argument.

    `evidence_file` is for what became of attempts, where the engine itself cannot keep it.

    Raises ConfigError if the URL or a queue's name is wrong, QueueUnavailable if the engine
    cannot be reached.
    """
    address = check_url(url)
    if not queues:
        raise ConfigError("queues: expected the name of one queue at least")
    try:
        names = [check_name(name, "a queue's name") for name in queues]
    except InvalidMessage as problem:
        raise ConfigError(str(problem)) from None
    engine = _ENGINES[address.scheme]
    options: dict[str, Any] = {"queues": names, "lease": lease, "owner": owner}
    options |= {"codec": codec, "clock": clock, **address.parameters}
    if not engine.keeps_evidence:
        options["evidence_file"] = evidence_file
    return engine.open(address.target, options)


def import_driver(url: str) -> None:
    """Import what opening this URL needs: once, before many processes are forked from this one."""
    import_module(_ENGINES[check_url(url).scheme].module)


def file_url(path: str) -> str:
    """Return the URL of a file queue, whatever characters are in its path."""
    return "file:" + quote(path, safe="/:@!$&'()*+,;=~ #[]")


def _read_parameters(query: str, engine: _Engine) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, equals, text = part.partition("=")
        read = engine.parameters.get(name)
        if read is None:
            raise ValueError(
                f"unknown parameter {name!r}{_hint(name, engine.parameters)}; "
                f"parameters: {', '.join(engine.parameters)}"
            )
        if not equals or name in values:
            raise ValueError(f"parameter {name!r}: expected one {name}=VALUE")
        values[name] = read(unquote(text))
    return values


def _read_seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"parameter {name!r}: expected seconds, more than 0, got {text!r}")
    return seconds


def _read_encoding(text: str) -> str:
    try:
        return codecs.lookup(text).name
    except (LookupError, ValueError):
        raise ValueError(f"parameter 'encoding': Python knows no {text!r}") from None


def _read_durability(text: str) -> str:
    if text not in ("full", "normal"):
        raise ValueError(
            f"parameter 'durability': expected full (a published job is on the disk) or normal "
            f"(a power cut may lose the last ones), got {text!r}"
        )
    return text


def _read_path(target: str) -> str:
    """Return the path in `file:PATH`, `file:///PATH` or `file://localhost/PATH`."""
    path = target
    if target.startswith("//"):
        host, slash, rest = target[2:].partition("/")
        if host not in ("", "localhost") or not slash:
            raise ValueError(
                f"{host!r} stands where a host would; write file:{target[2:]} for a relative or "
                f"file:/{target[2:]} for an absolute path"
            )
        path = slash + rest
    path = unquote(path, errors="surrogateescape")
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError("expected the path of a file, such as file:/var/lib/app/queue.db")
    return path


def _read_nothing(target: str) -> str:
    if target.strip("/"):
        raise ValueError(f"a memory queue has no name, got {target!r}; write memory:")
    return ""


def _read_host(target: str) -> str:
    """Return HOST:PORT of `//HOST:PORT`, each of which may be left out."""
    parts = urlsplit(target)
    try:
        port = parts.port
    except ValueError as problem:
        raise ValueError(f"{problem}; expected beanstalkd://HOST:PORT") from None
    alone = not parts.path.strip("/") and "@" not in parts.netloc and not parts.fragment
    if not target.startswith("//") or not alone or port == 0 or not target.isprintable():
        raise ValueError(
            "expected beanstalkd://HOST:PORT, such as beanstalkd://127.0.0.1:11300, and tubes "
            "as queues (-q)"
        )
    return f"{parts.hostname or '127.0.0.1'}|{11_300 if port is None else port}"


def _open_beanstalkd(target: str, options: dict[str, Any]) -> QueueAdapter:
    from pulpo_pool.queues.beanstalkd import BeanstalkdQueueAdapter

    host, _, port = target.rpartition("|")
    return BeanstalkdQueueAdapter(host, int(port), **options)


def _open_file(target: str, options: dict[str, Any]) -> QueueAdapter:
    from pulpo_pool.queues.file import FileQueueAdapter

    return FileQueueAdapter(target, **options)


def _open_memory(_target: str, options: dict[str, Any]) -> QueueAdapter:
    from pulpo_pool.queues.memory import MemoryQueueAdapter

    return MemoryQueueAdapter(**options)


def _hint(word: str, known: Collection[str]) -> str:
    near = nearest(word, known)
    return f", did you mean {near!r}?" if near else ""


_ENGINES: Final[Mapping[str, _Engine]] = MappingProxyType(
    {
        "file": _Engine(
            shared=True,
            read_target=_read_path,
            parameters={
                "durability": _read_durability,
                "keep_done": partial(_read_seconds, "keep_done"),
                "lease": partial(_read_seconds, "lease"),
            },
            open=_open_file,
            module="pulpo_pool.queues.file",
        ),
        "beanstalkd": _Engine(
            shared=True,
            read_target=_read_host,
            parameters={
                "encoding": _read_encoding,
                "lease": partial(_read_seconds, "lease"),
                "socket_timeout": partial(_read_seconds, "socket_timeout"),
            },
            open=_open_beanstalkd,
            module="pulpo_pool.queues.beanstalkd",
            keeps_evidence=False,
        ),
        "memory": _Engine(
            shared=False,
            read_target=_read_nothing,
            parameters={"lease": partial(_read_seconds, "lease")},
            open=_open_memory,
            module="pulpo_pool.queues.memory",
        ),
    }
)
