"""What users import is a promise: a change here is a change of the public API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pulpo_pool
from pulpo_pool import testing

ROOT = Path(__file__).parents[2]


def test_the_packages_names_are_frozen():
    assert pulpo_pool.__all__ == [
        "ConfigError",
        "Fatal",
        "HandlerRegistry",
        "InvalidHandler",
        "InvalidMessage",
        "Job",
        "JobContext",
        "Message",
        "MessageTooLarge",
        "Middleware",
        "PartlyPublished",
        "PayloadHandler",
        "Pulpo",
        "PulpoPoolError",
        "QueueUnavailable",
        "RequestResult",
        "ResultKind",
        "Settings",
        "SoftTimeLimit",
        "Transient",
    ]


def test_every_public_name_is_there_and_listed():
    for name in pulpo_pool.__all__:
        assert getattr(pulpo_pool, name).__name__ == name
        assert name in dir(pulpo_pool)
    assert not hasattr(pulpo_pool, "Nonsense")


def test_the_test_kits_names_are_frozen():
    assert testing.__all__ == [
        "JobFailed", "ManualClock", "QueueHarness", "TravellingClock", "eager", "eventually",
    ]  # fmt: skip


def test_documented_use_type_checks_and_a_wrong_keyword_does_not():
    """In api.py each wrong line carries the ignore of its error, and an idle ignore is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "tests/typing/api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert (done.stdout, done.stderr) == ("", "")
