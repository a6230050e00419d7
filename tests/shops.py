"""The apps that process tests run: what their handlers do shows in files beside them."""

from __future__ import annotations

from typing import Final

SHOP: Final = '''
import os, time
from pathlib import Path
from pulpo_pool import Pulpo

pulpo = Pulpo()


def append(file, *words):
    """One write, so that lines of several processes never mix."""
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, " ".join(map(str, words)).encode() + b"\\n")
    os.close(fd)


@pulpo.job()
def note(n):
    append("done", n, os.getpid())


@pulpo.job()
def work(n, seconds=0.01):
    """A job that takes a while, so that a kill can hit it."""
    append("started", n, os.getpid(), time.time())
    time.sleep(seconds)
    append("done", n, os.getpid())


@pulpo.job()
def hold(n):
    """A job that ends when the test says so."""
    append("started", n, os.getpid(), time.time())
    while not Path("go").exists():
        time.sleep(0.005)
    append("done", n, os.getpid())
'''

# Its import waits while the file `block` is there, and says that it does.
SLOW_SHOP: Final = (
    SHOP
    + """
while Path("block").exists():
    if not Path(f"booting.{os.getpid()}").exists():
        Path(f"booting.{os.getpid()}").touch()
        append("booting", os.getpid())
    time.sleep(0.005)
"""
)

# With a job that kills its worker each time it runs.
CRASH_SHOP: Final = (
    SHOP
    + """
import ctypes, signal, sys
from pulpo_pool import JobContext


@pulpo.job()
def crash(n=0):
    append("crashed", n, os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)
"""
)
