"""upload, metadata, probe: bytes and facts in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncagent.cli import output
from syncagent.cli.query import query_of, query_options
from syncagent.cli.root import integration_option, json_option, option, verbose, with_agent
from syncagent.errors import EXIT_DIFFERS, InvalidInput, NotFound

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.catalog import Dataset
    from syncagent.catalog.labels import Change
    from syncagent.ingest.follow import Followed

Json = dict[str, Any]
_BATCH = 500


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.argument("dataset")
@option("--to", "remote_path", default="/", show_default=True, help="Folder in the dataset.")
@option("--name", "remote_name", help="Another name there, of a single file.")
@option("--types", metavar="LIST", help="Of folders only files with these extensions: .jpg,.png")
@option("--overwrite", is_flag=True, help="Also where an item is there already.")
@option(
    "--annotations", "annotation_path", type=click.Path(path_type=Path),
    help="Folder (or file) with the platform's annotation files, named a.json or a.jpg.json.",
)  # fmt: skip
@option(
    "--metadata", metavar="JSON", help="metadata.user of every item, or 'from-json': of its annotation file."
)
@option("--description", help="Of every item.")
@option(
    "--manifest", type=click.Path(path_type=Path),
    help="CSV, JSONL or Parquet with local_path, remote_path, remote_name, item_metadata …",
)  # fmt: skip
@option("--link", "links", multiple=True, metavar="URL", help="Keep an address as a link.")
@option("--max-bytes", type=click.IntRange(1), default=1 << 30, show_default=True, help="Of an address.")
@option("--allow-private", is_flag=True, help="Also from addresses of private networks.")
@option(
    "--error-log", type=click.Path(path_type=Path), help="Write a JSON line about each failure to this file."
)
@integration_option
@option("--quiet", is_flag=True, help="Only the summary.")
@json_option
@with_agent
def upload(
    agent: Agent,
    paths: tuple[str, ...],
    dataset: str,
    remote_path: str,
    remote_name: str | None,
    types: str | None,
    overwrite: bool,
    annotation_path: Path | None,
    metadata: str | None,
    description: str | None,
    manifest: Path | None,
    links: tuple[str, ...],
    max_bytes: int,
    allow_private: bool,
    error_log: Path | None,
    integration: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Upload files, folders and addresses into a dataset's bucket, and make their items.

    A PATH ending in /* is a folder without its own name. Run again after an interruption, it goes on.
    """
    from syncagent.ingest import gather
    from syncagent.ingest.gather import Link, Options

    if not (paths or manifest or links):
        raise InvalidInput(
            f"there is nothing to upload: {dataset!r} is taken as the dataset",
            resource=dataset,
            hint="name files or folders before it, or --manifest or --link",
        )
    options = Options(
        remote_path=remote_path, remote_name=remote_name, file_types=types.split(",") if types else (),
        annotations=annotation_path, metadata=_metadata(metadata), description=description, max_bytes=max_bytes,
        allow_private=allow_private,
    )  # fmt: skip
    found = agent.resolve(dataset, integration=integration, create=True)
    uploads = chain(
        *(gather.gather(path, options) for path in paths),
        *(gather.gather(Link(link), options) for link in links),
        gather.manifest(manifest, options) if manifest else (),
    )
    lines = output.Lines(as_json=as_json, limit=None if as_json or verbose() else output.LINES)
    with output.Counter(quiet=quiet) as progress:
        report = agent.uploader(found, overwrite=overwrite).run(
            uploads,
            on_outcome=None if quiet else lines,
            on_progress=lambda told: progress(
                f"{told.added + told.changed:,} uploaded, {told.same:,} there already, {told.failed:,} failed, "
                f"{told.bytes / 1e6:,.1f} MB"
            ),
        )
    if not (report.added or report.changed or report.same or report.failed):
        output.note("no file was found to upload" + (f" that ends in {types}" if types else ""))
    if error_log is not None:
        failures = [
            json.dumps({"key": key, "error": error}, ensure_ascii=False) for key, error in report.errors
        ]
        error_log.write_text("".join(f"{line}\n" for line in failures), encoding="utf-8")
    if quiet:
        for key, error in report.errors[: output.LINES]:
            output.note(f"! {output.printable(key)}: {error}")
    counts = {
        name: getattr(report, name) for name in ("added", "changed", "same", "failed", "bytes", "annotations")
    }
    if as_json:
        output.emit_json({"report": counts})
    else:
        sys.stdout.write(
            f"{report.added} added, {report.changed} changed, {report.same} there already, {report.failed} failed;"
            f" {report.bytes} bytes, {report.annotations} annotations\n"
        )
    return EXIT_DIFFERS if report.failed else 0


