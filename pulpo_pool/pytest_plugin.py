"""The pytest plugin: the fixture `pulpo_queue`, an app's jobs over a queue inside the test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pulpo_pool.app.pulpo import Pulpo
    from pulpo_pool.testing import QueueHarness


@pytest.fixture
def pulpo_queue() -> Iterator[Callable[[Pulpo], QueueHarness]]:
    """Give a function that puts an app over a memory queue until the test ends.

        def test_mail(pulpo_queue):
            queue = pulpo_queue(shop.pulpo)
            shop.send_email.publish(to="a@example.org")
            assert queue.work_off() == 1

    It returns a pulpo_pool.testing.QueueHarness: `work_off()`, `work_through()`, `published`,
    `done`, `buried()`, `delayed()`, `clock.advance(seconds)`.
    """
    # Imported here: pytest loads this plugin in every project that has pulpo-pool installed.
    from pulpo_pool.testing import QueueHarness

    with ExitStack() as stack:
        yield lambda app: stack.enter_context(QueueHarness(app))
