"""The sample handlers: what a pool runs that was given no app, to be tried out with."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from pulpo_pool.app.handlers import PayloadHandler, RequestResult
from pulpo_pool.app.pulpo import Pulpo

if TYPE_CHECKING:
    from pulpo_pool.settings import Settings


def sample_pulpo(settings: Settings) -> Pulpo:
    """Return the app of the samples.

    Those that write do it in the option `destination_directory`, by default `sample-output` in
    the state directory.
    """
    directory = {"destination_directory": str(Path(settings.state_dir) / "sample-output")}
    options = dict.fromkeys(("echo", "lower", "upper"), directory)
    pulpo = Pulpo(settings=settings, options=options)
    for request_type, handler in (
        ("echo", EchoHandler),
        ("lower", LowerCaseHandler),
        ("upper", UpperCaseHandler),
        ("success", succeed),
        ("fail", fail),
        ("transient", fail_for_now),
        ("fifty-fifty", succeed_or_fail_for_now),
        ("sleep", SleepHandler),
        ("crash", crash),
    ):
        pulpo.registry.register(request_type, handler)
    return pulpo


class EchoHandler(PayloadHandler):
    """Writes its payload to a new file, `<uuid>.echo.txt`."""

    suffix: ClassVar = "echo"

    def handle(self, payload: Any) -> None:
        """Write one file."""
        directory = Path(self.config["destination_directory"])
        directory.mkdir(parents=True, exist_ok=True)
        text = payload if isinstance(payload, str) else json.dumps(payload)
        directory.joinpath(f"{uuid4()}.{self.suffix}.txt").write_text(self.changed(text), "utf-8")

    def changed(self, text: str) -> str:
        """Return what is written for a payload."""
        return text


class LowerCaseHandler(EchoHandler):
    """Writes its payload in lower case, to `<uuid>.lower.txt`."""

    suffix = "lower"

    def changed(self, text: str) -> str:
        """Return the text in lower case."""
        return text.lower()


class UpperCaseHandler(EchoHandler):
    """Writes its payload in upper case, to `<uuid>.upper.txt`."""

    suffix = "upper"

    def changed(self, text: str) -> str:
        """Return the text in upper case."""
        return text.upper()


class SleepHandler(PayloadHandler):
    """Sleeps for its payload, or the body's `seconds`, in seconds; by default for one."""

    def handle(self, payload: Any) -> None:
        """Sleep."""
        seconds = payload.get("seconds", 1) if isinstance(payload, dict) else payload
        time.sleep(float(seconds))


def succeed(**_body: object) -> RequestResult:
    """Do nothing, and well."""
    return RequestResult.success()


def fail(**_body: object) -> RequestResult:
    """Fail for ever: the job is buried."""
    return RequestResult.fatal("the sample handler `fail` always fails")


def fail_for_now(**_body: object) -> RequestResult:
    """Fail at every attempt, as if the next one might work."""
    return RequestResult.transient("the sample handler `transient` never succeeds")


def succeed_or_fail_for_now(**_body: object) -> RequestResult:
    """Succeed at half of the attempts."""
    if random.random() < 0.5:  # noqa: PLR2004, S311 - a coin
        return RequestResult.success()
    return RequestResult.transient("the coin came down wrong; the next attempt may succeed")


def crash(**_body: object) -> None:
    """Kill the process that runs the job, as a bug in a C library would."""
    os.kill(os.getpid(), signal.SIGKILL)
