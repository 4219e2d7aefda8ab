"""quarantine, trash, catalog: what needs a look now and then."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from syncagent.cli import output
from syncagent.cli.root import json_option, option, with_agent
from syncagent.errors import EXIT_DIFFERS, SyncAgentError
from syncagent.model import Action, Outcome

if TYPE_CHECKING:
    from syncagent.agent import Agent


@click.group()
def quarantine() -> None:
    """Keys that could not be settled, with the reason."""


@quarantine.command("ls")
@click.argument("dataset", required=False)
@json_option
@with_agent
def quarantine_ls(agent: Agent, dataset: str | None, as_json: bool) -> None:
    """List them."""
    found = agent.catalog.quarantined(agent.catalog.dataset(dataset).id if dataset else None)
    if as_json:
        for one in found:
            output.emit_json(asdict(one))
    else:
        rows = [
            (q.dataset, output.printable(q.key), q.attempts, q.last_at, output.printable(q.reason))
            for q in found
        ]
        output.table(rows, ("dataset", "key", "attempts", "last", "reason"))


@quarantine.command("replay")
@click.argument("dataset")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@with_agent
def quarantine_replay(agent: Agent, dataset: str, keys: tuple[str, ...]) -> int:
    """Settle them again; those that work leave the quarantine."""
    found = agent.catalog.dataset(dataset)
    wanted = keys or tuple(one.key for one in agent.catalog.quarantined(found.id))
    reconciler, lines, failed = agent.reconciler(found), output.Lines(as_json=False, limit=None), 0
    for key in wanted:
        try:
            lines(reconciler.settle(key))
            agent.catalog.release(found.id, [key])
        except SyncAgentError as error:
            agent.catalog.quarantine(found.id, key, error)
            lines(Outcome(key, Action.FAILED, error=str(error)))
            failed += 1
    sys.stdout.write(f"{len(wanted) - failed} settled, {failed} failed\n")
    return EXIT_DIFFERS if failed else 0


@quarantine.command("drop")
@click.argument("dataset")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@with_agent
def quarantine_drop(agent: Agent, dataset: str, keys: tuple[str, ...]) -> None:
    """Forget them; the next sweep looks again."""
    count = agent.catalog.release(agent.catalog.dataset(dataset).id, list(keys) or None)
    sys.stdout.write(f"{count} dropped\n")


@click.group()
def trash() -> None:
    """Items whose object is gone, with their annotations and metadata."""


@trash.command("ls")
@click.argument("dataset")
@json_option
@with_agent
def trash_ls(agent: Agent, dataset: str, as_json: bool) -> None:
    """List them."""
    for item in agent.catalog.items(agent.catalog.dataset(dataset).id, trashed=True):
        if as_json:
            output.emit_json({**item.to_json(), "removedAt": item.removed_at})
        else:
            labels = f", {item.annotations} annotations" if item.annotations else ""
            sys.stdout.write(f"{item.removed_at} {output.printable(item.key)} ({item.size} bytes{labels})\n")


@trash.command("restore")
@click.argument("dataset")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@with_agent
def trash_restore(agent: Agent, dataset: str, keys: tuple[str, ...]) -> int:
    """Bring items back whose objects are there again. The bucket is the truth: without an object there is no item."""
    found = agent.catalog.dataset(dataset)
    reconciler, lacking = agent.reconciler(found), 0
    for key in keys:
        agent.catalog.item(found.id, key)
        reconciler.settle(key)
        agent.catalog.restore(found.id, key)
        if agent.catalog.item(found.id, key).removed_at is None:
            sys.stdout.write(f"+ {output.printable(key)}\n")
        else:
            lacking += 1
            output.note(f"{output.printable(key)}: its object is not in the bucket; put it back first")
    return EXIT_DIFFERS if lacking else 0


@trash.command("empty")
@click.argument("dataset")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@option("--yes", is_flag=True, help="Do not ask.")
@with_agent
def trash_empty(agent: Agent, dataset: str, keys: tuple[str, ...], yes: bool) -> None:
    """Forget items in the trash for good, with their annotations."""
    found = agent.catalog.dataset(dataset)
    if not yes:
        click.confirm(f"Forget {len(keys) or 'all'} items of the trash for good?", abort=True, err=True)
    sys.stdout.write(f"{agent.catalog.empty_trash(found.id, list(keys) or None)} forgotten\n")


@click.group()
def catalog() -> None:
    """The catalog itself."""


@catalog.command("migrate")
@with_agent
def catalog_migrate(agent: Agent) -> None:
    """Bring the schema up to date. Every other command does so as well."""
    sys.stdout.write(f"schema {agent.catalog.stats()['schema']}\n")


@catalog.command("vacuum")
@with_agent
def catalog_vacuum(agent: Agent) -> None:
    """Expire items, forget trash and tombstones past their time, and give the space back to the disk."""
    settings = agent.settings
    done = agent.catalog.vacuum(trash_days=settings.trash_days, tombstone_days=settings.tombstone_days)
    sys.stdout.write(
        f"{done['expired']} items expired, {done['trash']} trashed items and {done['tombstones']} tombstones forgotten,"
        f" {done['files']} files and {done['bytes']} bytes freed\n"
    )


@catalog.command("stats")
@json_option
@with_agent
def catalog_stats(agent: Agent, as_json: bool) -> None:
    """Show sizes and counts."""
    stats = agent.catalog.stats()
    if as_json:
        output.emit_json(stats)
    else:
        output.table(stats.items(), ("what", "value"))


COMMANDS = (quarantine, trash, catalog)
