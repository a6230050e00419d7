"""Where settings come from: command line, environment, file, platform; the strongest first."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.settings.ancestor import translated
from pulpo_pool.settings.fields import ENVIRONMENT_PREFIX, Mismatch
from pulpo_pool.suggestions import did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulpo_pool.settings.fields import SettingField

CONFIG_FILE: Final = "pulpo-pool.toml"
PROJECT_FILE: Final = "pyproject.toml"

# pulpo-messaging's names for what is called otherwise here
_ALIASES: Final = {"shutdown_after_number_of_empty_iterations": "max_empty_iterations"}

# Set by Heroku, Railway, foreman, honcho and overmind; every setting of ours overrides them. PORT
# is ours alone on such a platform, but nothing says that the whole network may read our metrics.
_HINTS: Final = (
    ("workers", "WEB_CONCURRENCY", "{}"),
    ("http", "PORT", "127.0.0.1:{}"),
    ("name", "PS", "{}"),
    ("name", "HONCHO_PROCESS_NAME", "{}"),
    ("name", "DYNO", "{}"),
    ("grace", "DYNO", "30"),  # seconds from TERM to KILL on Heroku, for every kind of dyno
)

_LARGEST_SECRET: Final = 1_048_576  # bytes; a wrong path may lead to a disk or a device

# Kubernetes tells of a service named pulpo-pool in variables that look like settings.
_SERVICE_LINK: Final = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was found, and where, such as "command line: --workers"."""

    value: Any
    source: str
    from_text: bool
    is_hint: bool = False  # the platform's way, which nobody chose for this pool


@dataclass(slots=True)
class Findings:
    """What reading the sources came to; problems and warnings are a line each."""

    given: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def collect(
    fields: Mapping[str, SettingField],
    flags: Mapping[str, Any],
    *,
    directory: Path,
    environ: Mapping[str, str],
) -> Findings:
    """Return what the strongest source says of each setting, and every mistake met on the way."""
    findings = Findings()
    chosen = flags.get("config") or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    findings.given = {
        **_from_platform(environ),
        **_from_file(fields, _config_file(chosen, directory), environ, findings),
        **_from_environment(fields, environ, findings),
        **_from_flags(fields, flags),
    }
    return findings


def _from_flags(fields: Mapping[str, SettingField], flags: Mapping[str, Any]) -> dict[str, Given]:
    return {
        name: Given(flags[name], f"command line: {setting.flag}", from_text=True)
        for name, setting in fields.items()
        if flags.get(name) not in (None, ())
    }


def _from_platform(environ: Mapping[str, str]) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for name, variable, form in _HINTS:
        if environ.get(variable):
            value, source = form.format(environ[variable]), f"environment: {variable}"
            found.setdefault(name, Given(value, source, from_text=True, is_hint=True))
    return found


def _from_environment(
    fields: Mapping[str, SettingField], environ: Mapping[str, str], findings: Findings
) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for variable, text in environ.items():
        word = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not variable.startswith(ENVIRONMENT_PREFIX) or word == "config" or not text:
            continue  # Compose and CI write "not set" as an empty variable
        source = f"environment: {variable}"
        name = _setting_called(word, fields)
        in_file = _setting_called(word.removesuffix("_file"), fields)
        if name is not None:
            _take(found, name, Given(text, source, from_text=True), findings)
        elif in_file is not None:
            content = _read_secret(text, source, findings)
            _take(found, in_file, Given(content, source, from_text=True), findings)
        elif not _is_service_link(word.upper(), text):
            _unknown_variable(word, source, fields, findings)
    return {name: given for name, given in found.items() if given.value is not None}


def _read_secret(path: str, source: str, findings: Findings) -> str | None:
    """Return what a file says, without the space around it; None, and a problem, if nothing.

    An empty file is one, unlike an empty variable: the secret has not been filled in, and going
    on without it would mean another queue.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_SECRET + 1)
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:  # whose own words show a part of the secret
        reason = "it is not UTF-8"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    else:
        if text and len(content) <= _LARGEST_SECRET:
            return text
        reason = f"it is larger than {_LARGEST_SECRET:,} bytes" if text else "it is empty"
    findings.problems.append(f"{source}: cannot read {path!r}: {reason}")
    return None


def _is_service_link(word: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(word)) or text.startswith(("tcp://", "udp://", "sctp://"))


def _unknown_variable(
    word: str, source: str, fields: Mapping[str, SettingField], findings: Findings
) -> None:
    near = nearest(word, fields)
    if near is None:  # a deployment keeps variables of its own under our prefix
        findings.warnings.append(f"{source}: no such setting")
    else:
        meant = fields[near].variable
        findings.problems.append(f"{source}: no such setting; did you mean {meant!r}?")


def _config_file(chosen: str | Path | None, directory: Path) -> tuple[Path, bool]:
    """Return the file to read and whether it has to exist."""
    if chosen:
        return directory / chosen, True
    own = directory / CONFIG_FILE
    return (own if own.exists() else directory / PROJECT_FILE), False


def _from_file(
    fields: Mapping[str, SettingField],
    file: tuple[Path, bool],
    environ: Mapping[str, str],
    findings: Findings,
) -> dict[str, Given]:
    path, must_exist = file
    if not must_exist and not path.exists():
        return {}
    try:
        lines = _read_lines(path, environ)
    except Mismatch as problem:
        findings.problems.append(f"{path}: {problem}")
        return {}
    found: dict[str, Given] = {}
    for key, value, source in lines:
        name = _setting_called(key.replace("-", "_"), fields)
        if name is None:
            near = did_you_mean(key, [setting.key for setting in fields.values()])
            findings.problems.append(f"{path.name}: {key}: no such setting{near}")
        else:
            _take(found, name, Given(value, f"{path.name}: {source}", from_text=False), findings)
    return found


def _read_lines(path: Path, environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Return what a file says: key, value, and the key as it is written there."""
    if path.suffix != ".json":
        return [(key, value, key) for key, value in _read_table(path).items()]
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise Mismatch(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"is not valid JSON: {error}") from error
    return list(translated(content, environ))


def _read_table(path: Path) -> dict[str, Any]:
    if path.suffix != ".toml":
        raise Mismatch("expected a .toml file, or pulpo-messaging's .json")
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise Mismatch(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"is not valid TOML: {error}") from error
    if path.name != PROJECT_FILE:
        return content
    tools = content.get("tool", {})
    table = tools.get("pulpo-pool", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise Mismatch(f"tool.pulpo-pool: expected a table, got {table!r}")
    return table


def _setting_called(word: str, fields: Mapping[str, SettingField]) -> str | None:
    name = _ALIASES.get(word, word)
    return name if name in fields else None


def _take(found: dict[str, Given], name: str, given: Given, findings: Findings) -> None:
    """Note what one source says; the same setting under two names has no right answer."""
    if name in found:
        findings.problems.append(
            f"{given.source}: the same setting as {found[name].source}; keep one of them"
        )
    found[name] = given
