"""Real processes for tests of queues: forked children that report what they did."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback

DEADLINE = 60.0  # seconds for everything that must happen


class Child:
    """A forked process that runs `work(*arguments)` and reports its result through a pipe.

    `tell` in the child sends lines, `heard` in the parent waits for one.
    """

    def __init__(self, work, *arguments):
        self.pipe, writing = os.pipe()
        self._rest = b""
        self.pid = os.fork()
        if self.pid == 0:
            self._run(writing, work, arguments)
        os.close(writing)

    def _run(self, writing, work, arguments):
        def tell(thing):
            os.write(writing, json.dumps(thing).encode() + b"\n")

        try:
            tell({"result": work(tell, *arguments)})
        except BaseException:  # noqa: BLE001 - a child must never return into pytest
            tell({"error": traceback.format_exc()})
        os._exit(0)

    def heard(self, deadline=DEADLINE):
        """Return the next thing the child told; None when it is gone."""
        end = time.monotonic() + deadline
        while b"\n" not in self._rest:
            readable, _, _ = select.select([self.pipe], [], [], max(0, end - time.monotonic()))
            assert readable, "the child says nothing"
            chunk = os.read(self.pipe, 65_536)
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def result(self, deadline=DEADLINE):
        """Wait for the end; return what `work` returned."""
        last = None
        while (told := self.heard(deadline)) is not None:
            last = told
        self.reap()
        assert isinstance(last, dict), f"died after {last}"
        assert "error" not in last, last["error"]
        return last["result"]

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def reap(self):
        if self.pid:
            os.waitpid(self.pid, 0)
            os.close(self.pipe)
            self.pid = 0

    def end(self):
        """Leave nothing behind, whatever happened."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                self.kill()
            self.reap()


def first_to_tell(started):
    """Wait until one of several children has told something; return that child."""
    readable, _, _ = select.select([child.pipe for child in started], [], [], DEADLINE)
    assert readable, "no child says anything"
    return next(child for child in started if child.pipe in readable)


@contextlib.contextmanager
def children(count, work, *arguments):
    """Run `work(tell, index, *arguments)` in each of so many children."""
    started = []
    try:
        started.extend(Child(work, index, *arguments) for index in range(count))
        yield started
    finally:
        for child in started:
            child.end()
