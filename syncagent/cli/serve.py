"""serve: the platform's API over the catalog. users: who may use it."""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import sys
from typing import TYPE_CHECKING

import click

from syncagent.cli import output
from syncagent.cli.root import json_option, option, with_agent
from syncagent.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    import uvicorn

    from syncagent.agent import Agent
    from syncagent.catalog.sql.accounts import Accounts

_STOP_SECONDS = 20.0


@click.command()
@option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free one.")
@with_agent
def serve(agent: Agent, host: str, port: int) -> None:
    """Serve the platform's API, so that its client dtlpy works against this catalog.

    The first start makes an administrator: SYNCAGENT_ADMIN_EMAIL with SYNCAGENT_ADMIN_PASSWORD, or one with a
    password that is printed once. Other addresses than this machine's own need SYNCAGENT_SERVER_SECRET.
    """
    secret = agent.settings.server_secret.get_secret_value() if agent.settings.server_secret else None
    if secret is not None and len(secret) < 32:
        raise ConfigError("SYNCAGENT_SERVER_SECRET is too short", hint="give at least 32 characters")
    if not _loopback(host) and secret is None:
        raise ConfigError(
            f"{host} can be reached from other machines, and no SYNCAGENT_SERVER_SECRET is set",
            hint="set it to 32 random characters or more, or listen on 127.0.0.1",
        )
    try:
        import uvicorn

        from syncagent.handlers.outbox import Teller
        from syncagent.server.app import create_app
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"the server needs the package {missing.name}", hint="pip install 'syncagent[server]'"
        ) from missing
    _first_administrator(agent)
    app = create_app(agent, secret=secret)
    config = uvicorn.Config(
        app, host, port, log_level=agent.settings.log_level, access_log=False, server_header=False
    )
    server = uvicorn.Server(config)
    # uvicorn stops gracefully, then raises the signal again: by then there is nothing left to do.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with listening(config) as opened:
        address, bound = opened.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        output.note(f"serving on http://{shown}:{bound} (API under /api/v1, stop with Ctrl-C)")
        webhooks = agent.webhooks()
        teller = Teller(webhooks) if webhooks else None
        if teller:
            teller.start()
        server.run(sockets=[opened])
        if teller:
            teller.stop(_STOP_SECONDS)


def listening(config: uvicorn.Config) -> socket.socket:
    """The socket. It listens already, so that who reads the address can connect.

    Known to be TCP's: asyncio then sends small answers at once, which else wait 40 ms.
    """
    bound = config.bind_socket()
    opened = socket.socket(bound.family, bound.type, socket.IPPROTO_TCP, fileno=bound.detach())
    opened.listen(config.backlog)
    return opened


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _first_administrator(agent: Agent) -> None:
    accounts = _accounts(agent)
    if accounts.all():
        return
    email = agent.settings.admin_email or "admin@localhost"
    given = agent.settings.admin_password
    password = given.get_secret_value() if given else secrets.token_urlsafe(12)
    accounts.add(email, _hash(password), admin=True)
    if given is None:
        output.note(f"made the administrator {email} with the password {password}")
        output.note("it is not shown again; 'syncagent users passwd' changes it")


def _accounts(agent: Agent) -> Accounts:
    from syncagent.catalog.sql.accounts import Accounts
    from syncagent.catalog.sql.catalog import SqlCatalog

    if not isinstance(agent.catalog, SqlCatalog):
        raise ConfigError(
            "only an embedded catalog has users", hint="set SYNCAGENT_CATALOG to a file or to postgresql://…"
        )
    return Accounts(agent.catalog)


def _hash(password: str) -> str:
    from argon2 import PasswordHasher

    if len(password) < 8:
        raise InvalidInput("a password needs at least 8 characters")
    return PasswordHasher().hash(password)


def _password() -> str:
    """From SYNCAGENT_PASSWORD, a prompt, or the first line of stdin; never from an option."""
    if given := os.environ.get("SYNCAGENT_PASSWORD"):
        return given
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\n")


@click.group()
def users() -> None:
    """Who may use the server."""


@users.command("add")
@click.argument("email")
@option("--admin", is_flag=True, help="Owns every project, and manages credentials.")
@option("--bot", is_flag=True, help="A program, not a person.")
@with_agent
def users_add(agent: Agent, email: str, admin: bool, bot: bool) -> None:
    """Add somebody. The password comes from a prompt, from stdin or from SYNCAGENT_PASSWORD."""
    made = _accounts(agent).add(email, _hash(_password()), admin=admin, bot=bot)
    sys.stdout.write(f"+ {made.email}\n")


@users.command("ls")
@json_option
@with_agent
def users_ls(agent: Agent, as_json: bool) -> None:
    """List everybody."""
    found = _accounts(agent).all()
    if as_json:
        for one in found:
            output.emit_json({"id": one.id, "email": one.email, "admin": one.admin, "bot": one.bot})
    else:
        rows = [(one.email, "admin" if one.admin else "", "bot" if one.bot else "") for one in found]
        output.table(rows, ("email", "admin", "bot"))


@users.command("rm")
@click.argument("email")
@with_agent
def users_rm(agent: Agent, email: str) -> None:
    """Remove somebody. What they made stays."""
    _accounts(agent).remove(email)
    sys.stdout.write(f"- {email}\n")


@users.command("passwd")
@click.argument("email")
@with_agent
def users_passwd(agent: Agent, email: str) -> None:
    """Change a password. Whoever is signed in with the old one must sign in again."""
    accounts = _accounts(agent)
    accounts.get(email)
    accounts.change_password(email, _hash(_password()))
    sys.stdout.write(f"* {email}\n")


COMMANDS = (serve, users)
