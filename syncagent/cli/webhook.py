"""webhook: whom to tell of new and changed items."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from syncagent.cli import output
from syncagent.cli.root import json_option, option, with_agent
from syncagent.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.catalog.sql.webhooks import Webhooks


@click.group()
def webhook() -> None:
    """Tell a URL of items that were created, updated, removed, moved or restored."""


@webhook.command("set")
@click.argument("dataset")
@click.argument("url")
@option("--allow-private", is_flag=True, help="Also an address of a private network, and http://.")
@with_agent
def webhook_set(agent: Agent, dataset: str, url: str, allow_private: bool) -> None:
    """Tell URL of the items of DATASET from now on.

    What is told is signed with a secret, which is made and printed once; or give your own in SYNCAGENT_WEBHOOK_SECRET, or a
    reference to one, such as aws-secret://name.
    """
    from syncagent.drivers.secrets import is_reference
    from syncagent.handlers.outbox import key_of, new_secret

    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise InvalidInput("the webhook's URL is no http or https address without credentials")
    if parts.scheme == "http" and not allow_private:
        raise InvalidInput(
            f"{parts.hostname} would be told in the clear", hint="write https://, or give --allow-private"
        )
    given = os.environ.get("SYNCAGENT_WEBHOOK_SECRET")
    secret = given or new_secret()
    if not is_reference(secret):
        key_of(secret)
    _webhooks(agent).put(agent.catalog.dataset(dataset).name, url, secret, private=allow_private)
    if not given:
        output.note("the secret, which is not shown again:")
        sys.stdout.write(f"{secret}\n")


@webhook.command("ls")
@json_option
@with_agent
def webhook_ls(agent: Agent, as_json: bool) -> None:
    """List them, and how much each is still to be told."""
    found = _webhooks(agent).all()
    if as_json:
        for one in found:
            output.emit_json({name: value for name, value in asdict(one).items() if name != "sealed"})
    else:
        rows = [(one.dataset, one.url, one.waiting, one.dropped, one.error or "ok") for one in found]
        output.table(rows, ("dataset", "url", "waiting", "given up", "last"))


@webhook.command("rm")
@click.argument("dataset")
@with_agent
def webhook_rm(agent: Agent, dataset: str) -> None:
    """Tell nobody any more, also not what waits."""
    _webhooks(agent).remove(dataset)


@webhook.command("test")
@click.argument("dataset")
@with_agent
def webhook_test(agent: Agent, dataset: str) -> None:
    """Tell it a made-up event, of type io.syncagent.test."""
    import time

    import httpx

    from syncagent.drivers.secrets import read_secret
    from syncagent.handlers.outbox import event_of, post

    hook = _webhooks(agent).get(agent.catalog.dataset(dataset).name)
    from syncagent.catalog.sql.webhooks import Telling

    telling = Telling(
        0, agent.catalog.dataset(dataset).id, None, "0" * 24, "test", "test.jpg", None, int(time.time())
    )
    with httpx.Client(follow_redirects=False, trust_env=False) as client:
        secret = read_secret(_webhooks(agent).secret(hook))
        post(client, hook, secret, {**event_of(telling, hook.dataset), "type": "io.syncagent.test"})
    sys.stdout.write("it was heard\n")


def _webhooks(agent: Agent) -> Webhooks:
    found = agent.webhooks()
    if found is None:
        raise Unsupported(
            "the webhooks of this catalog are its server's own", hint="run the command where the server runs"
        )
    return found


COMMANDS = (webhook,)
