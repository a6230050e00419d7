"""Resettings: what a reload may change of the settings, whose they are, and who has which."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from msgspec.structs import asdict, replace

from pulpo_pool.errors import ConfigError
from pulpo_pool.states import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pulpo_pool.settings import Loaded, Settings

logger = logging.getLogger(__name__)

# What a running pool was built around: its place, its port, its queue, which processes it has.
# The broker is among them since what the dead still hold in it would be handed back by nobody.
FIXED: Final = frozenset(
    {
        "broker",
        "burst",
        "http",
        "log_format",
        "name",
        "pidfile",
        "preload",
        "state_dir",
        "watch",
    }
)

_WORKER, _KEEPER, _WEB, _WATCHER = Role.WORKER, Role.KEEPER, Role.WEB, Role.WATCHER

# Who, beside the master, works by each of the others. Workers, and the template with them, are
# new after a reload; a service is replaced if something of its own has changed.
USERS: Final[Mapping[str, tuple[Role, ...]]] = {
    "app": (_WORKER,),
    "boot_timeout": (),
    "drain_timeout": (_WORKER,),
    "grace": (),
    "handlers": (_WORKER,),
    "lease": (_WORKER, _KEEPER),
    "log_level": (_WORKER, _KEEPER, _WEB, _WATCHER),
    "max_age": (_WORKER,),
    "max_attempts": (_WORKER,),
    "max_crashes": (_WORKER, _KEEPER),
    "max_empty_iterations": (_WORKER,),
    "max_jobs": (_WORKER,),
    "max_memory": (_WORKER,),
    "max_memory_hard": (_WORKER,),
    "max_message_bytes": (_WORKER, _KEEPER),
    "min_workers": (),
    "on_expired": (_WORKER,),
    "queues": (_WORKER, _KEEPER, _WEB),
    "serializer": (_WORKER, _KEEPER),
    "sleep_duration": (_WORKER,),
    "soft_time_limit": (_WORKER,),
    "summary_interval": (),
    "time_limit": (_WORKER,),
    "workers": (),
}


def services_using(names: Iterable[str]) -> set[Role]:
    """Return the services that work by any of these settings."""
    return {role for name in names for role in USERS[name]} - {Role.WORKER}


def laxer(old: Settings, new: Settings) -> Settings:
    """Return `old` with the laxer of both wherever a stricter limit would end the other's."""
    hard = (old.max_memory_hard, new.max_memory_hard)
    return replace(
        old,
        boot_timeout=max(old.boot_timeout, new.boot_timeout),
        drain_timeout=max(old.drain_timeout, new.drain_timeout),
        sleep_duration=max(old.sleep_duration, new.sleep_duration),
        max_memory_hard=max(hard) if all(hard) else 0,  # 0 is no limit
    )


class Resettings:
    """The settings that are in use, and those that a reload is about to put in their place.

    1. read: one generation tries the new ones, everybody else has the old ones
    2. adopt: whoever is forked from now on has the new ones
    3. finish: the master has them too; or, before it came to that, drop
    """

    def __init__(self, settings: Settings, reread: Callable[[], Loaded]) -> None:
        """`reread` reads the sources of `settings` again; it raises ConfigError."""
        self.of_master = settings
        self.unchanged: tuple[str, ...] = ()  # what was set anew, and stays as it was
        self._reread = reread
        self._of_children = settings
        self._tried = settings
        self._trial: int | None = None  # the generation that tries them

    def of(self, generation: int) -> Settings:
        """Return what a child of this generation, forked now, works by."""
        return self._tried if generation == self._trial else self._of_children

    def read(self) -> None:
        """Read the sources again, and name what cannot change. Raises ConfigError."""
        self.unchanged = ()
        try:
            loaded = self._reread()
        except OSError as error:
            raise ConfigError(f"the settings cannot be read: {error}") from error
        for warning in loaded.warnings:
            logger.warning("%s", warning)
        self.unchanged = tuple(sorted(FIXED & changes(self.of_master, loaded.settings)))
        if self.unchanged:
            logger.warning(
                "cannot change while the pool runs: %s; what was set anew there counts from the "
                "next start",
                ", ".join(self.unchanged),
            )
        kept = {name: getattr(self.of_master, name) for name in FIXED}
        self._tried = replace(loaded.settings, **kept)

    def try_in(self, generation: int) -> Settings:
        """Let one generation try them; return what the master goes by meanwhile."""
        self._trial = generation
        return laxer(self.of_master, self._tried)

    def adopt(self) -> None:
        """Give the new ones to whoever is forked from now on."""
        self._of_children = self._tried
        self._trial = None

    def finish(self, workers: int) -> set[str]:
        """Give the new ones to the master as well; return the names of those that differ.

        `workers` is how many are wanted now: a number that a person has scaled the pool to stays.
        """
        before, self.of_master = self.of_master, self._of_children
        changed = changes(before, self.of_master)
        if "workers" in changed and workers != before.workers:
            logger.warning("workers: the pool was scaled to %d by hand, and stays so", workers)
            changed.discard("workers")
            self.unchanged = (*self.unchanged, "workers")
        if changed:
            logger.info("settings that have changed: %s", ", ".join(sorted(changed)))
        return changed

    def drop(self) -> Settings:
        """Forget the new ones; return what the master goes by again."""
        self._trial = None
        return self.of_master


def changes(old: Settings, new: Settings) -> set[str]:
    """Return the names of the settings that differ."""
    others = asdict(new)
    return {name for name, value in asdict(old).items() if value != others[name]}
