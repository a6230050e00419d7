"""An app of handlers that mean no good. Tests copy it beside a pool; it is not imported by them."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from tenacity import stop_after_attempt

from pulpo_pool import Pulpo

HERE = Path(__file__).parent
TREASURE = []  # what handlers leak

pulpo = Pulpo()
once = pulpo.job(stop=stop_after_attempt(1))


def append(name, text):
    with (HERE / name).open("a") as file:
        file.write(text + "\n")


@once
def good(n: int):
    """Write down all that an earlier handler may have spoilt."""
    print("good", n)
    sys.stdout.flush()
    print("good", n, file=sys.stderr, flush=True)
    mask = os.umask(0o022)
    os.umask(mask)
    found = {"pid": os.getpid(), "cwd": os.getcwd(), "umask": mask}  # noqa: PTH109 - it is the case
    found["alarm"] = signal.getitimer(signal.ITIMER_REAL)[0]
    found["outputs"] = [os.fstat(fd).st_ino for fd in (1, 2)]
    append("good", json.dumps({"n": n, **found}))


@once
def exits():
    sys.exit(3)


@once
def raises_base_exception():
    raise BaseException("base")  # noqa: TRY002 - it is the case


@once
def raises_keyboard_interrupt():
    raise KeyboardInterrupt


@once
def raises_unprintable():
    class Unprintable(Exception):
        def __str__(self):
            raise SystemError("no text")

    raise Unprintable


@once
def returns_nonsense():
    return {"status": 418}


@once
def prints_a_megabyte():
    print("x" * 1_000_000)
    print("x" * 1_000_000, file=sys.stderr)


@once
def closes_stdout():
    sys.stdout.close()
    sys.stderr.close()


@once
def closes_descriptor_1():
    os.close(1)


@once
def closes_descriptor_2():
    os.close(2)


@once
def removes_stdout():
    sys.stdout = sys.stderr = None


@once
def replaces_stdout_with_nonsense():
    sys.stdout = TREASURE


@once
def blocks_every_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@once
def ignores_sigterm():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@once
def keeps_signals_away_until_told():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.set_wakeup_fd(-1)
    append("keeps", str(os.getpid()))
    while not (HERE / "go").exists():
        time.sleep(0.005)


@once
def resets_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@once
def takes_the_wakeup_descriptor():
    signal.set_wakeup_fd(-1)


@once
def runs_asyncio():
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit)
        await asyncio.sleep(0)

    asyncio.run(main())


@once
def changes_directory():
    os.chdir("/")


@once
def changes_umask():
    os.umask(0o777)


@once
def changes_environment():
    for name in ("HOME", "PATH", "TMPDIR", "PULPO_POOL_BROKER", "PULPO_POOL_WORKERS"):
        os.environ[name] = "/nowhere"


@once
def leaves_an_alarm():
    signal.setitimer(signal.ITIMER_REAL, 3_600.0)


@once
def leaks_a_thread():
    threading.Thread(target=threading.Event().wait, daemon=False).start()


@once
def leaks_descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while True:
            TREASURE.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        # As many as a worker needs, or good jobs could not write down that they ran.
        os.close(TREASURE.pop())
        os.close(TREASURE.pop())


@once
def breaks_the_collector():
    gc.disable()
    sys.setrecursionlimit(150)


@once
def forks_back():
    pid = os.fork()
    append("forks", str(os.getpid()))
    if pid:
        TREASURE.append(pid)


@once
def forks_and_the_child_raises():
    if os.fork() == 0:
        append("forks", str(os.getpid()))
        raise SystemExit(9)


@once
def forks_a_daemon():
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    append("daemons", f"{os.getpid()} {pid}")


# -- these end their worker -------------------------------------------------------------------


@once
def leaves_by_os_exit():
    os._exit(0)


@once
def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


@once
def aborts():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


@once
def closes_every_descriptor():
    os.closerange(0, 4_096)


@once
def alarms_itself():
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    while True:
        signal.pause()
