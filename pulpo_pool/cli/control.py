"""`pulpo-pool status`, `scale`, `pause` and their sisters: talk to a running pool."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from pulpo_pool.cli.control_client import ask, ask_and_wait
from pulpo_pool.cli.options import (
    examples,
    json_option,
    pool_address,
    pool_options,
)
from pulpo_pool.cli.output import print_error, print_json, print_table, printable
from pulpo_pool.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

RELOAD_LOOK: Final = 0.1  # seconds between two looks at how a reload goes

_MIB: Final = 1_048_576


@click.command(epilog=examples("pulpo-pool status", "pulpo-pool status --json | jq .workers"))
@json_option
@pool_options
def status(*, as_json: bool, **flags: Any) -> None:
    """Show the master, its workers and services."""
    answer = ask(pool_address(flags), "status")
    if as_json:
        print_json(answer)
        return
    master = answer["master"]
    click.echo(
        f"{master['name']}: {master['state']}, pid {master['pid']}, "
        f"{master['workers_wanted']} workers of {master['app'] or 'the sample handlers'} "
        f"on {master['broker']}"
        + (f", http://{master['http']}/metrics" if master["http"] else "")
        + ("; crash-looping" if master["crash_looping"] else "")
    )
    rows = [_worker_row(worker) for worker in answer["workers"]]
    rows += [_service_row(service) for service in answer["services"]]
    print_table(["SLOT", "PID", "STATE", "JOBS", "MIB", "DOING"], rows)
    for paused in answer["paused_request_types"]:
        click.echo(_paused_line(paused))


def _no_option(ctx: click.Context, _: click.Parameter, word: str) -> str:
    if word.startswith("--"):
        raise click.NoSuchOption(word, ctx=ctx)
    return word


@click.command(
    # A number below zero is a word here, not an option.
    context_settings={"ignore_unknown_options": True},
    epilog=examples("pulpo-pool scale 12", "pulpo-pool scale +1", "pulpo-pool scale -1"),
)
@click.argument("workers", metavar="N|+N|-N", callback=_no_option)
@json_option
@pool_options
def scale(*, workers: str, as_json: bool, **flags: Any) -> None:
    """Change the number of workers; those that go finish their job first."""
    answer = ask(pool_address(flags), "scale", workers)
    _say(answer, f"the pool now wants {answer['workers']} workers", as_json=as_json)


@click.command(epilog=examples("pulpo-pool pause"))
@json_option
@pool_options
def pause(*, as_json: bool, **flags: Any) -> None:
    """Stop reserving jobs until `resume`; what is held is finished."""
    _simple("pause", flags, as_json=as_json)


@click.command(epilog=examples("pulpo-pool resume"))
@json_option
@pool_options
def resume(*, as_json: bool, **flags: Any) -> None:
    """Reserve jobs again."""
    _simple("resume", flags, as_json=as_json)


@click.command(epilog=examples("pulpo-pool quiet"))
@json_option
@pool_options
def quiet(*, as_json: bool, **flags: Any) -> None:
    """Reserve nothing more and stay: the first step of a planned stop. /readyz says 503."""
    _simple("quiet", flags, as_json=as_json)


@click.command(epilog=examples("pulpo-pool drain", "pulpo-pool drain --no-wait"))
@click.option("--wait/--no-wait", default=True, help="Return when the pool has ended.  [default]")
@json_option
@pool_options
def drain(*, wait: bool, as_json: bool, **flags: Any) -> None:
    """Finish what is held, then exit."""
    _end("drain", flags, wait=wait, as_json=as_json)


@click.command(epilog=examples("pulpo-pool stop"))
@click.option("--wait/--no-wait", default=True, help="Return when the pool has ended.  [default]")
@json_option
@pool_options
def stop(*, wait: bool, as_json: bool, **flags: Any) -> None:
    """Exit now: jobs get two seconds, the rest is cut off and handed back."""
    _end("stop", flags, wait=wait, as_json=as_json)


@click.command(epilog=examples("pulpo-pool recycle", "pulpo-pool recycle 3"))
@click.argument("slot", required=False, default="")
@json_option
@pool_options
def recycle(*, slot: str, as_json: bool, **flags: Any) -> None:
    """Replace the worker in SLOT, or all of them a quarter at a time, after their job."""
    answer = ask(pool_address(flags), "recycle", slot)
    slots = ", ".join(str(number) for number in answer["slots"])
    _say(answer, f"recycling the workers in slots {slots}", as_json=as_json)


@click.command(epilog=examples("pulpo-pool reload", "pulpo-pool reload --json"))
@json_option
@pool_options
def reload(*, as_json: bool, **flags: Any) -> int:
    """Run today's code and settings: a new generation beside the old, which goes on if that fails.

    Waits for the outcome, and exits with 3 if the app does not boot any more or a setting is
    wrong. Settings that cannot change while the pool runs are named.
    """
    settings = pool_address(flags)  # the pool itself says what is wrong with the others
    outcome = ask(settings, "reload")
    while outcome["phase"] not in ("done", "failed"):
        time.sleep(RELOAD_LOOK)
        outcome = ask(settings, "status")["master"]["reload"]
    if outcome["phase"] == "done":
        words = f"every worker runs generation {outcome['generation']}"
        if outcome["unchanged"]:
            words += "\nunchanged until the pool starts again: " + ", ".join(outcome["unchanged"])
        _say(outcome, words, as_json=as_json)
        return ExitCode.CLEAN
    if as_json:
        print_json(outcome)
    else:
        print_error(f"the reload failed, and the old generation goes on: {outcome['error']}")
    return ExitCode.APP_DOES_NOT_BOOT


def _simple(command: str, flags: Mapping[str, Any], *, as_json: bool) -> None:
    answer = ask(pool_address(flags), command)
    _say(answer, f"the pool is {answer['state']}", as_json=as_json)


def _end(command: str, flags: Mapping[str, Any], *, wait: bool, as_json: bool) -> None:
    settings = pool_address(flags)
    if wait:
        answer = ask_and_wait(settings, command)
        _say(answer | {"state": "stopped"}, "the pool has ended", as_json=as_json)
    else:
        _say(ask(settings, command), "the pool is draining", as_json=as_json)


def _say(answer: Mapping[str, Any], words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        click.echo(words)


def _worker_row(worker: Mapping[str, Any]) -> list[object]:
    doing = worker["request_type"] or ""
    if worker["job_id"]:
        doing += f" job {worker['job_id']}, {worker['job_seconds']:.1f} s"
    return [
        worker["slot"],
        worker["pid"] or "",
        worker["state"],
        f"{worker['jobs_done']:,}",
        _mib(worker["rss_bytes"]),
        doing,
    ]


def _service_row(service: Mapping[str, Any]) -> list[object]:
    pid = service["pid"] or ""
    return [service["role"], pid, service["state"], "", _mib(service["rss_bytes"]), ""]


def _paused_line(paused: Mapping[str, Any]) -> str:
    if paused["seconds_left"]:
        until = f"for {paused['seconds_left']:.0f} s more"
    elif paused["state"] == "probing":
        until = "until the job succeeds that is being tried"
    else:
        until = "until the next job of it succeeds"
    return f"{printable(paused['request_type'])} is paused {until}: {printable(paused['cause'])}"


def _mib(size: int | None) -> str:
    return f"{size / _MIB:.0f}" if size else ""
