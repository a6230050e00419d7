"""A program that keeps a queue fed: `python -m benchmarks.feeder BROKER DONE WAITING`.

It publishes a thousand jobs whenever fewer than WAITING wait, until it is ended. It counts what is
done by the size of the file DONE, so that the queue is asked nothing.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.harness import LINE, body_of
from pulpo_pool.message import Message
from pulpo_pool.publishing import Publisher
from pulpo_pool.queues.opening import open_queue

BATCH = 1_000
PAUSE = 0.005  # seconds between two looks; the workers do some hundred jobs meanwhile


def feed(broker: str, done: Path, waiting: int) -> None:
    fed = 0
    with open_queue(broker) as queue:
        publisher = Publisher(queue)
        while True:
            finished = done.stat().st_size // len(LINE % 0) if done.exists() else 0
            if fed - finished >= waiting:
                time.sleep(PAUSE)
                continue
            publisher.publish_many(
                [Message(request_type="mark", body=body_of(n)) for n in range(fed, fed + BATCH)]
            )
            fed += BATCH


if __name__ == "__main__":
    feed(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
