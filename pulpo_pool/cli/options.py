"""What commands share: options made from the settings' record, states, examples."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import click

from pulpo_pool.cli.commands import COMMANDS
from pulpo_pool.codec import Codec
from pulpo_pool.errors import ConfigError
from pulpo_pool.queues.adapter import JobState
from pulpo_pool.settings import SETTING_FIELDS, load_address, load_settings, read_environment
from pulpo_pool.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from click.shell_completion import CompletionItem

    from pulpo_pool.queues.adapter import QueueAdapter
    from pulpo_pool.settings import Loaded, Settings
    from pulpo_pool.settings.fields import SettingField

Command = TypeVar("Command", bound="Callable[..., object]")
Flags: TypeAlias = "Mapping[str, Any]"  # options by setting; None or () for one not given

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def examples(*lines: str) -> str:
    """Return the end of a command's help: how it is called."""
    title = "Example" if len(lines) == 1 else "Examples"
    return "\b\n" + "\n".join([f"{title}:", *(f"  {line}" for line in lines)])


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Give a command the options of these settings, and --config for the file with the rest.

    They arrive under the settings' names, as text: settings.py reads and checks them all.
    """

    def decorate(command: Command) -> Command:
        command = click.option(
            "-c",
            "--config",
            metavar="FILE",
            shell_complete=_file,
            help="Read this file instead of pulpo-pool.toml: TOML, or pulpo-messaging's JSON.",
        )(command)
        for name in reversed(names):
            command = _option(SETTING_FIELDS[name])(command)
        return command

    return decorate


def queue_options(command: Command) -> Command:
    """Give a command what it needs to find the queue."""
    return setting_options("broker", "state_dir")(command)


def pool_options(command: Command) -> Command:
    """Give a command what it needs to find a running pool."""
    return setting_options("name", "state_dir")(command)


def run_options(command: Command) -> Command:
    """Give a command the app and every setting that fits on a command line."""
    spoken = [name for name in SETTING_FIELDS if name not in ("app", "handlers")]
    return app_argument(setting_options(*spoken)(command))


def app_argument(command: Command) -> Command:
    """Give a command the argument APP."""
    return click.argument("app", required=False, callback=_app, metavar="[APP]")(command)


def json_option(command: Command) -> Command:
    """Give a command --json, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def queue_filter(command: Command) -> Command:
    """Give a command -q as a filter, as the parameter `queue`: names, none for all."""
    return click.option(
        "-q",
        "--queue",
        multiple=True,
        metavar="NAME",
        shell_complete=complete_queues,
        help="Only this queue; repeatable.",
    )(command)


def loaded_settings(flags: Flags) -> Loaded:
    """Return the settings of this process, with these options over everything else.

    Raises ConfigError.
    """
    return load_settings(flags, directory=Path.cwd(), environ=read_environment())


def pool_address(flags: Flags) -> Settings:
    """Return as much of the settings as finds a running pool, whatever is wrong with the rest.

    Raises ConfigError.
    """
    return load_address(flags, directory=Path.cwd(), environ=read_environment())


@contextmanager
def opened_queue(flags: Flags) -> Iterator[QueueAdapter]:
    """Open the configured queue for people's work on it. Raises ConfigError, QueueUnavailable."""
    with opened(loaded_settings(flags).settings) as adapter:
        yield adapter


@contextmanager
def opened(settings: Settings) -> Iterator[QueueAdapter]:
    """Open the queue of these settings for people's work. Raises ConfigError, QueueUnavailable."""
    from pulpo_pool.queues.opening import check_url, open_queue

    if not check_url(settings.broker_url).shared:
        raise ConfigError(
            f"broker {settings.broker_url!r}: lives in one process, and would be gone with this "
            "command; name one that processes share, such as file:PATH"
        )
    with open_queue(
        settings.broker_url,
        queues=settings.queues,
        lease=settings.lease,
        codec=Codec(settings.serializer, settings.max_message_bytes),
        evidence_file=settings.evidence_file,
    ) as adapter:
        yield adapter


def state_option(*, required: bool) -> Callable[[Command], Command]:
    """Give a command --state, as a JobState or, where it is not required, None."""
    words = [state.value for state in JobState]

    def state(_: click.Context, __: click.Parameter, word: str | None) -> JobState | None:
        if word is None or word in words:
            return JobState(word) if word else None
        hint = did_you_mean(word, words)
        raise click.BadParameter(f"expected {', '.join(words)}, got {word!r}{hint}")

    text = f"{', '.join(words)}; without it all." if not required else f"{', '.join(words)}."
    return click.option(
        "--state",
        metavar="STATE",
        required=required,
        callback=state,
        shell_complete=lambda _ctx, _param, start: [w for w in words if w.startswith(start)],
        help=text,
    )


def complete_queues(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Return the queues that are known, for a shell's TAB."""
    from pulpo_pool.cli.completion import queues_known

    return queues_known(ctx, incomplete)


def _file(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _option(setting: SettingField) -> Callable[[Command], Command]:
    flag = setting.flag
    if setting.kind == "switch":
        return click.option(
            f"{flag}/--no-{setting.key}", setting.name, default=None, help=setting.description
        )

    def values(
        ctx: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        from pulpo_pool.cli.completion import values_of

        return values_of(setting, ctx, incomplete)

    names = [setting.short] if setting.short else []
    return click.option(
        *names,
        flag,
        setting.name,
        multiple=setting.kind == "names",
        metavar=setting.metavar,
        shell_complete=values,
        help=setting.description + _default_text(setting),
    )


def _default_text(setting: SettingField) -> str:
    default = ", ".join(setting.default) if setting.kind == "names" else setting.default
    if default is None or default == "":
        return ""
    return f" [default: {default:g}]" if isinstance(default, float) else f" [default: {default}]"


def _app(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    del param
    if value in COMMANDS:
        raise click.UsageError(
            f"{value!r} is a command, and a command comes first: pulpo-pool {value} ...", ctx
        )
    return value
