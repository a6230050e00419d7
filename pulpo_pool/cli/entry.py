"""The program's entry point: hears signals first, and imports the commands after that."""

from __future__ import annotations

from pulpo_pool.master.ears import ears_of_init


def main() -> None:
    """Run the command line, and exit with its code."""
    ears = ears_of_init()
    from pulpo_pool.cli.main import cli

    cli.main(obj=ears)
