"""The WSGI application: metrics and health, nothing that depends on what a client sends.

Answers are made of the pool's own words only; no part of a request comes back in one.
"""

from __future__ import annotations

import gzip
import ipaddress
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from prometheus_client.exposition import choose_encoder, gzip_accepted

from pulpo_pool.web.health import is_healthy, reasons_not_ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from pulpo_pool.clock import Clock
    from pulpo_pool.scoreboard import Scoreboard
    from pulpo_pool.web.file_collector import FileCollector

logger = logging.getLogger(__name__)

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_OPENMETRICS: Final = "application/openmetrics-text"
_INDEX: Final = b"""pulpo-pool

/metrics   for Prometheus
/healthz   200 while the pool's master goes round its loop
/readyz    200 while the pool takes jobs, and why not if it does not
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to a client."""

    status: str
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


Route: TypeAlias = Callable[[dict[str, Any]], Answer]


def build_app(
    scoreboard: Scoreboard, known: Iterable[Collector], files: FileCollector, clock: Clock
) -> WSGIApplication:
    """Return the application. `files` may hold what handlers made; `known` is the pool's own."""
    exposition = _Exposition(tuple(known), files)

    def health(_environ: WSGIEnvironment) -> Answer:
        if is_healthy(scoreboard, clock.monotonic()):
            return Answer("200 OK", b"ok\n")
        return Answer("503 Service Unavailable", b"the master is stuck or gone\n")

    def readiness(_environ: WSGIEnvironment) -> Answer:
        reasons = reasons_not_ready(scoreboard, clock.monotonic())
        body = msgspec.json.encode({"ready": not reasons, "reasons": reasons})
        status = "503 Service Unavailable" if reasons else "200 OK"
        return Answer(status, body + b"\n", _JSON)

    routes: dict[str, Route] = {
        "/": lambda _environ: Answer("200 OK", _INDEX),
        "/metrics": exposition.answer,
        "/healthz": health,
        "/readyz": readiness,
    }

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _send(_answer(routes, environ), environ, start_response)

    return app


def only_local_names(app: WSGIApplication) -> WSGIApplication:
    """Refuse requests that reached a loopback address under a name from outside.

    A web page can point its own name at 127.0.0.1 and so read what only this machine should see
    (DNS rebinding); the Host header then still carries that name.
    """

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "localhost")).lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return app(environ, start_response)
        text = b"this address answers to localhost only: set --http to serve other names\n"
        return _send(Answer("421 Misdirected Request", text), environ, start_response)

    return guarded


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _answer(routes: dict[str, Route], environ: WSGIEnvironment) -> Answer:
    route = routes.get(str(environ.get("PATH_INFO")) or "/")
    if route is None:
        return Answer("404 Not Found", b"there is nothing here: see /\n")
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return Answer(
            "405 Method Not Allowed", b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),)
        )
    try:
        return route(environ)
    except Exception:
        logger.exception("a request could not be answered")
        return Answer("500 Internal Server Error", b"see the log of the pool\n")


def _send(
    answer: Answer, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *answer.headers,
    ]
    start_response(answer.status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]


class _Families:
    """Families that were collected already, in the shape an encoder wants."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


class _Exposition:
    """Everything a scrape gets."""

    def __init__(self, known: tuple[Collector, ...], files: FileCollector) -> None:
        self._known = known
        self._files = files

    def answer(self, environ: WSGIEnvironment) -> Answer:
        """Collect and encode what all processes of the pool know."""
        # The client's own version numbers are not repeated: they would come back in a header.
        accepted = str(environ.get("HTTP_ACCEPT", ""))
        openmetrics = f"{_OPENMETRICS}; version=1.0.0" if _OPENMETRICS in accepted else ""
        encode, content_type = choose_encoder(openmetrics)
        families = [family for collector in self._known for family in collector.collect()]
        families += self._files.collect()
        try:
            body = encode(_Families(families))
        except Exception:  # noqa: BLE001 - a handler's labels may be what no encoder takes
            body = encode(_Families(self._encodable(families, encode)))
        headers: tuple[tuple[str, str], ...] = (("Vary", "Accept, Accept-Encoding"),)
        if gzip_accepted(str(environ.get("HTTP_ACCEPT_ENCODING", ""))):
            body = gzip.compress(body, compresslevel=1)
            headers += (("Content-Encoding", "gzip"),)
        return Answer("200 OK", body, content_type, headers)

    def _encodable(
        self, families: list[Metric], encode: Callable[[Collector], bytes]
    ) -> list[Metric]:
        kept = []
        for family in families:
            try:
                encode(_Families([family]))
            except Exception as error:  # noqa: BLE001 - see answer
                self._files.skip(f"metric {family.name!a}", error)
            else:
                kept.append(family)
        return kept
