"""`pulpo-pool completion`: the script that lets a shell complete commands, options and values."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from pulpo_pool.cli.options import examples, loaded_settings, opened
from pulpo_pool.errors import PulpoPoolError
from pulpo_pool.queues.opening import check_url

if TYPE_CHECKING:
    from pulpo_pool.settings import Settings
    from pulpo_pool.settings.fields import SettingField

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_PULPO_POOL_COMPLETE"  # the name that click gives it

_PATHS: Final = {"FILE": "file", "DIR": "dir"}  # by metavar: what the shell itself completes


@click.command(
    epilog=examples(
        "source <(pulpo-pool completion bash)",
        "pulpo-pool completion bash > ~/.local/share/bash-completion/completions/pulpo-pool",
        "pulpo-pool completion zsh > ~/.zfunc/_pulpo-pool",
        "pulpo-pool completion fish > ~/.config/fish/completions/pulpo-pool.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(*, shell: str) -> None:
    """Print the script that completes commands, options and values in SHELL: bash, zsh or fish.

    A shell reads it when it starts, from the file that the examples name. It asks the program at
    each press of TAB; queues are those of the settings, and of an embedded queue that is there.
    """
    root = click.get_current_context().find_root()
    make = get_completion_class(shell)
    assert make is not None
    script = make(root.command, {}, "pulpo-pool", VARIABLE).source()
    click.echo(script, nl=False)


def values_of(
    setting: SettingField, ctx: click.Context, incomplete: str
) -> list[CompletionItem[str]]:
    """Return what may be typed for a setting."""
    if setting.metavar in _PATHS:
        return [CompletionItem(incomplete, type=_PATHS[setting.metavar])]
    if setting.name == "queues":
        return queues_known(ctx, incomplete)
    words = ["auto"] if setting.auto else setting.choices
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def queues_known(ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Return the queues that the settings name, and those with jobs in an embedded queue.

    A server is not asked: it may be away, and somebody waits for their TAB.
    """
    names = set[str]()
    with suppress(PulpoPoolError, OSError):
        settings = loaded_settings(ctx.params | {"queues": None}).settings
        names.update(settings.queues)
        if _is_at_hand(settings):
            with opened(settings) as adapter:
                names.update(adapter.stats())
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _is_at_hand(settings: Settings) -> bool:
    address = check_url(settings.broker_url)
    return address.scheme == "file" and Path(address.target).exists()
