"""`pulpo-pool metrics`: what a running pool exports, or what any pool can."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli.control_client import ask
from pulpo_pool.cli.options import examples, pool_address, pool_options
from pulpo_pool.cli.output import print_json, print_table, printable
from pulpo_pool.errors import PoolNotRunning

if TYPE_CHECKING:
    from pulpo_pool.settings import Settings

ANSWER_TIMEOUT: Final = 10.0  # seconds
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - compared, not bound


@click.command(
    epilog=examples(
        "pulpo-pool metrics",
        "pulpo-pool metrics --catalog",
        "pulpo-pool metrics --catalog --format markdown > metrics.md",
    )
)
@click.option("--catalog", is_flag=True, help="List every metric that a pool exports.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "json"]),
    default="table",
    show_default=True,
    help="How to write the catalog.",
)
@pool_options
def metrics(*, catalog: bool, form: str, **flags: Any) -> None:
    """Show what a running pool exports to Prometheus; with --catalog, what every pool does."""
    if catalog:
        _print_catalog(form)
        return
    text = _scraped(pool_address(flags))
    if sys.stdout.isatty():  # labels are what handlers made of anything
        text = "\n".join(printable(line) for line in text.splitlines())
    click.echo(text.rstrip("\n"))


def _print_catalog(form: str) -> None:
    from pulpo_pool.metrics.catalogue import CATALOGUE
    from pulpo_pool.metrics.reference import as_markdown

    if form == "markdown":
        click.echo(as_markdown(), nl=False)
    elif form == "json":
        fields = ("name", "kind", "help", "labels", "values", "buckets")
        print_json([{field: getattr(spec, field) for field in fields} for spec in CATALOGUE])
    else:
        rows = [[spec.name, spec.kind, ", ".join(spec.labels), spec.help] for spec in CATALOGUE]
        print_table(["METRIC", "TYPE", "LABELS", "MEANING"], rows)


def _scraped(settings: Settings) -> str:
    address = ask(settings, "status")["master"]["http"]
    if address is None:
        raise PoolNotRunning(
            "the pool runs with --http off, so it serves no metrics: start it with --http HOST:PORT"
        )
    host, _, port = str(address).rpartition(":")
    url = f"http://{_EVERY_ADDRESS.get(host, host)}:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError) as error:
        raise PoolNotRunning(f"{url} does not answer: {error}") from error
