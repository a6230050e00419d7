"""The public API as users write it: checked by mypy, never run."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

from tenacity import (
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from pulpo_pool import (
    Fatal,
    HandlerRegistry,
    JobContext,
    Message,
    PayloadHandler,
    Pulpo,
    RequestResult,
    Transient,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Timed:
    @contextmanager
    def around_job(self, context: JobContext) -> Iterator[None]:
        yield


pulpo = Pulpo(middleware=[Timed()], options={"shout": {"volume": 11}})


@pulpo.job()
def send_email(to: str, subject: str = "") -> None: ...


@pulpo.job
def bare(count: int) -> RequestResult:
    if count == 0:
        return RequestResult.transient("nothing yet", retry_in=timedelta(minutes=1))
    if count < 0:
        raise Fatal("negative")
    raise Transient("later", retry_in=5)


@pulpo.job("report.build", queue="slow", priority=10)
def build_report(job: JobContext, month: str, *, draft: bool = False) -> RequestResult:
    job.logger.info("attempt %d of %s", job.attempt, job.id)
    return RequestResult.success()


@pulpo.job(
    wait=wait_exponential_jitter(1, 600),
    stop=stop_after_attempt(10) | stop_after_delay(3600),
    retry=retry_if_exception_type(OSError),
)
def fetch(url: str) -> None: ...


@pulpo.job()
def anything(payload: Any) -> None: ...


class Shout(PayloadHandler):
    def handle(self, payload: str) -> RequestResult:
        return (
            RequestResult.success_factory()
            if self.config.get("volume")
            else RequestResult.fatal_factory("mute")
        )


@pulpo.on_worker_start
def connect() -> None: ...


@pulpo.on_worker_stop
def disconnect() -> None: ...


@pulpo.redact
def without_cards(text: str) -> str:
    return text.replace("4111", "****")


assert_type(without_cards("4111"), str)

registry = HandlerRegistry()
registry.register("shout", Shout)
registry.register("whisper", Shout({"volume": 1}), stop=stop_after_attempt(3))

assert_type(send_email.publish(to="a@example.org"), Message)
assert_type(send_email.publish("a@example.org", subject="hello"), Message)
assert_type(send_email("a@example.org"), None)
assert_type(
    send_email.options(delay=30, priority=10, expiration=3600, queue="mail", id="x").publish(
        to="a"
    ),
    Message,
)
assert_type(build_report.publish(month="may", draft=True), Message)
assert_type(bare.publish(count=3), Message)
anything.publish(payload={"any": "thing"})
assert_type(pulpo.publish(Message(request_type="send_email", body={"to": "a"})), Message)
assert_type(pulpo.publish_many([send_email.message(to="a"), bare.message(1)]), list[Message])

# What follows is wrong, and mypy says so: an ignore without an error is an error itself.
send_email.publish(too="a@example.org")  # type: ignore[call-arg]
send_email.publish(to=1)  # type: ignore[arg-type]
send_email.options(dealy=3)  # type: ignore[call-arg]
send_email.options(delay=3).publish()  # type: ignore[call-arg]
build_report.publish(mouth="may")  # type: ignore[call-arg]
bare.publish(count="three")  # type: ignore[arg-type]
send_email(subject="to nobody")  # type: ignore[call-arg]
registry.register("number", 3)  # type: ignore[arg-type]
pulpo.redact(len)  # type: ignore[type-var]
