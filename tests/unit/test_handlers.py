"""Handlers: what can be registered, what a call gets, and what is said about the rest."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Optional

import pytest

from pulpo_pool.app import handlers  # noqa: TC001 - annotations are evaluated
from pulpo_pool.app.handlers import HandlerRegistry, JobContext, PayloadHandler
from pulpo_pool.clock import Deadline
from pulpo_pool.codec import Codec
from pulpo_pool.errors import (
    AppImportError,
    BodyMismatch,
    DuplicateHandler,
    InvalidHandler,
    InvalidMessage,
)
from pulpo_pool.message import Message
from pulpo_pool.queues.adapter import Reservation

if TYPE_CHECKING:
    from pulpo_pool.app.handlers import JobContext as OnlyText


def context_of(body: dict[str, Any], **reservation: Any) -> JobContext:
    message = Message(request_type="x", body=body, id="i", header={"tenant": "t"})
    return JobContext(
        Reservation(
            job_id="7", queue="mail", raw=Codec().encode(message), codec=Codec(), **reservation
        ),
        stopping=lambda: False,
    )


def call(handler: Any, body: dict[str, Any]) -> object:
    registry = HandlerRegistry()
    registry.register("x", handler)
    found = registry.find("x")
    assert found is not None
    return found.call(context_of(body))


class Echo(PayloadHandler):
    def handle(self, payload: Any) -> object:
        return payload


# -- functions ----------------------------------------------------------------------------------


def test_a_function_gets_the_body_by_name():
    def send(to, subject="none", *, cc=()):
        return to, subject, cc

    assert call(send, {"to": "a"}) == ("a", "none", ())
    assert call(send, {"cc": ["b"], "to": "a"}) == ("a", "none", ["b"])


def test_a_function_with_keywords_gets_whatever_comes():
    assert call(lambda a, **rest: (a, rest), {"a": 1, "b": 2}) == (1, {"b": 2})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, r"\(to, subject=None\): missing to$"),
        ({"to": 1, "too": 2}, "unexpected too$"),
        ({"too": 2}, "missing to; unexpected too$"),
    ],
)
def test_a_body_that_does_not_fit_is_named_key_by_key(body, complaint):
    def send(to, subject=None): ...

    with pytest.raises(BodyMismatch, match=complaint) as caught:
        call(send, body)
    assert isinstance(caught.value, TypeError)


def with_annotation(job: JobContext, to):
    return job, to


def with_optional(to, job: Optional[JobContext] = None):  # noqa: UP045 - as many write it
    return job, to


def with_union(to, *, job: JobContext | None = None):
    return job, to


def with_dotted(job: handlers.JobContext, to):
    return job, to


def with_text_only(job: OnlyText, to):
    return job, to


@pytest.mark.parametrize("function", [with_annotation, with_optional, with_union, with_dotted])
def test_a_parameter_annotated_jobcontext_gets_it(function):
    job, to = call(function, {"to": "a"})

    assert to == "a"
    assert isinstance(job, JobContext)


def test_an_annotation_that_only_a_type_checker_can_see_is_read_as_text():
    scope: dict[str, Any] = {}
    exec(  # a module whose imports stand under TYPE_CHECKING
        "from __future__ import annotations\n"
        "def plain(job: JobContext, other: Unknown): return job\n"
        "def dotted(job: pulpo_pool.JobContext, other: Unknown): return job\n"
        "def either(other: Unknown, job: JobContext | None = None): return job\n"
        "def optional(other: Unknown, job: Optional[JobContext] = None): return job\n"
        "def stranger(job: MyJobContext, other: Unknown): return job\n",
        scope,
    )

    for name in ("plain", "dotted", "either", "optional"):
        assert isinstance(call(scope[name], {"other": 1}), JobContext), name
    assert call(scope["stranger"], {"job": "from the body", "other": 1}) == "from the body"


def test_a_body_cannot_stand_in_for_the_context():
    def takes_any(job: JobContext, **rest: Any) -> object:
        return rest

    with pytest.raises(BodyMismatch, match="unexpected job"):
        call(takes_any, {"job": "forged"})
    with pytest.raises(BodyMismatch, match="unexpected job"):
        call(with_annotation, {"job": "forged", "to": "a"})


def test_wrapped_partial_and_bound_functions_are_read_to_their_core():
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    class Mailer:
        def send(self, to, job: JobContext):
            return to, job.job_id

        def __call__(self, to):
            return to

    assert call(decorate(with_annotation), {"to": "a"})[1] == "a"
    assert call(functools.partial(with_annotation, to="fixed"), {})[1] == "fixed"
    assert call(Mailer().send, {"to": "a"}) == ("a", "7")
    assert call(Mailer(), {"to": "a"}) == "a"


async def coroutine(): ...
async def asynchronous_generator():
    yield


def generator():
    yield


def positional(to, /): ...


class AsynchronousCall:
    async def __call__(self): ...


class NoHandler: ...


class Abstract(PayloadHandler): ...


class Asynchronous(PayloadHandler):
    async def handle(self, payload): ...


class TakesNothing(PayloadHandler):
    def handle(self): ...


class TakesTwo(PayloadHandler):
    def handle(self, payload, other): ...


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (coroutine, "async def"),
        (asynchronous_generator, "async def"),
        (AsynchronousCall(), "async def"),
        (functools.partial(coroutine), "async def"),
        (generator, "is a generator"),
        (positional, "to is positional-only"),
        (NoHandler, "is a class, but no PayloadHandler"),
        (NoHandler(), "cannot be called"),
        (None, "cannot be called"),
        (17, "cannot be called"),
        (PayloadHandler, "does not define handle"),
        (Abstract, "does not define handle"),
        (Asynchronous, "async def"),
        (Asynchronous(), "async def"),
        (TakesNothing(), "expected one parameter for the payload"),
        (TakesTwo(), "expected one parameter for the payload"),
    ],
)
def test_what_could_never_handle_a_job_is_refused_with_the_reason(handler, reason):
    registry = HandlerRegistry()

    with pytest.raises(InvalidHandler, match=reason):
        registry.register("x", handler)
    assert len(registry) == 0


# -- PayloadHandler -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        ({"payload": "text"}, "text"),
        ({"payload": 0, "other": 1}, 0),
        ({"payload": None}, None),
        ({"to": "a"}, {"to": "a"}),
        ({}, {}),
    ],
)
def test_a_payload_handler_gets_the_payload_or_else_the_body(body, payload):
    assert call(Echo(), body) == payload


def test_a_payload_handler_may_ask_for_the_context_on_either_side():
    class Before(PayloadHandler):
        def handle(self, job: JobContext, payload):
            return job.id, payload

    class After(PayloadHandler):
        def handle(self, content, *, job: JobContext | None = None):
            return job.id, content

    assert call(Before(), {"payload": 1}) == call(After(), {"payload": 1}) == ("i", 1)


def test_options_are_found_with_dots_and_zero_is_a_value():
    config = Echo({"retries": 0, "on": False, "smtp": {"host": "h"}, "a.b": 1}).config

    assert config.get("retries", 5) == 0
    assert config.get("on", True) is False
    assert config.get("smtp.host") == "h"
    assert config.get("smtp.port", 25) == 25
    assert config.get("smtp.host.name", "none") == "none"
    assert config["a.b"] == 1
    assert dict(config) == {"retries": 0, "on": False, "smtp": {"host": "h"}, "a.b": 1}


def test_a_class_is_made_once_with_the_options_of_its_request_type():
    made = []

    class Greedy(PayloadHandler):
        def __init__(self, options=None):
            super().__init__(options)
            made.append(dict(self.config))

        def handle(self, payload):
            return self.config["size"]

    registry = HandlerRegistry()
    registry.register("x", Greedy)
    registry.add_options({"x": {"size": 1, "kept": True}, "y": {"size": 9}})
    registry.configure({"x": {"size": 2}}, max_attempts=3)

    results = [registry.find("x").call(context_of({})) for _ in range(3)]
    assert results == [2, 2, 2]
    assert made == [{"size": 2, "kept": True}]
    assert registry.get("x") is Greedy


def test_a_class_that_cannot_be_made_is_told_before_the_first_job():
    class Broken(PayloadHandler):
        def __init__(self, options=None):
            raise KeyError("host")

        def handle(self, payload): ...

    registry = HandlerRegistry()
    registry.register("x", Broken)

    with pytest.raises(AppImportError, match="Broken could not be made with its options") as caught:
        registry.configure({}, max_attempts=3)
    assert "raise KeyError" in caught.value.app_traceback()


# -- registry -----------------------------------------------------------------------------------


def test_get_returns_what_was_registered_and_none_for_the_rest():
    registry, echo = HandlerRegistry(), Echo()
    registry.register("echo", echo)

    assert registry.get("echo") is echo
    assert registry.get("ehco") is None
    assert registry.find("ehco") is None
    assert "echo" in registry


def test_a_request_type_has_one_handler_and_both_are_named():
    registry = HandlerRegistry()
    registry.register("x", with_annotation)

    with pytest.raises(DuplicateHandler, match=r"with_annotation and .*:Echo;"):
        registry.register("x", Echo())
    assert registry.get("x") is with_annotation


def test_a_request_type_must_be_a_name():
    with pytest.raises(InvalidMessage, match="request_type"):
        HandlerRegistry().register("", Echo())


def test_handlers_are_listed_by_name_with_where_they_are():
    registry = HandlerRegistry()
    registry.register("b", with_union)
    registry.register("a", Echo)

    listed = list(registry)

    assert [handler.request_type for handler in listed] == ["a", "b"]
    assert listed[0].description.endswith(":Echo(payload: Any) -> object")
    assert ":with_union(to, *, job: " in listed[1].description
    assert len(registry) == 2


def test_the_pools_limit_reaches_policies_that_have_none():
    registry = HandlerRegistry()
    registry.register("x", Echo)
    registry.configure({}, max_attempts=7)

    assert "stop_after_attempt(max_attempt_number=7)" in registry.find("x").retry.describe()


# -- the context --------------------------------------------------------------------------------


def test_the_context_tells_about_the_job():
    stop = []
    deadline = Deadline(12.0)
    reservation = context_of({"a": 1}, attempt=3, crashes=2)._reservation
    job = JobContext(reservation, stopping=lambda: bool(stop), deadline=deadline)

    assert (job.id, job.job_id, job.queue, job.request_type) == ("i", "7", "mail", "x")
    assert (job.attempt, job.crashes, job.deadline) == (3, 2, deadline)
    assert job.header["tenant"] == "t"
    assert job.message.body == {"a": 1}
    assert job.logger.name == "pulpo_pool.job.x"
    assert job.stopping is False
    stop.append(1)
    assert job.stopping is True


def test_what_costs_the_queue_a_look_is_asked_only_when_wanted():
    class Costly(Reservation):
        __slots__ = ()

        @property
        def attempt(self):
            raise AssertionError("asked for nothing")

        @attempt.setter
        def attempt(self, value): ...

    raw = Codec().encode(Message(request_type="x"))
    job = JobContext(Costly(job_id="7", queue="q", raw=raw, codec=Codec()), stopping=lambda: False)

    assert job.id == "7", "a message of a stranger has no id of its own"
    with pytest.raises(AssertionError):
        _ = job.attempt
