"""datasets, drivers, integrations: the records behind a sync."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncagent.cli import output
from syncagent.cli.root import integration_option, json_option, option, with_agent
from syncagent.drivers import describe, parse_url
from syncagent.errors import ConfigError
from syncagent.model import Integration

if TYPE_CHECKING:
    from syncagent.agent import Agent

_TYPES = {
    "s3": {"key", "secret", "token"},
    "aws-sts": {"key", "secret", "roleArns", "externalId"},
    "gcs": {"content"},
    "azureblob": {"clientId", "tenantId", "secret", "key", "accountKey", "sas", "connectionString"},
}
_NOT_SECRET = {"clientId", "tenantId", "roleArns", "externalId"}


@click.group()
def datasets() -> None:
    """Named sets of items, each mirrored from one driver."""


@datasets.command("ls")
@json_option
@with_agent
def datasets_ls(agent: Agent, as_json: bool) -> None:
    """List datasets with their sources and how many items they have."""
    found = [(d.name, agent.catalog.count(d.id), describe(d.driver), d.id) for d in agent.catalog.datasets()]
    if as_json:
        for name, items, source, number in found:
            output.emit_json({"name": name, "items": items, "source": source, "id": number})
    else:
        output.table(found, ("dataset", "items", "source", "id"))


@datasets.command("create")
@click.argument("name")
@option("--driver", required=True, metavar="NAME", help="A stored driver.")
@with_agent
def datasets_create(agent: Agent, name: str, driver: str) -> None:
    """Make an empty dataset over a stored driver."""
    sys.stdout.write(f"{agent.catalog.create_dataset(name, driver).id}\n")


@datasets.command("show")
@click.argument("name")
@with_agent
def datasets_show(agent: Agent, name: str) -> None:
    """Show one dataset."""
    found = agent.catalog.dataset(name)
    output.emit_json(
        {
            "name": found.name,
            "id": found.id,
            "source": describe(found.driver),
            "driver": found.driver.name,
            "items": agent.catalog.count(found.id),
            "createdAt": found.created_at,
        }
    )


@datasets.command("rm")
@click.argument("name")
@option("--yes", is_flag=True, help="Do not ask.")
@with_agent
def datasets_rm(agent: Agent, name: str, yes: bool) -> None:
    """Forget a dataset with its items, annotations and runs. The bucket is not touched."""
    found = agent.catalog.dataset(name)
    if not yes:
        click.confirm(
            f"Forget {agent.catalog.count(found.id)} items and their annotations?", abort=True, err=True
        )
    agent.catalog.remove_dataset(found.name)


@click.group()
def drivers() -> None:
    """Buckets with a path, opened with an integration."""


@drivers.command("ls")
@json_option
@with_agent
def drivers_ls(agent: Agent, as_json: bool) -> None:
    """List drivers."""
    found = agent.catalog.drivers()
    if as_json:
        for d in found:
            output.emit_json(
                {
                    "name": d.name,
                    "id": d.id,
                    "type": d.type,
                    "source": describe(d),
                    "integration": d.integration,
                }
            )
    else:
        output.table(
            [(d.name, d.type, describe(d), d.integration or "-") for d in found],
            ("driver", "type", "source", "integration"),
        )


@drivers.command("create")
@click.argument("name")
@click.argument("url")
@integration_option
@with_agent
def drivers_create(agent: Agent, name: str, url: str, integration: str | None) -> None:
    """Store a driver under a name."""
    sys.stdout.write(
        f"{agent.catalog.create_driver(replace(parse_url(url), name=name, integration=integration)).id}\n"
    )


@drivers.command("show")
@click.argument("name")
@with_agent
def drivers_show(agent: Agent, name: str) -> None:
    """Show one driver."""
    d = agent.catalog.driver(name)
    output.emit_json(
        {
            "name": d.name, "id": d.id, "type": d.type, "integration": d.integration, "bucket": d.bucket, "path": d.path,
            "scope": d.scope.value, "region": d.region, "endpoint": d.endpoint, "storageClass": d.storage_class,
            "allowExternalDelete": d.allow_external_delete, "options": dict(d.options),
        }
    )  # fmt: skip


@drivers.command("rm")
@click.argument("name")
@with_agent
def drivers_rm(agent: Agent, name: str) -> None:
    """Forget a driver that no dataset uses."""
    agent.catalog.remove_driver(name)


@click.group()
def integrations() -> None:
    """Credentials, sealed in the catalog."""


@integrations.command("ls")
@json_option
@with_agent
def integrations_ls(agent: Agent, as_json: bool) -> None:
    """List integrations, without their secrets."""
    found = agent.catalog.integrations()
    if as_json:
        for one in found:
            output.emit_json({"name": one.name, "type": one.type, "id": one.id})
    else:
        output.table([(one.name, one.type, one.id) for one in found], ("integration", "type", "id"))


@integrations.command("create")
@click.argument("name")
@option("--type", required=True, type=click.Choice(sorted(_TYPES)), help="What the credentials open.")
@option(
    "--option-env",
    multiple=True,
    metavar="OPTION=VARIABLE",
    help="Take an option from an environment variable.",
)
@option("--option-file", multiple=True, metavar="OPTION=FILE", help="Take an option from a file.")
@option(
    "--option",
    multiple=True,
    metavar="OPTION=VALUE",
    help="An option that is no secret, such as clientId.",
)
@with_agent
def integrations_create(
    agent: Agent,
    name: str,
    kind: str,
    option_env: tuple[str, ...],
    option_file: tuple[str, ...],
    plain: tuple[str, ...],
) -> None:
    """Store credentials. A secret comes from a variable or a file, never from the command line."""
    options: dict[str, str] = {}
    for given, read in ((option_env, _from_env), (option_file, _from_file), (plain, _from_word)):
        for pair in given:
            wanted, mark, source = pair.partition("=")
            if not mark:  # whatever it is, it may be a secret
                raise ConfigError("an integration's option has no value", hint="write it as OPTION=…")
            if wanted not in _TYPES[kind]:
                raise ConfigError(
                    f"{wanted!r} is no option of a {kind} integration",
                    hint=f"known are {', '.join(sorted(_TYPES[kind]))}",
                )
            options[wanted] = read(wanted, source)
    if not options:
        raise ConfigError("an integration needs options", hint="give --option-env or --option-file")
    sys.stdout.write(f"{agent.catalog.create_integration(Integration(name, kind, options)).id}\n")


# Neither message repeats what was given: the secret itself may stand there by mistake.
def _from_env(name: str, variable: str) -> str:
    if not os.environ.get(variable):
        raise ConfigError(f"--option-env {name}: there is no such variable, or it is empty", resource=name)
    return os.environ[variable]


def _from_file(name: str, file: str) -> str:
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--option-file {name}: that file cannot be read", resource=name) from error
    if not text:
        raise ConfigError(f"--option-file {name}: that file is empty", resource=name)
    return text


def _from_word(name: str, value: str) -> str:
    if name not in _NOT_SECRET:
        raise ConfigError(f"{name!r} is a secret", hint="give it by --option-env or --option-file")
    return value


@integrations.command("show")
@click.argument("name")
@with_agent
def integrations_show(agent: Agent, name: str) -> None:
    """Show one integration: which options it has, and the values of those that are no secrets."""
    found = agent.catalog.integration(name)
    options = {key: value if key in _NOT_SECRET else "***" for key, value in found.options.items()}
    output.emit_json({"name": found.name, "id": found.id, "type": found.type, "options": options})


@integrations.command("rm")
@click.argument("name")
@with_agent
def integrations_rm(agent: Agent, name: str) -> None:
    """Forget credentials that no driver uses."""
    agent.catalog.remove_integration(name)


COMMANDS = (datasets, drivers, integrations)
