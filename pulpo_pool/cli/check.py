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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulpo_pool.pulpo import Pulpo
    from pulpo_pool.settings import Loaded, Settings

_HIDDEN: Final = "***"
_PASSWORD_IN_URL: Final = re.compile(r"(?<=:)[^:@/]+(?=@)")
_SECRET: Final = re.compile(r"password|secret|token|credential|api.?key", re.IGNORECASE)


@click.command(epilog=examples("pulpo-pool check shop:pulpo"))
@app_argument
@json_option
@setting_options("broker", "queues", "workers", "name", "state_dir", "http")
def check(*, as_json: bool, **flags: Any) -> None:
    """Check the settings and the app without running a pool.

    Prints each setting with the place it comes from, and the app's handlers with their retry
    policies. Exits with 2 for a mistake in the settings, 3 for an app that cannot be imported.
    """
    loaded = loaded_settings(flags)
    for warning in loaded.warnings:
        print_error(f"warning: {warning}")
    with redirect_stdout(sys.stderr):  # what the app prints is not the answer
        app = _app(loaded.settings)
    report = _report(loaded, app)
    if as_json:
        print_json(report)
    else:
        _print_for_people(report)


def _app(settings: Settings) -> Pulpo:
    """Return the app as a worker would make it ready."""
    from pulpo_pool.loading import load_app
    from pulpo_pool.samples import sample_pulpo

    app = load_app(settings.app, Path.cwd()) if settings.app else sample_pulpo(settings)
    app.use(settings)
    return app


def _report(loaded: Loaded, app: Pulpo) -> dict[str, Any]:
    settings = loaded.settings
    values = {name: getattr(settings, name) for name in SETTING_FIELDS}
    values["broker"] = _PASSWORD_IN_URL.sub(_HIDDEN, settings.broker_url)
    values["handlers"] = _without_secrets(settings.handlers)
    return {
        "settings": {
            SETTING_FIELDS[name].key: {"value": value, "source": loaded.sources[name]}
            for name, value in values.items()
        },
        "app": settings.app,
        "handlers": [
            {
                "request_type": handler.request_type,
                "callable": handler.description,
                "retry": handler.retry.describe(),
            }
            for handler in app.registry
        ],
        "warnings": list(loaded.warnings),
    }


def _print_for_people(report: Mapping[str, Any]) -> None:
    rows = [
        (key, _for_people(entry["value"]), entry["source"])
        for key, entry in report["settings"].items()
    ]
    print_table(("SETTING", "VALUE", "FROM"), rows)
    click.echo(f"\nThe app is {report['app'] or 'the samples'}.\n")
    handlers = [
        (each["request_type"], each["callable"], each["retry"]) for each in report["handlers"]
    ]
    print_table(("REQUEST TYPE", "HANDLER", "RETRY"), handlers)


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


def _without_secrets(options: Any) -> Any:
    if isinstance(options, dict):
        return {
            key: _HIDDEN if _SECRET.search(key) else _without_secrets(value)
            for key, value in options.items()
        }
    return options
