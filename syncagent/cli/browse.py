"""ls, items, item, runs: looking at buckets and catalogs."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from syncagent.cli import output
from syncagent.cli.query import note_slash
from syncagent.cli.root import integration_option, json_option, option, verbose, with_agent
from syncagent.errors import ConfigError, NotFound
from syncagent.model import ObjectInfo, Scope
from syncagent.pages import ObjectPage, keys_of

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.catalog import Item
    from syncagent.drivers import Bucket

_FIELDS = {"key": 0, "size": 2, "modified": 3, "etag": 4, "version": 5, "type": 7, "class": 8}
"""What each is called here, and where it stands in an `ObjectInfo`."""
_PAGE = 1000


@click.command()
@click.argument("target")
@integration_option
@option(
    "--format",
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
    from syncagent.agent import is_location

    if not is_location(target) and any(d.name == target for d in agent.catalog.datasets()):
        pages: Iterator[Sequence[ObjectInfo]] = _item_pages(
            agent.catalog.items(agent.catalog.dataset(target).id)
        )
    else:
        bucket = agent.bucket(agent.spec(target, integration))
        if verbose():
            output.note(describe_scope(bucket))
            output.note(describe_listing(bucket, agent.settings.listers))
        pages = bucket.list()
    write, objects, size = sys.stdout.write, 0, 0
    render = _renderer(pattern, as_json=as_json)
    for page in pages:
        objects += len(page)
        if summary:
            size += sum(ObjectPage.of(page).column(_FIELDS["size"]))
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


def describe_listing(bucket: Bucket, listers: int) -> str:
    """By how many workers a sweep lists a bucket, and why not by more."""
    if listers > 1 and bucket.parallel:
        return f"{bucket.url}: swept by {listers} workers, each with a range of the keys"
    reason = bucket.sequential or "SYNCAGENT_LISTERS is 1"
    return f"{bucket.url}: swept by one worker: {reason}"


def _renderer(pattern: str | None, *, as_json: bool) -> Any:
    """A function from a page to its text. A page at a time: this runs for every object."""
    if as_json:
        return lambda page: "".join([output.encode(_named(found)) + "\n" for found in page])
    return _columns if pattern is None else _formatted(pattern)


def _formatted(pattern: str) -> Any:
    """Like `_renderer`, for a pattern: its names become places in the tuple, so that no dictionary is made."""
    places, used = "", set()
    try:
        for text, name, spec, conversion in string.Formatter().parse(pattern):
            places += text.replace("{", "{{").replace("}", "}}")
            if name is None:
                continue
            if name not in _FIELDS:
                raise ConfigError(
                    f"--format: unknown field {name!r}", resource=name, hint=f"known are {', '.join(_FIELDS)}"
                )
            used.add(_FIELDS[name])
            mark = f"!{conversion}" if conversion else ""
            places += f"{{{_FIELDS[name]}{mark}{':' if spec else ''}{spec}}}"
        line = (places + "\n").format
        line(*ObjectInfo("", "", 0, "", "", "", "", "", ""))
    except (ValueError, TypeError, LookupError) as error:
        raise ConfigError(f"--format: {error}", hint="write it as in '{size:>12} {key}'") from error

    def render(page: Sequence[ObjectInfo]) -> str:
        # What a store does not tell is shown as "-", and a key for people.
        if any(found[place] is None for place in used for found in page):
            page = [ObjectInfo._make(["-" if value is None else value for value in found]) for found in page]
        if not "".join(keys_of(page)).isprintable():
            page = [found._replace(key=output.printable(found.key)) for found in page]
        return "".join([line(*found) for found in page])

    return render


def _columns(page: Sequence[ObjectInfo]) -> str:
    columns = ObjectPage.of(page)
    keys, sizes, times = map(columns.column, (_FIELDS["key"], _FIELDS["size"], _FIELDS["modified"]))
    if not "".join(keys).isprintable():
        keys = list(map(output.printable, keys))
    return "".join([f"{at} {size:>12} {key}\n" for key, size, at in zip(keys, sizes, times, strict=True)])


def _named(found: ObjectInfo) -> dict[str, Any]:
    return {name: found[place] for name, place in _FIELDS.items()}


def _item_pages(items: Iterator[Item]) -> Iterator[list[ObjectInfo]]:
    while page := [
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
        for item in islice(items, _PAGE)
    ]:
        yield page


@click.command()
@click.argument("dataset")
@option("--prefix", default="", help="Only keys that start with this.")
@option("--limit", type=click.IntRange(1), help="At most this many.")
@json_option
@with_agent
def items(agent: Agent, dataset: str, prefix: str, limit: int | None, as_json: bool) -> None:
    """List a dataset's items with their ids."""
    note_slash(prefix)
    for item in agent.catalog.items(agent.catalog.dataset(dataset).id, prefix=prefix, limit=limit):
        if as_json:
            output.emit_json(item.to_json())
        else:
            mark = " (changed since annotated)" if item.changed_since_annotated else ""
            sys.stdout.write(
                f"{item.id} {item.size:>12} {item.mimetype} {output.printable(item.key)}{mark}\n"
            )


@click.command()
@click.argument("dataset")
@click.argument("key")
@json_option
@with_agent
def item(agent: Agent, dataset: str, key: str, as_json: bool) -> None:
    """Show one item, also from the trash."""
    number = agent.catalog.dataset(dataset).id
    try:
        found = agent.catalog.item(number, key)
    except NotFound:
        if not key.startswith("/"):
            raise
        found = agent.catalog.item(number, key[1:])  # as the platform writes it
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
