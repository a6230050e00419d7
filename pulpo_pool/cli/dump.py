"""`pulpo-pool dump`: where every process of a pool is, now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli.control_client import ask
from pulpo_pool.cli.options import examples, json_option, pool_address, pool_options
from pulpo_pool.cli.output import print_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE: Final = 2.0  # seconds that a process has to begin; faulthandler takes microseconds
_LOOK: Final = 0.02  # seconds
_QUIET_LOOKS: Final = 3  # looks without growth after which a stack is whole: it has no end mark
_LARGEST: Final = 1_048_576  # bytes; a hundred threads of a hundred frames are less


@click.command(epilog=examples("pulpo-pool dump", "pulpo-pool dump 3", "pulpo-pool dump keeper"))
@click.argument("slot", required=False, default="")
@json_option
@pool_options
def dump(*, slot: str, as_json: bool, **flags: Any) -> None:
    """Show the stacks of all processes, or of SLOT: a worker's number or a service.

    They are written by the processes themselves, also by one that is stuck in C code.
    """
    asked = ask(pool_address(flags), "dump", slot)["stacks"]
    texts = _written([Path(entry["path"]) for entry in asked])
    shown = [
        {"label": entry["label"], "pid": entry["pid"], "stacks": text}
        for entry, text in zip(asked, texts, strict=True)
    ]
    if as_json:
        print_json(shown)
        return
    for entry in shown:
        _print(entry)


def _print(entry: Mapping[str, Any]) -> None:
    click.secho(f"--- {entry['label']} (pid {entry['pid']})", bold=True)
    if entry["stacks"] is None:
        click.echo(f"nothing within {PATIENCE:g} s: it is stopped, or stuck in the kernel")
    else:
        for line in _own_frames(entry["stacks"]):
            click.echo(printable(line))
    click.echo()


def _own_frames(stacks: str) -> Iterator[str]:
    """Leave out what lies below a birth: the master's own frames from before the fork."""
    below = False
    for line in stacks.splitlines():
        below = below and line.startswith("  File")
        if not below:
            yield line
        below = below or line.endswith(" in be_born")


def _written(paths: Sequence[Path]) -> list[str | None]:
    """Return what was written to each file, once it grows no more; None where nothing was."""
    sizes, quiet = [0] * len(paths), 0
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not (all(sizes) and quiet >= _QUIET_LOOKS):
        time.sleep(_LOOK)
        before, sizes = sizes, [_size(path) for path in paths]
        quiet = quiet + 1 if sizes == before else 0
    return [_text(path) if size else None for path, size in zip(paths, sizes, strict=True)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return None
