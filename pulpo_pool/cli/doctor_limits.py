"""The doctor compares what the settings ask for with what this place allows."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.cli.findings import ok, problem, warning
from pulpo_pool.memory import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulpo_pool.cgroup import Cgroups
    from pulpo_pool.cli.findings import Finding
    from pulpo_pool.settings import Loaded, Settings

# Measured without an app, on Linux with Python 3.11: 20 descriptors in the master, however many
# workers there are, 25 in a worker; 51 MB in master, keeper, web and template together.
_DESCRIPTORS: Final = 64
_ROOM_FOR_AN_APP: Final = 256
_REST_OF_THE_POOL: Final = 64 * 1_048_576
_OTHER_PROCESSES: Final = 6  # master, keeper, web, watcher, and at a reload two templates
_MOST_PER_CPU: Final = 2  # workers on a CPU that a quota leaves


def descriptors() -> Iterator[Finding]:
    """Compare the limit of open files, which is each process's own, with what one needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    facts: dict[str, Any] = {"soft": soft, "hard": hard}
    more = "raise it: ulimit -n 1024, or LimitNOFILE= of a systemd unit"
    if _is_less(soft, _DESCRIPTORS):
        yield problem("descriptors", f"{soft} a process, and a worker needs 25", more, **facts)
    elif _is_less(soft, _ROOM_FOR_AN_APP):
        said = f"{soft} a process: 25 are the worker's, so few are left for what jobs open"
        yield warning("descriptors", said, more, **facts)
    else:
        yield ok("descriptors", f"{_limit_text(soft)} a process", **facts)


def processes(settings: Settings, cgroups: Cgroups) -> Iterator[Finding]:
    """Compare how many processes there may be with how many the pool has."""
    wanted = settings.workers + _OTHER_PROCESSES
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    group = cgroups.processes()
    facts: dict[str, Any] = {"wanted": wanted, "of_the_user": soft, "of_the_cgroup": group}
    said = f"{settings.workers} workers and up to {_OTHER_PROCESSES} others"
    if group is not None and group < wanted:
        advice = "raise pids.max (--pids-limit of a container), or start fewer workers"
        yield problem("processes", f"{said}, and the cgroup allows {group}", advice, **facts)
    elif _is_less(soft, wanted):
        advice = "raise it: ulimit -u, or LimitNPROC= of a systemd unit"
        yield problem("processes", f"{said}, and the user may have {soft}", advice, **facts)
    else:
        yield ok("processes", said, **facts)


def memory(settings: Settings, cgroups: Cgroups, installed: int) -> Iterator[Finding]:
    """Compare the workers' limits with the memory of the cgroup, or of the machine: `installed`."""
    quota = cgroups.memory()
    confined = quota is not None and quota < installed
    available = quota if quota is not None and confined else installed
    whose = "the cgroup allows" if confined else "the machine has"
    share = max(0, available - _REST_OF_THE_POOL) // settings.workers
    limit = settings.max_memory_hard or settings.max_memory
    facts: dict[str, Any] = {"available": available, "limit": limit, "workers": settings.workers}
    if share == 0:
        said = f"{whose} {size_text(available)}, which the pool needs without any worker"
        yield problem("memory", said, "give it more", **facts)
    elif not limit and confined:
        said = f"{whose} {size_text(available)}, and nothing limits the {_workers(settings)}"
        yield warning("memory", said, f"the kernel kills blindly: {_fitting(share)}", **facts)
    elif limit > share:
        said = f"{_workers(settings)} of {size_text(limit)} are more than {whose}: "
        said += size_text(available)
        yield warning("memory", said, f"{_fitting(share)}, or start fewer workers", **facts)
    else:
        asked = f"{_workers(settings)} of {size_text(limit)}, " if limit else ""
        yield ok("memory", f"{asked}{whose} {size_text(available)}", **facts)


def _workers(settings: Settings) -> str:
    return "1 worker" if settings.workers == 1 else f"{settings.workers} workers"


def _fitting(share: int) -> str:
    hard = share // 1_048_576
    return f"set max-memory = {int(hard * 0.8)}MiB and max-memory-hard = {hard}MiB"


def cpus(settings: Settings, cgroups: Cgroups, usable: int) -> Iterator[Finding]:
    """Compare the workers with the CPUs: `usable` of them, by affinity and quota."""
    quota = cgroups.cpus()
    facts: dict[str, Any] = {"usable": usable, "quota": quota, "workers": settings.workers}
    said = f"{_workers(settings)} on {usable} CPU{'' if usable == 1 else 's'}"
    if quota is not None and settings.workers > quota * _MOST_PER_CPU:
        said += ", as many as the cgroup's quota leaves"
        advice = (
            "fine for jobs that wait; with those that compute the kernel stops all processes "
            "together, the master too: use -w auto, or raise the quota"
        )
        yield warning("cpus", said, advice, **facts)
    else:
        yield ok("cpus", said, **facts)


def grace(loaded: Loaded) -> Iterator[Finding]:
    """Tell whether a drain fits into the time from the platform's TERM to its KILL."""
    drain, given = loaded.settings.drain_timeout, loaded.settings.grace
    facts: dict[str, Any] = {"drain_timeout": drain, "grace": given}
    doubt = next((text for text in loaded.warnings if text.startswith("drain-timeout:")), None)
    if doubt is not None:
        said, _, advice = doubt.removeprefix("drain-timeout: ").rpartition(": ")
        yield warning("grace", said, advice, **facts)
    elif given:
        yield ok("grace", f"a drain of {drain:g} s fits into {given:g} s", **facts)
    else:
        said = f"drain-timeout is {drain:g} s, and nobody says how long the platform waits"
        yield ok("grace", said, "tell me with --grace SECONDS", **facts)


def _is_less(limit: int, wanted: int) -> bool:
    return limit not in (resource.RLIM_INFINITY, -1) and limit < wanted


def _limit_text(limit: int) -> str:
    return "no limit for" if limit in (resource.RLIM_INFINITY, -1) else f"{limit:,}"
