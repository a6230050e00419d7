"""The failure table's jobs: each fails in its own way, and what must have become of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fate:
    """What a job of a row comes to. `said` is in the evidence, or in the log where none is kept."""

    state: str | None  # None: gone
    outcome: str | None = None  # of its last attempt, as counted
    attempts: int = 1
    crashes: int = 0
    why: str | None = None  # the reason of the retry or the burial
    said: str = ""


GONE: Final = Fate(None, "success")


def again(said: str, why: str = "exception") -> Fate:
    return Fate("delayed", "retried", why=why, said=said)


def buried(why: str, said: str) -> Fate:
    return Fate("buried", "buried", why=why, said=said)


def crashed(said: str) -> Fate:
    return Fate("buried", "buried", attempts=2, crashes=2, why="crashed", said=said)


FATES: Final = {
    "returns_nothing": GONE,
    "returns_success": GONE,
    "returns_nonsense": GONE,
    "returns_transient": again("busy", "requested"),
    "raises_transient_in_an_hour": again("busy for long", "requested"),
    "returns_fatal": buried("fatal", "no such city"),
    "raises": again("ValueError: odd"),
    "raises_at_its_last_attempt": buried("exhausted", "ValueError: odd at last"),
    "raises_what_is_not_retried": buried("fatal", "ValueError: odd for good"),
    "calls_sys_exit": again("SystemExit: 3"),
    "asks_for_too_much_memory": again("MemoryError"),
    "passes_its_soft_limit": again("the soft time limit of 0.2 s is over", "timeout"),
    "passes_its_hard_limit": crashed("was ended at the time limit of the job"),
    "calls_os_exit": crashed("left with exit status 7"),
    "segfaults": crashed("signal 11 (SIGSEGV)"),
    "is_killed": crashed("signal 9 (SIGKILL)"),
    "has_no_handler": Fate("buried", "buried", attempts=2, why="unknown_type", said="no handler"),
    "expires_before": Fate(None, "expired"),
    "expires_while_it_waits": Fate(None, "expired"),
}

# Two attempts and two crashes are all a job has here, so that no crash waits for its turn. An
# idle worker looks as often as this for leases that have ended.
OPTIONS: Final = (
    "-w", "6", "--max-attempts", "2", "--max-crashes", "2", "--sleep-duration", "0.5",
)  # fmt: skip

SHOP: Final = '''
import ctypes, os, resource, signal, sys, time
from pathlib import Path
from tenacity import retry_if_exception_type, stop_after_attempt, stop_never, wait_fixed
from pulpo_pool import Fatal, JobContext, Pulpo, RequestResult, Transient

pulpo = Pulpo()
later = pulpo.job(wait=lambda state: 600.0)  # so that no second attempt meets the test


def append(file, *words):
    """One write, so that lines of several processes never mix."""
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, " ".join(map(str, words)).encode() + b"\\n")
    os.close(fd)


@later
def returns_nothing():
    append("ran", "returns_nothing")


@later
def returns_success():
    return RequestResult.success()


@later
def returns_nonsense():
    return {"status": 418}


@later
def returns_transient():
    return RequestResult.transient("busy")


@later
def raises_transient_in_an_hour():
    raise Transient("busy for long", retry_in=3600)


@later
def returns_fatal():
    return RequestResult.fatal("no such city")


@later
def raises():
    raise ValueError("odd")


@pulpo.job(stop=stop_after_attempt(1))
def raises_at_its_last_attempt():
    raise ValueError("odd at last")


@pulpo.job(retry=retry_if_exception_type(KeyError))
def raises_what_is_not_retried():
    raise ValueError("odd for good")


@later
def calls_sys_exit():
    sys.exit(3)


@later
def asks_for_too_much_memory():
    bytearray(1 << 62)


@pulpo.job(wait=lambda state: 600.0, soft_time_limit=0.2)
def passes_its_soft_limit():
    time.sleep(600)


@pulpo.job(time_limit=0.5)
def passes_its_hard_limit(job: JobContext):
    """Its first crash is of a faster kind: the master takes seconds to be sure."""
    if job.crashes == 0:
        os._exit(7)
    while True:
        time.sleep(600)


@later
def calls_os_exit():
    os._exit(7)


@later
def segfaults():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


@later
def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


@later
def expires_before():
    append("ran", "expires_before")


@later
def expires_while_it_waits():
    append("ran", "expires_while_it_waits")


@later
def uses_up_the_memory():
    hoard = []
    while True:
        hoard.append(b"x" * 10_000_000)


@pulpo.job(pause_on=ConnectionError, pause=0.2, wait=wait_fixed(0), stop=stop_never)
def depends(n, job: JobContext):
    append("depends", n, job.attempt)
    if Path("down").exists():
        raise ConnectionRefusedError("nothing listens there")
    append("depended", n)


@pulpo.job(wait=wait_fixed(1), stop=stop_after_attempt(1000))
def follows_its_policy(job: JobContext):
    append("policy", job.attempt)
    raise ValueError("odd again")


@later
def falls_silent(job: JobContext):
    """Its first worker is stopped in the middle, until another has got the job."""
    append("silent", job.attempt, os.getpid())
    if job.attempt == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
        append("spoke_again", job.attempt)
    else:
        first = int(Path("silent").read_text().split()[1])
        os.kill(first, signal.SIGCONT)


@later
def hold():
    append("held", os.getpid())
    while not Path("go").exists():
        time.sleep(0.005)
    append("let_go", os.getpid())
'''

# What a deploy makes of it: a limit that the waiting job has passed already.
NEW_SHOP: Final = SHOP.replace("stop_after_attempt(1000)", "stop_after_attempt(1)")
