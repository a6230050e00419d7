"""Pulpo: an app's handlers, and its way to publish jobs for them."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
    runtime_checkable,
)

from pulpo_pool.app.engine import Engine, GivenEngine, QueueEngine
from pulpo_pool.app.handlers import HandlerRegistry, PayloadHandler, TimeLimits
from pulpo_pool.app.jobs import Job, PublishOptions
from pulpo_pool.app.pauses import PausePolicy
from pulpo_pool.app.signatures import describe
from pulpo_pool.clock import SystemClock
from pulpo_pool.codec import Codec
from pulpo_pool.errors import InvalidHandler, PartlyPublished
from pulpo_pool.message import DEFAULT_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from pulpo_pool.app.context import JobContext
    from pulpo_pool.app.handlers import Handler
    from pulpo_pool.app.pauses import PauseOn
    from pulpo_pool.app.retry import Retry, Stop, Wait
    from pulpo_pool.clock import Clock
    from pulpo_pool.message import Message
    from pulpo_pool.queues.adapter import QueueAdapter
    from pulpo_pool.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
Hook = TypeVar("Hook", bound="Callable[[], object]")
Redactor = TypeVar("Redactor", bound="Callable[[str], str]")


@runtime_checkable
class Middleware(Protocol):
    """Wraps every job: what `around_job` returns is entered before the handler, left after it."""

    def around_job(self, context: JobContext) -> AbstractContextManager[object]:
        """Return the context manager; an exception from it fails the job like the handler's."""


