"""From `module:attribute` to the app, with an answer for everything that may be wrong with it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulpo_pool.app.pulpo import Pulpo
from pulpo_pool.errors import AppImportError, AppNotFound
from pulpo_pool.suggestions import did_you_mean, nearest

if TYPE_CHECKING:
    from types import ModuleType


def load_app(spec: str, directory: Path) -> Pulpo:
    """Import the app that `spec` names, with `directory` first on the module search path.

    `spec` is MODULE:ATTRIBUTE; the attribute may be dotted, and may be left out where the module
    has just one Pulpo.

    Raises AppNotFound for what does not exist or is no Pulpo, AppImportError for an app that
    raises while it is imported.
    """
    module_name, _, path = (part.strip() for part in spec.partition(":"))
    _check_module_name(spec, module_name, path)
    place = str(directory.resolve())
    if sys.path[:1] != [place]:
        sys.path.insert(0, place)
    module = _imported(module_name, directory)
    return _attribute(module, path) if path else _only_app(module)


def _check_module_name(spec: str, module_name: str, path: str) -> None:
    if module_name.endswith(".py") or "/" in module_name:
        dotted = ".".join(Path(module_name.removesuffix(".py")).parts)
        meant = f"{dotted}:{path or 'pulpo'}"
        raise AppNotFound(f"{spec!r}: name the module, not its file; did you mean {meant!r}?")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise AppNotFound(
            f"{spec!r} names no app: write it as MODULE:ATTRIBUTE, such as shop:pulpo"
        )


def _imported(name: str, directory: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, name):
            raise AppNotFound(_missing_module(str(error.name), name, directory)) from None
        raise AppImportError(
            f"{name} raised {type(error).__name__} while it was imported: {error}"
        ) from error


def _is_part(missing: str | None, name: str) -> bool:
    """Tell whether what is missing is the app's module, not something that it imports."""
    return missing is not None and (name == missing or name.startswith(missing + "."))


def _missing_module(missing: str, name: str, directory: Path) -> str:
    parent = directory.joinpath(*missing.split(".")[:-1])
    near = nearest(missing.rpartition(".")[2], _modules_in(parent))
    hint = ""
    if near:
        whole = ".".join([*missing.split(".")[:-1], near])
        hint = f"; did you mean {name.replace(missing, whole, 1)!r}?"
    return f"there is no module {missing!r} in {parent} or on Python's path{hint}"


def _modules_in(directory: Path) -> list[str]:
    try:
        entries = list(directory.iterdir())
    except OSError:
        return []
    files = [entry.stem for entry in entries if entry.suffix == ".py"]
    packages = [entry.name for entry in entries if (entry / "__init__.py").exists()]
    return [name for name in files + packages if name.isidentifier() and name != "__init__"]


def _attribute(module: ModuleType, path: str) -> Pulpo:
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = getattr(module, "__file__", None) or "built in"
            known = (
                [each for each in vars(found) if not each.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            hint = did_you_mean(name, known)
            raise AppNotFound(
                f"the module {module.__name__!r} ({where}) has no {path!r}{hint}"
            ) from None
    if not isinstance(found, Pulpo):
        kind = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise AppNotFound(
            f"{module.__name__}:{path} is no Pulpo, it is {kind}{_hint_of_apps(module)}"
        )
    return found


def _only_app(module: ModuleType) -> Pulpo:
    apps = _apps_in(module)
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise AppNotFound(
            f"the module {module.__name__!r} ({getattr(module, '__file__', None)}) has no Pulpo; "
            "write `pulpo = Pulpo()` in it"
        )
    raise AppNotFound(f"{module.__name__!r} has several apps{_hint_of_apps(module)}")


def _apps_in(module: ModuleType) -> dict[str, Pulpo]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Pulpo)}


def _hint_of_apps(module: ModuleType) -> str:
    names = [f"{module.__name__}:{name}" for name in _apps_in(module)]
    return f"; did you mean {' or '.join(names)}?" if names else ""
