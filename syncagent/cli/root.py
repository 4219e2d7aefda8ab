"""The group of all commands, and what they share: options with variables, the agent."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from syncagent import __version__

Function = TypeVar("Function", bound=Callable[..., Any])

option = functools.partial(click.option, show_envvar=True)
"""`click.option` whose help names its variable."""

integration_option = option("--integration", metavar="NAME", help="Stored credentials to use.")
json_option = option("--json", is_flag=True, help="One JSON object per line.")

_NAMES = {"json": "as_json", "format": "pattern", "type": "kind", "option": "plain", "list": "again"}
"""Options whose name, which also makes their variable, would hide a module or a builtin in the function."""


def hush() -> None:
    """Whoever read our output has seen enough: drop the rest, also what Python flushes at exit."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Root(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        # Here and not in `run`: click itself would turn it into exit code 1.
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            hush()
            return 0


@click.group(
    cls=_Root, context_settings={"auto_envvar_prefix": "SYNCAGENT", "help_option_names": ["-h", "--help"]}
)
@option("--catalog", metavar="URL", help="Where the catalog is. Default: sqlite:///~/.syncagent/catalog.db")
@option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file. Default: ./syncagent.toml, if it is there.",
)
@option("-v", "--verbose", is_flag=True, help="Print every line, and a traceback with an error.")
@click.version_option(__version__, prog_name="syncagent")
@click.pass_context
def cli(context: click.Context, catalog: str | None, config: Path | None, verbose: bool) -> None:
    """Keep a dataset catalog equal to a bucket, without copying a byte.

    A TARGET is a URL (s3://, gs://, az://, file://), a folder (./photos), or a dataset's name.
    """
    context.obj = {"catalog": catalog, "config": config, "verbose": verbose}


def with_agent(function: Function) -> Function:
    """Give a command the agent, and close it at the end."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        context = click.get_current_context()
        from syncagent.agent import Agent
        from syncagent.config import load

        given = context.find_root().obj
        options = {_NAMES.get(name, name): value for name, value in options.items()}
        overrides = {"catalog": given["catalog"], "max_deletes": options.get("max_deletes")}
        settings = load(given["config"], **overrides)
        _log(settings.log_level)
        _warn_of_unknown_variables(context.find_root().command, set(type(settings).model_fields))
        with Agent(settings) as agent:
            code = function(agent, *arguments, **options)
        if code:
            context.exit(code)

    return wrapped  # type: ignore[return-value]  # click calls it without the agent


def _log(level: str) -> None:
    import logging

    logging.basicConfig(format="syncagent: %(levelname)s: %(message)s")
    logging.getLogger("syncagent").setLevel(level.upper())


def _warn_of_unknown_variables(root: click.Command, settings: set[str]) -> None:
    known = {
        "SYNCAGENT_HOME",
        "SYNCAGENT_PASSWORD",
        "SYNCAGENT_WEBHOOK_SECRET",
        *(f"SYNCAGENT_{name.upper()}" for name in settings),
    }
    given = {name for name, value in os.environ.items() if value and name.startswith("SYNCAGENT_")} - known
    given = {name for name in given if not name.startswith("SYNCAGENT_TEST_")}
    if not given:
        return
    known.update(_variables(root, "SYNCAGENT"))
    for name in sorted(given - known):
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        sys.stderr.write(f"syncagent: warning: {name} is no variable of syncagent{hint}\n")


def _variables(command: click.Command, prefix: str) -> Iterator[str]:
    yield from (f"{prefix}_{parameter.name}".upper() for parameter in command.params)
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _variables(child, f"{prefix}_{name}".upper().replace("-", "_"))


def verbose() -> bool:
    """Whether -v was given."""
    return bool(click.get_current_context().find_root().obj["verbose"])
