"""What README and docs say is so: every command runs, every table is the program's own."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from pages import PAGES, README, ROOT, Reader, blocks, inline_commands
from pool import publish, queue_in

from pulpo_pool.cli import reference
from pulpo_pool.cli.commands import COMMANDS, route
from pulpo_pool.cli.main import cli
from pulpo_pool.queues.adapter import BuryReason

BY_NAME = {str(page.relative_to(ROOT)): page for page in PAGES}


def bury_seventeen(folder):
    """Make the queue what the page's reader has before them: job 17 is buried."""
    publish(folder, "send_email", [{"to": "nobody"}] * 17)
    with queue_in(folder) as queue:
        while job := queue.dequeue():
            queue.bury(job, reason=BuryReason.FATAL)


def bury_again(folder):
    """Make it so once more: 20 dead letters, of two types, 17 or 27 among them."""
    publish(folder, "charge", [{"cents": 5}] * 3)
    bury_seventeen(folder)


BEFORE = {
    "Looking after jobs": bury_seventeen,
    "Dead letters": bury_again,
    "What went wrong": bury_again,
}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_command_runs(tmp_path, name):
    """In one folder, in the order of the page, which has the files that the page shows."""
    reader = Reader(tmp_path)
    for block in blocks(BY_NAME[name]):
        shown = re.match(r"# ([\w-]+\.(?:py|toml))\n", block.text)
        if shown:
            (tmp_path / shown[1]).write_text(block.text)
        if block.language == "sh" and not block.mark:
            BEFORE.get(block.heading, lambda _: None)(tmp_path)
            reader.follow(block.text)


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_not_run_here_says_who_runs_it_or_why_nobody_does(name):
    for block in blocks(BY_NAME[name]):
        assert block.language, f"{block.heading}: a block without a language is run by nobody"
        if block.mark.startswith("run"):
            assert (ROOT / re.match(r"run by ([\w/.]+)", block.mark)[1]).exists()
        elif block.mark:
            assert re.match(r"not run: .{10,}", block.mark)


@pytest.mark.parametrize("name", BY_NAME)
def test_no_command_hides_in_a_block_without_a_fence(name):
    lines = BY_NAME[name].read_text().splitlines()

    assert [line for line in lines if re.match(r" {4}(python3?|pip|pulpo-pool) ", line)] == []


@pytest.mark.parametrize("name", BY_NAME)
def test_a_command_in_passing_is_one_that_the_program_takes(name):
    for line in inline_commands(BY_NAME[name]):
        command, *arguments = route(shlex.split(line)[1:])
        group = click.Context(cli)
        if command in COMMANDS:
            cli.get_command(group, command).make_context(command, arguments, parent=group)


def test_the_tables_in_readme_are_the_programs():
    """Otherwise: python -m pulpo_pool.cli.reference README.md."""
    text = README.read_text()

    assert all(f"<!-- generated: {name} -->" in text for name in reference.TABLES)
    assert reference.refreshed(text) == text


@pytest.mark.parametrize("table", [reference.signals, reference.exit_codes])
def test_help_of_run_names_every_signal_and_exit_code(table):
    command = cli.get_command(click.Context(cli), "run")
    told = command.help
    first = [row.split("|")[1] for row in table().splitlines()[2:]]

    assert [word for row in first for word in re.findall(r"\w+", row) if word not in told] == []


def test_a_stale_table_is_written_anew():
    page = "before\n<!-- generated: signals -->\nold\n<!-- end: signals -->\nafter\n"

    assert reference.refreshed(page).splitlines()[2] == "| signal | command | meaning |"
    assert reference.refreshed(page).splitlines()[-1] == "after"


def test_readme_is_short_enough_to_be_read():
    """What is long goes to docs/; only the table of settings grows with the program."""
    text = README.read_text().replace(reference.settings(), "")

    assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("name", BY_NAME)
def test_links_lead_somewhere(name):
    page = BY_NAME[name]
    targets = re.findall(r"\]\(([^)#:]+)[#)]", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []
