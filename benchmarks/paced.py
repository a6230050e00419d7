"""A producer, run in a contender's folder: as fast as it can, or at times that were planned before.

    python paced.py flood SECONDS        python paced.py plan RATE SECONDS

It publishes by `from shop import publish`, and at the end prints one line of JSON about itself. The
standard library suffices, so that a peer's own Python can run it.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NANOSECONDS = 1_000_000_000
WARM_UP = 10  # jobs before the first planned one, so that connecting delays none of those
SETTLE = 0.3  # seconds the warm-up has to be worked off
PR_SET_TIMERSLACK = 29


def body_of(number: int) -> dict[str, object]:
    """The same work as everywhere, numbered by when it was due."""
    return {
        "n": time.monotonic_ns() if number < 0 else number,
        "to": "customer-00000000@example.org",
        "subject": "Your order is on its way",
    }


def flood(seconds: float) -> dict[str, object]:
    """Publish one job after the other, as fast as the API lets."""
    end, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        publish(**body_of(-1))
        sent += 1
    return {"sent": sent}


def keep_to_plan(rate: float, seconds: float) -> dict[str, object]:
    """Publish each job when it is due, or late, but never fewer: a slow queue is not waited for.

    The time between two jobs is the same throughout: bursts would measure how the producer, which
    sends one at a time, stands in its own way.
    """
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # else it sleeps 50 us too long
    for _ in range(WARM_UP):
        publish(**body_of(-1))
    time.sleep(SETTLE)
    began, used = time.monotonic_ns(), time.process_time()
    late = []
    for number in range(int(rate * seconds)):
        due = began + int(number * NANOSECONDS / rate)
        ahead = due - time.monotonic_ns()
        if ahead > 0:
            time.sleep(ahead / NANOSECONDS)
        late.append(time.monotonic_ns() - due)
        publish(**body_of(due))
    used, passed = time.process_time() - used, (time.monotonic_ns() - began) / NANOSECONDS
    return {"sent": len(late), "late": late, "cpu": used, "seconds": passed}


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # the shop's folder, and not this one
    from shop import publish

    how, *numbers = sys.argv[1:]
    ways: dict[str, Callable[..., dict[str, object]]] = {"flood": flood, "plan": keep_to_plan}
    print(json.dumps(ways[how](*map(float, numbers))))
