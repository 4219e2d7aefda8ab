"""ls, items, item, runs: looking at buckets and catalogs."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from syncagent.agent import Agent, is_location
from syncagent.catalog import Item
from syncagent.cli import output
from syncagent.cli.root import integration_option, json_option, option, verbose, with_agent
from syncagent.drivers import Bucket
from syncagent.errors import ConfigError
from syncagent.model import ObjectInfo, Scope

_FIELDS = ("key", "size", "modified", "etag", "version", "type", "class")


@click.command()
@click.argument("target")
@integration_option
@option(
    "--format",
    "pattern",
    metavar="TEXT",
    help="A line's text, with {key} {size} {modified} {etag} {version} {type} {class}.",
)
@option("--summary", is_flag=True, help="Only count objects and bytes.")
@json_option
@with_agent
def ls(
    agent: Agent, target: str, integration: str | None, pattern: str | None, summary: bool, as_json: bool
) -> None:
    """List the objects of a bucket (URL, folder) or the items of a dataset."""
    if not is_location(target) and any(d.name == target for d in agent.catalog.datasets()):
        pages = _item_pages(agent.catalog.items(agent.catalog.dataset(target).id))
    else:
        bucket = agent.bucket(agent.spec(target, integration))
        if verbose():
            output.note(describe_scope(bucket))
        pages = bucket.list()
    write, objects, size = sys.stdout.write, 0, 0
    render = _renderer(pattern, as_json=as_json)
    for page in pages:
        objects += len(page)
        if summary:
            size += sum([found[2] for found in page])
        else:
            write(render(page))
    if summary and as_json:
        output.emit_json({"objects": objects, "bytes": size})
    elif summary:
        write(f"{objects} objects, {size} bytes\n")


def describe_scope(bucket: Bucket) -> str:
    """Whether a path is a folder or a plain prefix, in words."""
    spec = bucket.spec
    if not spec.path:
        return f"{bucket.url}: the whole bucket"
    if spec.scope is Scope.FOLDER:
        return f"{bucket.url}: the folder {spec.path}/"
    return f"{bucket.url}: every key that starts with {spec.path!r}"


def _renderer(pattern: str | None, *, as_json: bool) -> Any:
    """A function from a page to its text. A page at a time: this runs for every object."""
    if as_json:
        return lambda page: "".join([json.dumps(_named(found), ensure_ascii=False) + "\n" for found in page])
    if pattern is not None:
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
        except ValueError as error:
            raise ConfigError(f"--format: {error}") from error
        if names - set(_FIELDS):
            raise ConfigError(
                f"--format: unknown field {sorted(names - set(_FIELDS))[0]!r}",
                hint=f"known are {', '.join(_FIELDS)}",
            )
        return lambda page: "".join([pattern.format(**_named(found, people=True)) + "\n" for found in page])
    return _columns


def _columns(page: list[ObjectInfo]) -> str:
    if "".join([found[0] for found in page]).isprintable():
        return "".join([f"{found[3]} {found[2]:>12} {found[0]}\n" for found in page])
    return "".join([f"{found[3]} {found[2]:>12} {output.printable(found[0])}\n" for found in page])


def _named(found: ObjectInfo, *, people: bool = False) -> dict[str, Any]:
    key = output.printable(found.key) if people else found.key
    values = (
        key,
        found.size,
        found.modified,
        found.etag,
        found.version,
        found.content_type,
        found.storage_class,
    )
    return dict(zip(_FIELDS, values, strict=True))


def _item_pages(items: Iterator[Item]) -> Iterator[list[ObjectInfo]]:
    for item in items:
        yield [
            ObjectInfo(
                item.key,
                "",
                item.size,
                item.modified,
                item.etag,
                item.version,
                item.content_id,
                item.mimetype,
                item.storage_class,
            )
        ]


@click.command()
@click.argument("dataset")
@option("--prefix", default="", help="Only keys that start with this.")
@option("--limit", type=click.IntRange(1), help="At most this many.")
@json_option
@with_agent
def items(agent: Agent, dataset: str, prefix: str, limit: int | None, as_json: bool) -> None:
    """List a dataset's items with their ids."""
    for item in agent.catalog.items(agent.catalog.dataset(dataset).id, prefix=prefix, limit=limit):
        if as_json:
            output.emit_json(item.to_json())
        else:
            mark = " (changed since annotated)" if item.changed_since_annotated else ""
            sys.stdout.write(
                f"{item.id} {item.size:>12} {item.mimetype} {output.printable(item.filename)}{mark}\n"
            )


@click.command()
@click.argument("dataset")
@click.argument("key")
@json_option
@with_agent
def item(agent: Agent, dataset: str, key: str, as_json: bool) -> None:
    """Show one item, also from the trash."""
    found = agent.catalog.item(agent.catalog.dataset(dataset).id, key)
    if as_json:
        output.emit_json(found.to_json())
        return
    for name, value in asdict(found).items():
        if value not in (None, {}):
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            sys.stdout.write(f"{name:24} {output.printable(text)}\n")


@click.command()
@click.argument("dataset", required=False)
@option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many, newest first."
)
@json_option
@with_agent
def runs(agent: Agent, dataset: str | None, limit: int, as_json: bool) -> None:
    """Show past and present sweeps, with what they found and what they cost."""
    number = agent.catalog.dataset(dataset).id if dataset else None
    found = agent.catalog.runs(number, limit=limit)
    if as_json:
        for run in found:
            output.emit_json(asdict(run))
        return
    rows = [
        (
            run.number, run.dataset, run.state, run.started_at, f"{run.report.seconds:.1f}", run.report.listed, run.report.added,
            run.report.changed, run.report.moved, run.report.removed, run.report.failed, sum(run.report.requests.values()),
            "-" if run.report.cost is None else f"{run.report.cost:.6f}", output.printable(run.error or ""),
        )
        for run in found
    ]  # fmt: skip
    header = (
        "run",
        "dataset",
        "state",
        "started",
        "seconds",
        "listed",
        "+",
        "*",
        ">",
        "-",
        "!",
        "requests",
        "US$",
        "error",
    )
    output.table(rows, header)


COMMANDS = (ls, items, item, runs)