def _metadata(given: str | None) -> Any:
    if given is None or given == "from-json":
        return given or {}
    return _object(given, "--metadata")


def _object(given: str, what: str) -> Json:
    try:
        told = json.loads(given)
    except ValueError as error:
        raise InvalidInput(f"{what} is no JSON: {error}", resource=what) from None
    if not isinstance(told, dict):
        raise InvalidInput(f"{what} must be a JSON object", resource=what)
    return told


# -- metadata ------------------------------------------------------------------------------------


@click.command()
@click.argument("dataset")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@option(
    "--set",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="NAME may have levels: a.b=1. VALUE is JSON, or a text.",
)
@option("--unset", multiple=True, metavar="NAME", help="Remove it.")
@option("--merge", metavar="JSON", help="Merge an object; null removes.")
@option("--replace", is_flag=True, help="Remove everything else.")
@option(
    "--from",
    "table",
    type=click.Path(path_type=Path),
    help="CSV, JSONL or Parquet with a column key; the others are set.",
)
@option("--all", "everything", is_flag=True, help="All items of the dataset.")
@query_options
@with_agent
def metadata(
    agent: Agent,
    dataset: str,
    keys: tuple[str, ...],
    given: tuple[str, ...],
    unset: tuple[str, ...],
    merge: str | None,
    replace: bool,
    table: Path | None,
    everything: bool,
    prefix: str,
    label: tuple[str, ...],
    query: str | None,
) -> int:
    """Set, merge and remove metadata.user of items: of some keys, of a query, or from a table."""
    found = agent.catalog.dataset(dataset)
    store = agent.catalog.labels
    change = _change(given, unset, merge)
    asked = bool(prefix or label or query or everything)
    if sum(map(bool, (keys, asked, table))) > 1:
        raise InvalidInput(
            "KEYs, a query (--all, --prefix, --label, --query) and --from exclude each other",
            resource="metadata",
            hint="leave all but one out",
        )
    if not (keys or asked or table):
        raise InvalidInput(
            "say which items: KEYs, or --all, --prefix, --label, --query, or --from a table",
            resource="metadata",
        )
    if not (change or table or replace):
        raise InvalidInput("say what to change: --set, --unset, --merge", resource="metadata")
    missing: list[str] = []
    if table is not None:
        pairs = _rows(table)
    elif keys:
        pairs = iter([(key, dict(change)) for key in keys])
    else:
        pairs = ((item.key, dict(change)) for item in store.find(found.id, query_of(prefix, label, query)))
    done = 0
    while batch := list(islice(pairs, _BATCH)):
        changes, gone = _changes(agent, found, batch, replace=replace)
        missing += gone
        done += store.describe(found.id, changes)
    for key in missing[: output.LINES]:
        output.note(f"! {output.printable(key)}: no such item")
    sys.stdout.write(f"{done} changed, {len(missing)} not there\n")
    return EXIT_DIFFERS if missing else 0


def _changes(
    agent: Agent, dataset: Dataset, batch: list[tuple[str, Json]], *, replace: bool
) -> tuple[list[Change], list[str]]:
    from syncagent.catalog.labels import Change

    bare = {key: key.removeprefix("/") for key, _ in batch}  # the platform writes /a.jpg
    items = agent.catalog.labels.at(dataset.id, [*{**bare, **{one: one for one in bare.values()}}])
    changes, missing = [], []
    for key, told in batch:
        item = items.get(key) or items.get(bare[key])
        if item is None:
            missing.append(key)
            continue
        gone = dict.fromkeys(item.user) if replace else {}
        changes.append(Change(item.id, user={**gone, **told}))
    return changes, missing


