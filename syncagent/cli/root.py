"""The group of all commands, and what they share: options with variables, the agent."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from syncagent import __version__
from syncagent.agent import Agent
from syncagent.config import load

Function = TypeVar("Function", bound=Callable[..., Any])

option = functools.partial(click.option, show_envvar=True)
"""`click.option` whose help names its variable."""

integration_option = option("--integration", metavar="NAME", help="Stored credentials to use.")
json_option = option("--json", "as_json", is_flag=True, help="One JSON object per line.")


@click.group(context_settings={"auto_envvar_prefix": "SYNCAGENT", "help_option_names": ["-h", "--help"]})
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
        given = context.find_root().obj
        overrides = {"catalog": given["catalog"], "max_deletes": options.get("max_deletes")}
        with Agent(load(given["config"], **overrides)) as agent:
            code = function(agent, *arguments, **options)
        if code:
            context.exit(code)

    return wrapped  # type: ignore[return-value]  # click calls it without the agent


def verbose() -> bool:
    """Whether -v was given."""
    return bool(click.get_current_context().find_root().obj["verbose"])
