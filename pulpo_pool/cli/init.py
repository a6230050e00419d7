"""`pulpo-pool init`: a starting app with its tests, and on request what deploys it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulpo_pool.cli.options import examples
from pulpo_pool.cli.output import print_error
from pulpo_pool.cli.scaffold import EXTRAS, Scaffold
from pulpo_pool.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

_REFUSED = 1


def _extras(ctx: click.Context, _: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    words = [word.strip().lower() for text in given for word in text.split(",")]
    for word in words:
        if word not in EXTRAS:
            hint = did_you_mean(word, EXTRAS)
            raise click.BadParameter(f"expected {', '.join(EXTRAS)}, got {word!r}{hint}", ctx)
    return tuple(dict.fromkeys(words))


def _complete_extras(
    _: click.Context, __: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    from click.shell_completion import CompletionItem

    before, comma, begun = incomplete.rpartition(",")
    return [CompletionItem(before + comma + word) for word in EXTRAS if word.startswith(begun)]


@click.command(
    epilog=examples(
        "pulpo-pool init",
        "pulpo-pool init myshop --with procfile,docker",
        "pulpo-pool init --with systemd --dry-run",
    )
)
@click.argument(
    "folder", default=".", type=click.Path(file_okay=False, path_type=Path), metavar="[FOLDER]"
)
@click.option(
    "--with",
    "extras",
    multiple=True,
    callback=_extras,
    shell_complete=_complete_extras,
    metavar="NAMES",
    help=f"What else to write: {', '.join(EXTRAS)}; several with commas. A folder that has a "
    "pulpo-pool.toml already gets only these.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
def init(*, folder: Path, extras: tuple[str, ...], dry_run: bool) -> int | None:
    """Write a starting app with two jobs, their tests and settings into FOLDER.

    Nothing is ever overwritten: if one of the files is there, none is written, and it exits with 1.
    """
    scaffold = Scaffold(folder, extras)
    if dry_run:
        _show(scaffold)
    in_the_way = scaffold.in_the_way()
    if in_the_way:
        _refuse(scaffold, in_the_way)
        return _REFUSED
    if not dry_run:
        scaffold.write()
        click.echo(f"wrote {', '.join(str(folder / each.path) for each in scaffold.drafts)}")
        _say_next(scaffold)
    return None


def _show(scaffold: Scaffold) -> None:
    for draft in scaffold.drafts:
        click.echo(f"==> {scaffold.folder / draft.path} <==\n{draft.text}")


def _refuse(scaffold: Scaffold, in_the_way: Sequence[Path]) -> None:
    print_error(
        f"nothing is written, since this is there already: {', '.join(map(str, in_the_way))}"
    )
    if scaffold.has_app:
        print_error(f"to add to the app there, name what: --with {','.join(EXTRAS)}")
    else:
        print_error("name another folder: pulpo-pool init FOLDER")


def _say_next(scaffold: Scaffold) -> None:
    for title, lines in scaffold.next_commands().items():
        click.echo(f"\n{title}:")
        for line in lines:
            click.echo(f"  {line}")