def _change(given: tuple[str, ...], unset: tuple[str, ...], merge: str | None) -> Json:
    told: Json = _object(merge, "--merge") if merge else {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--set {one!r}: write NAME=VALUE", resource="--set")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        _put(told, name, value)
    for name in unset:
        _put(told, name, None)
    return told


def _put(told: Json, name: str, value: Any) -> None:
    *above, last = name.split(".")
    for part in above:
        below = told.setdefault(part, {})
        if not isinstance(below, dict):
            raise InvalidInput(f"{name!r} is below something that is no object", resource=name)
        told = below
    told[last] = value


def _rows(path: Path) -> Iterator[tuple[str, Json]]:
    from syncagent.ingest import tables

    for where, row in tables.rows(path):
        if isinstance(row, InvalidInput):
            raise row
        key = row.pop("key", None)
        if not isinstance(key, str):
            raise InvalidInput(f"{path}: {where}: has no key", resource=str(path))
        yield key.removeprefix("/"), row


# -- probe ---------------------------------------------------------------------------------------


@click.command()
@click.argument("dataset")
@option("--limit", type=click.IntRange(1), help="At most this many.")
@option("--follow/--no-follow", default=None, help="From now on after every sync, or not any more.")
@option("--quiet", is_flag=True, help="Only the summary.")
@json_option
@with_agent
def probe(
    agent: Agent, dataset: str, limit: int | None, follow: bool | None, quiet: bool, as_json: bool
) -> int:
    """Look into objects that changed: type, size, camera time, duration. A few KiB are read of each."""
    found = agent.catalog.dataset(dataset)
    if follow is not None:
        settings = {**agent.catalog.labels.settings(found.id), "probe": follow}
        agent.catalog.labels.set_settings(found.id, settings)
        if not follow:
            return 0
    failed = probe_and_tell(agent, found, as_json=as_json, quiet=quiet, limit=limit, alone=True)
    return EXIT_DIFFERS if failed else 0


def probe_and_tell(
    agent: Agent,
    dataset: Dataset,
    *,
    as_json: bool,
    quiet: bool,
    limit: int | None = None,
    alone: bool = False,
) -> int:
    """Probe, and print a line; returns how many objects could not be read.

    :param alone: say so too if there was nothing to do.
    """
    with output.Counter(quiet=quiet) as progress:
        report = agent.probe(
            dataset, limit=limit,
            on_progress=lambda told: progress(f"{told.looked:,} probed, {told.known:,} with facts"),
        )  # fmt: skip
    for line in report.lines:
        output.note(f"! {line}")
    counts = {name: getattr(report, name) for name in ("looked", "known", "unknown", "failed", "late")}
    if as_json:
        output.emit_json({"probed": counts})
    elif report.looked:
        sys.stdout.write(
            f"{report.looked} probed: {report.known} with facts, {report.unknown} without, {report.failed} failed\n"
        )
    elif alone:
        sys.stdout.write("0 probed: nothing was written since the last look\n")
    return report.failed


def tell_followed(report: Followed | None, *, as_json: bool) -> int:
    """Print what became of the dataset's own files; returns how many could not be read."""
    if report is None:
        return 0
    for line in report.lines:
        output.note(f"! {line}")
    names = ("files", "annotations", "waiting", "kept", "matched", "failed")
    if as_json:
        output.emit_json({"followed": {name: getattr(report, name) for name in names}})
    elif report.files or report.failed or report.matched or report.waiting:
        failed = f", {report.failed} not readable" if report.failed else ""
        waiting = f"; {report.waiting} items are not there yet" if report.waiting else ""
        matched = f", {report.matched} items found theirs" if report.matched else ""
        kept = f", {report.kept} left as people have them" if report.kept else ""
        sys.stdout.write(
            f"{report.files} annotation files taken, {report.annotations} annotations{kept}{matched}{failed}{waiting}\n"
        )
    return report.failed


def known_dataset(agent: Agent, name: str) -> Dataset | None:
    """The dataset of a name, or None."""
    try:
        return agent.catalog.dataset(name)
    except NotFound:
        return None


COMMANDS = (upload, metadata, probe)