class JobDecorator(Protocol):
    """What @pulpo.job() turns a function into."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[JobContext, P], R], /
    ) -> Job[Concatenate[JobContext, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Job[P, P, R]: ...


class Pulpo:
    """An app: handlers under @pulpo.job(), and publish.

    Nothing is opened, read or installed until something is published. The queue comes from the
    configuration (`pulpo-pool.toml`, PULPO_POOL_* and so on in the current directory), or from
    `settings`, or is an open `queue_adapter`; a process forked from this one opens its own,
    except for a `queue_adapter`, which belongs to whoever opened it. `middleware` wraps each job,
    the first one outermost. `options` are those of PayloadHandler classes, by request_type.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        queue_adapter: QueueAdapter | None = None,
        registry: HandlerRegistry | None = None,
        middleware: Sequence[Middleware] = (),
        options: Mapping[str, Mapping[str, Any]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        for each in middleware:
            if not isinstance(each, Middleware):
                raise InvalidHandler(f"{each!r} is no middleware: it has no method around_job")
        self._settings = settings
        self._used: Settings | None = None  # that the handlers were made ready with
        self._registry = registry if registry is not None else HandlerRegistry()
        self._registry.add_options(options or {})
        self._middleware = tuple(middleware)
        self.worker_start_hooks: list[Callable[[], object]] = []
        self.worker_stop_hooks: list[Callable[[], object]] = []
        self.redactors: list[Callable[[str], str]] = []
        self.job_queues = {DEFAULT_QUEUE}  # where its jobs go unless a publisher says otherwise
        self.count_published: Callable[[str, str, int], None] | None = None  # queue, type, number
        self._engine: Engine = (
            GivenEngine(queue_adapter, clock or queue_adapter.clock)
            if queue_adapter
            else QueueEngine(self._open_adapter, clock or SystemClock())
        )

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, message: Message) -> Message:
        """Publish a message; return it as it was stored, with id, queue and published_at.

        When it returns, the queue has accepted it. Raises InvalidMessage for what cannot be
        serialized, MessageTooLarge, QueueUnavailable, ConfigError.
        """
        stored = self._engine.publish(message)
        if self.count_published is not None:
            self.count_published(stored.queue, stored.request_type, 1)
        return stored

    def publish_many(self, messages: Iterable[Message]) -> list[Message]:
        """Publish all messages or none; return them as they were stored. See publish.

        Raises PartlyPublished, which says what is stored, if the connection to a server was lost
        on the way.
        """
        messages = list(messages)
        try:
            stored = self._engine.publish_many(messages)
        except PartlyPublished as error:
            self._count(messages[: len(error.job_ids)])
            raise
        self._count(stored)
        return stored

    @property
    def queue_adapter(self) -> QueueAdapter:
        """The open queue of this process."""
        return self._engine.adapter

    @property
    def clock(self) -> Clock:
        """The clock that dates what is published."""
        return self._engine.clock

    @property
    def settings(self) -> Settings:
        """The settings, loaded at first use. Raises ConfigError."""
        if self._settings is None:
            from pulpo_pool.settings import load_settings, read_environment

            loaded = load_settings({}, directory=Path.cwd(), environ=read_environment())
            self._settings = loaded.settings
        return self._settings

    def close(self) -> None:
        """Let go of the queue; publishing opens it again."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def publishing_to(self, engine: Engine) -> Iterator[None]:
        """Send what is published to another engine for a while: the seam for test kits."""
        usual, self._engine = self._engine, engine
        try:
            yield
        finally:
            self._engine = usual

    def _count(self, messages: Sequence[Message]) -> None:
        if self.count_published is not None:
            kinds = Counter((message.queue, message.request_type) for message in messages)
            for (queue, request_type), number in kinds.items():
                self.count_published(queue, request_type, number)

    def _open_adapter(self) -> QueueAdapter:
        from pulpo_pool.queues.opening import open_queue

        settings = self.settings
        return open_queue(
            settings.broker_url,
            queues=settings.queues,
            lease=settings.lease,
            codec=Codec(settings.serializer, settings.max_message_bytes),
            clock=self.clock,
        )

    # -- handlers -----------------------------------------------------------------------------

    @property
    def registry(self) -> HandlerRegistry:
        """The handlers, by request_type."""
        return self._registry

    handler_registry = registry  # pulpo-messaging's name

    @overload
    def job(
        self, function: Callable[Concatenate[JobContext, P], R], /
    ) -> Job[Concatenate[JobContext, P], P, R]: ...
    @overload
    def job(self, function: Callable[P, R], /) -> Job[P, P, R]: ...
    @overload
    def job(
        self,
        request_type: str | None = None,
        /,
        *,
        queue: str | None = None,
        priority: int | None = None,
        wait: Wait | None = None,
        stop: Stop | None = None,
        retry: Retry | None = None,
        soft_time_limit: float | None = None,
        time_limit: float | None = None,
        pause_on: PauseOn | None = None,
        pause: float | timedelta | None = None,
    ) -> JobDecorator: ...
    def job(  # noqa: PLR0913 - one keyword for each thing a job may say
        self,
        request_type: Any = None,
        /,
        *,
        queue: str | None = None,
        priority: int | None = None,
        wait: Wait | None = None,
        stop: Stop | None = None,
        retry: Retry | None = None,
        soft_time_limit: float | None = None,
        time_limit: float | None = None,
        pause_on: PauseOn | None = None,
        pause: float | timedelta | None = None,
    ) -> Any:
        """Make a function the handler of a request_type: its own name, unless one is given.

        `queue` and `priority` are where and how its jobs are published; `wait`, `stop` and
        `retry` are tenacity's strategies, each in place of the pool's default. After
        `soft_time_limit` seconds SoftTimeLimit is raised inside the function; after `time_limit`
        seconds its worker is ended. 0 is without end. Exceptions of the types `pause_on` say that
        what the type depends on is down: all its jobs wait `pause` seconds (15), then one at a
        time finds out whether they go on.

        Raises InvalidHandler with the reason, DuplicateHandler, InvalidMessage for a wrong name
        or priority.
        """
        if request_type is not None and not isinstance(request_type, str):
            return self.job()(request_type)
        options = PublishOptions(queue=queue, priority=priority)
        limits = TimeLimits(soft_time_limit, time_limit)
        pauses = PausePolicy.read(pause_on, pause)

        def decorate(function: Callable[..., Any]) -> Job[..., ..., Any]:
            name = request_type if request_type is not None else _name_of(function)
            if isinstance(function, type) and issubclass(function, PayloadHandler):
                raise InvalidHandler(
                    f"{describe(function)} is a PayloadHandler class; "
                    f"write pulpo.registry.register({name!r}, {function.__name__})"
                )
            job: Job[..., ..., Any] = Job(function, name, self, options)
            self._registry.register(
                name, function, wait=wait, stop=stop, retry=retry, limits=limits, pauses=pauses
            )
            self.job_queues.add(queue or DEFAULT_QUEUE)
            return job

        return decorate

    # -- in a worker --------------------------------------------------------------------------

    def use(self, settings: Settings) -> None:
        """Take the settings of the pool that runs this app, over its own.

        What handlers publish goes to the pool's broker then, and every handler is made ready.
        Raises AppImportError if making a PayloadHandler raises.
        """
        self._engine.close()
        if settings is self._used:  # by the template: 0.1 MB of each worker stays shared
            self._registry.renew()
            return
        self._settings = self._used = settings
        limits = TimeLimits(settings.soft_time_limit, settings.time_limit)
        self._registry.configure(settings.handlers, settings.max_attempts, limits)

    def perform(self, handler: Handler, context: JobContext) -> object:
        """Run a job inside the middleware; what the handler returns or raises comes out."""
        if not self._middleware:
            return handler.call(context)
        with ExitStack() as stack:
            for each in self._middleware:
                stack.enter_context(each.around_job(context))
            return handler.call(context)

    def on_worker_start(self, hook: Hook) -> Hook:
        """Call a function in every new worker, before its first job; raising ends the worker."""
        self.worker_start_hooks.append(hook)
        return hook

    def on_worker_stop(self, hook: Hook) -> Hook:
        """Call a function in every worker that leaves in order, after its last job."""
        self.worker_stop_hooks.append(hook)
        return hook

    def redact(self, function: Redactor) -> Redactor:
        """Have a function take the secrets out of errors before they are kept or logged.

        It gets what a handler said or the traceback, whole, and returns what others may read.
        Several are called in turn. If one raises or returns no text, only the exception's type is
        kept. Raises InvalidHandler for what cannot be called.
        """
        if not callable(function):
            raise InvalidHandler(f"{function!r} cannot be called: redact takes a function")
        self.redactors.append(function)
        return function

    def __repr__(self) -> str:
        return f"<Pulpo with {len(self._registry)} handlers>"


def _name_of(function: object) -> str:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise InvalidHandler(
            f"{function!r} has no name to take as its request_type; write @pulpo.job('a-name')"
        )
    return str(name)
