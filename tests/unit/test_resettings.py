"""Which settings a reload changes, for whom, and when."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

import pulpo_pool
from pulpo_pool.errors import ConfigError
from pulpo_pool.master.resettings import FIXED, USERS, Resettings, laxer, services_using
from pulpo_pool.settings import SETTING_FIELDS, Loaded, Settings
from pulpo_pool.states import Role

OLD = Settings(workers=2)
FILES = {
    Role.WORKER: ("worker/process.py", "worker/preload.py", "worker/lifespan.py", "app/samples.py"),
    Role.KEEPER: ("keeper/process.py",),
    Role.WEB: ("web/process.py",),
    Role.WATCHER: ("watcher.py",),
}


def reread(**changed):
    """Return resettings whose sources say this by now."""
    return Resettings(OLD, lambda: Loaded(replace(OLD, **changed), {}))


def test_every_setting_is_somebodys_or_fixed():
    """A new setting must be thought about here before it can be added."""
    assert USERS.keys() | FIXED == SETTING_FIELDS.keys()
    assert not USERS.keys() & FIXED


@pytest.mark.parametrize("role", FILES, ids=lambda role: role.name.lower())
def test_each_role_is_told_of_what_its_code_reads(role):
    package = Path(pulpo_pool.__file__).parent
    text = "".join((package / file).read_text() for file in FILES[role])
    read = set(re.findall(r"settings\.(\w+)", text)) & SETTING_FIELDS.keys()

    assert read
    assert {name for name in read - FIXED if role not in USERS[name]} == set()


def test_whoever_opens_the_queue_is_told_of_what_that_takes():
    bodies = (Path(pulpo_pool.__file__).parent / "cli" / "bodies.py").read_text()
    opening = bodies[bodies.index("def queue_opener") :]
    read = set(re.findall(r"settings\.(\w+)", opening)) & SETTING_FIELDS.keys()

    assert read >= {"queues", "lease"}
    assert {name for name in read if not {Role.WORKER, Role.KEEPER} <= {*USERS[name]}} == set()


def test_workers_are_no_service():
    assert services_using({"handlers", "max_crashes"}) == {Role.KEEPER}


def test_only_the_generation_on_trial_has_the_new_settings():
    resettings = reread(max_jobs=5)
    resettings.read()
    resettings.try_in(2)

    assert (resettings.of(1).max_jobs, resettings.of(2).max_jobs) == (0, 5)
    resettings.adopt()
    assert (resettings.of(1).max_jobs, resettings.of(3).max_jobs) == (5, 5)
    assert resettings.of_master.max_jobs == 0
    assert resettings.finish(workers=2) == {"max_jobs"}
    assert resettings.of_master.max_jobs == 5


def test_a_trial_that_is_dropped_leaves_nothing():
    resettings = reread(max_jobs=5)
    resettings.read()
    resettings.try_in(2)

    assert resettings.drop() == OLD
    assert resettings.of(2) == resettings.of(3) == OLD


def test_what_is_fixed_stays_everywhere():
    resettings = reread(http="off", state_dir="elsewhere", lease=9.0)
    resettings.read()
    resettings.try_in(2)

    assert resettings.unchanged == ("http", "state_dir")
    assert resettings.of(2) == replace(OLD, lease=9.0)


def test_sources_that_cannot_be_read_are_a_mistake_like_others():
    def refuse():
        raise PermissionError(13, "Permission denied", "pulpo-pool.toml")

    resettings = Resettings(OLD, refuse)

    with pytest.raises(ConfigError, match=r"Permission denied: 'pulpo-pool\.toml'"):
        resettings.read()


@pytest.mark.parametrize(("old", "new", "both"), [(5, 9, 9), (9, 5, 9), (0, 5, 0), (5, 0, 0)])
def test_beside_each_other_both_generations_live_by_the_laxer_limit(old, new, both):
    """A worker must not be ended for a limit that is not its own."""
    merged = laxer(replace(OLD, max_memory_hard=old), replace(OLD, max_memory_hard=new, workers=7))

    assert (merged.max_memory_hard, merged.workers) == (both, 2)
    slow = replace(OLD, sleep_duration=90.0, boot_timeout=1.0)
    assert laxer(OLD, slow).sleep_duration == laxer(slow, OLD).sleep_duration == 90.0
    assert laxer(OLD, slow).boot_timeout == OLD.boot_timeout
