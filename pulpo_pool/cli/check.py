"""`pulpo-pool check`: the settings with their sources, the app with its handlers; nothing runs."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from pulpo_pool.cli.options import (
    app_argument,
    examples,
    json_option,
    loaded_settings,
    setting_options,
)
from pulpo_pool.cli.output import print_error, print_json, print_table
from pulpo_pool.settings import SETTING_FIELDS
from pulpo_pool.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulpo_pool.app.pulpo import Pulpo
    from pulpo_pool.settings import Loaded, Settings

_HIDDEN: Final = "***"
_PASSWORD_IN_URL: Final = re.compile(r"(?<=:)[^:@/]+(?=@)")
_SECRET: Final = re.compile(r"password|secret|token|credential|api.?key", re.IGNORECASE)


@click.command(epilog=examples("pulpo-pool check shop:pulpo"))
@app_argument
@json_option
@setting_options(
    "broker", "queues", "workers", "name", "state_dir", "http", "drain_timeout", "grace"
)
def check(*, as_json: bool, **flags: Any) -> None:
    """Check the settings and the app without running a pool.

    Prints each setting with the place it comes from, and the app's handlers with their policies
    of retries and pauses. Exits with 2 for a mistake in the settings, 3 for an app that cannot
    be imported.
    """
    loaded = loaded_settings(flags)
    with redirect_stdout(sys.stderr):  # what the app prints is not the answer
        app = _app(loaded.settings)
    report = _report(loaded, app)
    for warning in report["warnings"]:
        print_error(f"warning: {warning}")
    if as_json:
        print_json(report)
    else:
        _print_for_people(report)


def _app(settings: Settings) -> Pulpo:
    """Return the app as a worker would make it ready."""
    from pulpo_pool.app.loading import load_app
    from pulpo_pool.app.samples import sample_pulpo

    app = load_app(settings.app, Path.cwd()) if settings.app else sample_pulpo(settings)
    app.use(settings)
    return app


def _report(loaded: Loaded, app: Pulpo) -> dict[str, Any]:
    from pulpo_pool.app.retry import default_policy

    settings = loaded.settings
    values = {name: getattr(settings, name) for name in SETTING_FIELDS}
    values["broker"] = without_password(settings.broker_url)
    values["handlers"] = _without_secrets(settings.handlers)
    return {
        "settings": {
            SETTING_FIELDS[name].key: {"value": value, "source": loaded.sources[name]}
            for name, value in values.items()
        },
        "app": settings.app,
        "default_retry": default_policy(settings.max_attempts).describe(),
        "handlers": [
            {
                "request_type": handler.request_type,
                "callable": handler.description,
                "retry": handler.retry.describe(),
                "pause": handler.pauses.describe(),
            }
            for handler in app.registry
        ],
        "warnings": [*loaded.warnings, *_idle_options(settings, app)],
    }


def _idle_options(settings: Settings, app: Pulpo) -> Iterator[str]:
    """Yield what to say of options that no handler will read."""
    known = [handler.request_type for handler in app.registry]
    for name in settings.handlers:
        if name not in known:
            yield f"handlers.{name}: the app has no such handler{did_you_mean(name, known)}"


def _print_for_people(report: Mapping[str, Any]) -> None:
    rows = [
        (key, _for_people(entry["value"]), entry["source"])
        for key, entry in report["settings"].items()
    ]
    print_table(("SETTING", "VALUE", "FROM"), rows)
    click.echo(f"\nThe app is {report['app'] or 'the samples'}.\n")
    usual = report["default_retry"]
    handlers = [
        (
            each["request_type"],
            each["callable"],
            each["retry"] if each["retry"] != usual else "default",
            each["pause"] or "-",
        )
        for each in report["handlers"]
    ]
    print_table(("REQUEST TYPE", "HANDLER", "RETRY", "PAUSE"), handlers)
    click.echo(f"\nThe default: {usual}")


def _for_people(value: object) -> str:
    match value:
        case None:
            return "-"
        case tuple():
            return ", ".join(map(str, value))
        case bool() | dict():
            return msgspec.json.encode(value, enc_hook=repr).decode()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def without_password(url: str) -> str:
    """Return a URL that may be shown."""
    return _PASSWORD_IN_URL.sub(_HIDDEN, url)


def _without_secrets(options: Any) -> Any:
    if isinstance(options, dict):
        return {
            key: _HIDDEN if _SECRET.search(key) else _without_secrets(value)
            for key, value in options.items()
        }
    return options
