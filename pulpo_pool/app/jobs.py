"""Job: a function under @pulpo.job(), which can be called, or published to be called elsewhere."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from pulpo_pool.app.signatures import BodySignature, read_signature
from pulpo_pool.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulpo_pool.clock import Clock
    from pulpo_pool.message import When

CallParams = ParamSpec("CallParams")  # of the function itself
BodyParams = ParamSpec("BodyParams")  # the same without a JobContext in front
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOptions:
    """What a publisher may say beside the body; None leaves it to the message's defaults."""

    queue: str | None = None
    priority: int | None = None
    delay: When | None = None
    expiration: When | None = None
    id: str | None = None

    def overridden_by(self, other: PublishOptions) -> PublishOptions:
        """Return these options with whatever `other` says instead."""
        named = ((field.name, getattr(other, field.name)) for field in fields(other))
        said = {name: value for name, value in named if value is not None}
        return replace(self, **said)


class App(Protocol):
    """What a job needs of the Pulpo it belongs to."""

    @property
    def clock(self) -> Clock:
        """What delays are counted from."""

    def publish(self, message: Message) -> Message:
        """Publish a message; return it as it was stored."""


@dataclass(frozen=True, slots=True)
class JobKind:
    """What every message of one job has in common, and where it is published."""

    request_type: str
    signature: BodySignature
    app: App

    def message(
        self, options: PublishOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Message:
        """Return the message for a call; TypeError if the function could not be called so."""
        return Message(
            request_type=self.request_type,
            body=self._body(args, kwargs),
            id=options.id,
            queue=options.queue,
            priority=options.priority,
            delay=options.delay,
            expiration=options.expiration,
            clock=self.app.clock,
        )

    def _body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if not args and self.signature.fits(kwargs):
            return kwargs
        published = self.signature.published
        try:
            arguments = published.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.request_type}{published}: {error}") from None
        rest = next((p.name for p in published.parameters.values() if p.kind is p.VAR_KEYWORD), "")
        others = arguments.pop(rest, {})
        return {**arguments, **others}


class JobRequest(Generic[BodyParams]):
    """A job with options, to be published as often as wanted."""

    __slots__ = ("_kind", "_options")

    def __init__(self, kind: JobKind, options: PublishOptions) -> None:
        self._kind = kind
        self._options = options

    def publish(self, /, *args: BodyParams.args, **kwargs: BodyParams.kwargs) -> Message:
        """Publish one job; return its message, with the id it got. See Job.publish."""
        return self._kind.app.publish(self._kind.message(self._options, args, kwargs))

    def message(self, /, *args: BodyParams.args, **kwargs: BodyParams.kwargs) -> Message:
        """Return the message without publishing it, for `pulpo.publish_many`."""
        return self._kind.message(self._options, args, kwargs)


class Job(Generic[CallParams, BodyParams, Result]):
    """A function that workers run. Calling it runs it here, as if it were undecorated.

    A parameter annotated JobContext is given by the worker and is no part of what is published;
    put it first, so that type checkers know that too.
    """

    def __init__(
        self,
        function: Callable[CallParams, Result],
        request_type: str,
        app: App,
        options: PublishOptions,
    ) -> None:
        # A wrong name, queue or priority fails here, not where the first job is published.
        Message(request_type=request_type, queue=options.queue, priority=options.priority)
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        self._kind = JobKind(request_type, read_signature(function), app)

    @property
    def request_type(self) -> str:
        """What its messages ask for."""
        return self._kind.request_type

    def __call__(self, /, *args: CallParams.args, **kwargs: CallParams.kwargs) -> Result:
        """Run the function here and now."""
        return self._function(*args, **kwargs)

    def publish(self, /, *args: BodyParams.args, **kwargs: BodyParams.kwargs) -> Message:
        """Publish one job with the function's own arguments; return its message, with its id.

        Raises TypeError at once for arguments that do not fit, InvalidMessage for those that
        cannot be serialized, MessageTooLarge, QueueUnavailable.
        """
        return self._kind.app.publish(self._kind.message(self._options, args, kwargs))

    def message(self, /, *args: BodyParams.args, **kwargs: BodyParams.kwargs) -> Message:
        """Return the message without publishing it, for `pulpo.publish_many`."""
        return self._kind.message(self._options, args, kwargs)

    def options(
        self,
        *,
        delay: When | None = None,
        priority: int | None = None,
        expiration: When | None = None,
        queue: str | None = None,
        id: str | None = None,  # noqa: A002 - the ancestor's word
    ) -> JobRequest[BodyParams]:
        """Return this job with options; what is not given stays as the decorator said.

        `delay` and `expiration` are seconds or a timedelta from publishing, or an aware datetime.
        """
        asked = PublishOptions(
            queue=queue, priority=priority, delay=delay, expiration=expiration, id=id
        )
        return JobRequest(self._kind, self._options.overridden_by(asked))

    def __repr__(self) -> str:
        return f"Job({self.request_type!r})"
