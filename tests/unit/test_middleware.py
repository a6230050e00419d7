"""Middleware: what surrounds every job."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import pytest
from loops import Bench, raising

from pulpo_pool.outcomes import JobOutcome


class Layer:
    """A middleware that writes down when it is passed."""

    def __init__(self, name, story):
        self.name, self.story = name, story

    @contextmanager
    def around_job(self, context):
        self.story.append(f"{self.name} in {context.request_type}")
        try:
            yield
        finally:
            self.story.append(f"{self.name} out")


def test_middleware_wraps_a_job_the_first_one_outermost():
    story = []
    bench = Bench(middleware=[Layer("a", story), Layer("b", story)])
    bench.run(lambda: story.append("job"))

    assert story == ["a in work", "b in work", "job", "b out", "a out"]


def test_middleware_sees_the_exception_and_the_job_still_fails():
    story = []
    bench = Bench(middleware=[Layer("a", story)])
    done = bench.run(raising(ValueError("odd")))

    assert story == ["a in work", "a out"]
    assert done.outcome is JobOutcome.RETRIED


class Around:
    """A middleware made of one context manager."""

    def __init__(self, manager):
        self.around_job = contextmanager(manager)


def failing_before(_context):
    raise OSError("no database")
    yield


def failing_after(_context):
    yield
    raise OSError("no database")


def not_a_generator(_context):
    return 3


@pytest.mark.parametrize("manager", [failing_before, failing_after, not_a_generator])
def test_a_middleware_that_fails_fails_the_job(manager):
    bench = Bench(middleware=[Around(manager)])
    done = bench.run(lambda: None)

    assert done.outcome is JobOutcome.RETRIED


def test_a_middleware_may_swallow_an_exception():
    def swallowing(_context):
        with suppress(ValueError):
            yield

    bench = Bench(middleware=[Around(swallowing)])
    done = bench.run(raising(ValueError("odd")))

    assert done.outcome is JobOutcome.SUCCESS
