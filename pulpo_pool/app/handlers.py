"""Handlers: what runs a job, and the registry that knows them by request_type."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pulpo_pool.app.context import JobContext
from pulpo_pool.app.pauses import NO_PAUSES, PausePolicy
from pulpo_pool.app.results import Fatal, RequestResult, ResultKind, SoftTimeLimit, Transient
from pulpo_pool.app.retry import DEFAULT_MAX_ATTEMPTS, RetryPolicy
from pulpo_pool.app.signatures import context_names, describe, read_signature, signature_of
from pulpo_pool.errors import AppImportError, DuplicateHandler, InvalidHandler
from pulpo_pool.message import check_name

if TYPE_CHECKING:
    from pulpo_pool.app.retry import Retry, Stop, Wait

__all__ = [
    "Fatal",
    "Handler",
    "HandlerOptions",
    "HandlerRegistry",
    "JobContext",
    "PayloadHandler",
    "RequestResult",
    "ResultKind",
    "SoftTimeLimit",
    "TimeLimits",
    "Transient",
]  # all that a handler is written with, from one place

Call: TypeAlias = "Callable[[JobContext], object]"


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long an attempt may run, in seconds; 0 is without end, None leaves it to the pool.

    At the soft limit SoftTimeLimit is raised inside the handler; at the hard one the master ends
    the worker, whatever it does.
    """

    soft: float | None = None
    hard: float | None = None

    def __post_init__(self) -> None:
        for name, limit in (("soft_time_limit", self.soft), ("time_limit", self.hard)):
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if limit is not None and not (number and 0 <= limit < float("inf")):
                raise InvalidHandler(f"{name}: expected seconds, 0 or more, got {limit!r}")
        if self.soft and self.hard and self.soft >= self.hard:
            raise InvalidHandler(
                f"soft_time_limit: expected less than the time_limit of {self.hard:g} s, "
                f"got {self.soft:g}"
            )

    def within(self, pool: TimeLimits) -> TimeLimits:
        """Return the limits with the pool's where none are given."""
        return TimeLimits(
            pool.soft if self.soft is None else self.soft,
            pool.hard if self.hard is None else self.hard,
        )


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler made ready for a worker: `call` it with a JobContext."""

    request_type: str
    call: Call
    retry: RetryPolicy
    description: str  # module:qualname and signature
    limits: TimeLimits = TimeLimits()
    pauses: PausePolicy = NO_PAUSES


class HandlerOptions(Mapping[str, Any]):
    """A handler's options. Nested ones are reached with dots; 0 and False are values."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})

    def __getitem__(self, key: str) -> Any:
        if key in self._options:
            return self._options[key]
        value: Any = self._options
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise KeyError(key)
            value = value[part]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __repr__(self) -> str:
        return f"HandlerOptions({self._options!r})"


class PayloadHandler(ABC):
    """A handler as a class, as in pulpo-messaging: `handle` gets the body's `payload`.

    Where the body has none, it gets the whole body. A parameter annotated JobContext beside the
    payload gets the job's context. Registered as a class, it is made once in every worker, with
    the options configured for its request_type.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._config = HandlerOptions(options)

    @property
    def config(self) -> HandlerOptions:
        """The options it was made with."""
        return self._config

    @abstractmethod
    def handle(self, payload: Any) -> object:
        """Do the job; return None or a RequestResult, or raise."""


@dataclass(frozen=True, slots=True)
class _Entry:
    target: Any  # as registered
    where: str
    retry: RetryPolicy
    limits: TimeLimits
    pauses: PausePolicy


class HandlerRegistry:
    """The handlers of an app, by request_type."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._ready: dict[str, Handler] = {}
        self._options: Mapping[str, Mapping[str, Any]] = {}
        self._max_attempts = DEFAULT_MAX_ATTEMPTS
        self._pool_limits = TimeLimits()

    def register(
        self,
        request_type: str,
        handler: Callable[..., object] | PayloadHandler | type[PayloadHandler],
        *,
        wait: Wait | None = None,
        stop: Stop | None = None,
        retry: Retry | None = None,
        limits: TimeLimits | None = None,
        pauses: PausePolicy | None = None,
    ) -> None:
        """Make `handler` the one for `request_type`; wait, stop, retry are tenacity's strategies.

        Raises DuplicateHandler, InvalidHandler with the reason, InvalidMessage for the name.
        """
        check_name(request_type, "request_type")
        where = _check(handler)
        known = self._entries.get(request_type)
        if known:
            raise DuplicateHandler(
                f"{request_type} has two handlers: {known.where} and {where}; "
                "give one of them another request_type"
            )
        policy = RetryPolicy(wait, stop, retry)
        self._entries[request_type] = _Entry(
            handler, where, policy, limits or TimeLimits(), pauses or NO_PAUSES
        )

    def get(self, request_type: str) -> Any:
        """Return the object registered for `request_type`, None if there is none."""
        entry = self._entries.get(request_type)
        return entry.target if entry else None

    def find(self, request_type: str) -> Handler | None:
        """Return the handler that a worker calls, None if there is none."""
        handler = self._ready.get(request_type)
        if handler is None and request_type in self._entries:
            handler = self._ready[request_type] = self._build(request_type)
        return handler

    def add_options(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Add options of PayloadHandler classes, by request_type; they override, key by key."""
        self._options = {
            request_type: {**self._options_of(request_type), **options.get(request_type, {})}
            for request_type in {*self._options, *options}
        }

    def configure(
        self,
        options: Mapping[str, Mapping[str, Any]],
        max_attempts: int,
        limits: TimeLimits | None = None,
    ) -> None:
        """Make every handler ready with the pool's settings: what cannot be made fails here.

        Raises AppImportError if making a PayloadHandler raises, InvalidHandler for time limits
        that contradict the pool's.
        """
        before = self._options, self._max_attempts, self._pool_limits
        self.add_options(options)
        self._max_attempts = max_attempts
        self._pool_limits = limits or TimeLimits()
        if before != (self._options, self._max_attempts, self._pool_limits):
            self._ready.clear()
        self.renew()

    def renew(self) -> None:
        """Make ready whatever is not, and every class anew: each worker has its own object.

        A worker finds functions made ready by its template: to read signatures again would
        unshare 0.5 MB of each. Raises as `configure` does.
        """
        for request_type, entry in self._entries.items():
            if request_type not in self._ready or isinstance(entry.target, type):
                self._ready[request_type] = self._build(request_type)

    def __iter__(self) -> Iterator[Handler]:
        for request_type in sorted(self._entries):
            handler = self.find(request_type)
            assert handler is not None
            yield handler

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_type: object) -> bool:
        return request_type in self._entries

    def _build(self, request_type: str) -> Handler:
        entry = self._entries[request_type]
        target = entry.target
        if isinstance(target, type):
            target = self._made(request_type, target)
        if isinstance(target, PayloadHandler):
            call, parameters = _payload_call(target), signature_of(target.handle)
        else:
            call, parameters = _function_call(target), signature_of(target)
        retry = entry.retry.with_defaults(self._max_attempts)
        try:
            limits = entry.limits.within(self._pool_limits)
        except InvalidHandler as error:
            raise InvalidHandler(f"{request_type}, with the limits of the pool: {error}") from None
        where = f"{entry.where}{parameters}"
        return Handler(request_type, call, retry, where, limits, entry.pauses)

    def _made(self, request_type: str, kind: type[PayloadHandler]) -> PayloadHandler:
        try:
            return kind(self._options_of(request_type))
        except Exception as error:
            raise AppImportError(
                f"{request_type}: {describe(kind)} could not be made with its options: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _options_of(self, request_type: str) -> Mapping[str, Any]:
        return self._options.get(request_type, {})


def _check(handler: Any) -> str:
    """Return where the handler is; raise InvalidHandler for what could never handle a job."""
    if not isinstance(handler, PayloadHandler) and not (
        isinstance(handler, type) and issubclass(handler, PayloadHandler)
    ):
        read_signature(handler)
        return describe(handler)
    kind = handler if isinstance(handler, type) else type(handler)
    if inspect.isabstract(kind):
        raise InvalidHandler(f"{describe(kind)} does not define handle(payload)")
    method = handler.handle if isinstance(handler, PayloadHandler) else kind.handle
    if isinstance(handler, PayloadHandler):
        _payload_call(handler)
    else:
        signature_of(method)
    return describe(kind)


def _function_call(function: Callable[..., object]) -> Call:
    """Return the call of a function with the body's keys as its parameters."""
    signature = read_signature(function)
    fits, contexts, names = signature.fits, signature.contexts, signature.accepted

    def call(context: JobContext) -> object:
        body = context.message.body
        if body.keys() != names and not fits(body):  # nearly every body has just what is taken
            raise signature.mismatch(describe(function), body)
        return function(**body)

    def call_with_context(context: JobContext) -> object:
        body = context.message.body
        if body.keys() != names and not fits(body):
            raise signature.mismatch(describe(function), body)
        return function(**body, **dict.fromkeys(contexts, context))

    return call_with_context if contexts else call


def _payload_call(handler: PayloadHandler) -> Call:
    """Return the call of a PayloadHandler's `handle` with the payload."""
    handle = handler.handle
    signature = signature_of(handle)
    contexts = context_names(handle, signature)
    parameters = [each for name, each in signature.parameters.items() if name not in contexts]
    if not parameters or not _takes_one(parameters):
        raise InvalidHandler(
            f"{describe(type(handler))}.handle{signature}: expected one parameter for the payload, "
            "and beside it none without a default but those annotated JobContext"
        )
    first = parameters[0]
    by_name = first.kind is not first.POSITIONAL_ONLY
    if contexts and not by_name:
        raise InvalidHandler(
            f"{describe(type(handler))}.handle{signature}: beside a JobContext the payload is "
            "given by name; remove the `/`"
        )

    def call(context: JobContext) -> object:
        return handle(_payload(context))

    def call_by_name(context: JobContext) -> object:
        # The context may stand before the payload.
        return handle(**{first.name: _payload(context)}, **dict.fromkeys(contexts, context))

    return call_by_name if by_name else call


def _takes_one(parameters: list[inspect.Parameter]) -> bool:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameters[0].kind not in several and all(
        each.default is not each.empty or each.kind in several for each in parameters[1:]
    )


def _payload(context: JobContext) -> Any:
    body = context.message.body
    return body.get("payload", body)
