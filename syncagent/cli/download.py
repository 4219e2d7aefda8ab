"""download: items' bytes and annotations out, into a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncagent.cli import output
from syncagent.cli.query import query_of, query_options
from syncagent.cli.root import json_option, option, verbose, with_agent
from syncagent.errors import EXIT_DIFFERS, InvalidInput

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.ingest.download import Downloaded


@click.command()
@click.argument("dataset")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@option(
    "--annotations", metavar="LIST",
    help="Also annotations, as json, mask, instance, object_id, on-image, vtt; several with commas.",
)  # fmt: skip
@option(
    "--version", type=click.Choice(["1", "2"]), default="2", show_default=True,
    help="Of the names of annotations: 1 a.json, 2 a.jpg.json.",
)  # fmt: skip
@option("--no-items-folder", is_flag=True, help="Items go to FOLDER itself, and not to FOLDER/items.")
@option("--flat", is_flag=True, help="Items without their folders.")
@option("--no-binaries", is_flag=True, help="Annotations only.")
@option("--overwrite", is_flag=True, help="Replace files that are there and different.")
@option(
    "--thickness",
    type=click.IntRange(1, 100),
    help="Of drawn lines, in pixels. Default: by the picture's size.",
)
@option(
    "--alpha", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Opacity of what is drawn."
)
@option("--text", is_flag=True, help="Write labels into drawings.")
@option("--fill", is_flag=True, help="Fill what encloses an area, in drawings.")
@option(
    "--max-bytes",
    type=click.IntRange(1),
    default=1 << 30,
    show_default=True,
    help="Of what a link points to.",
)
@option("--allow-private", is_flag=True, help="Also follow links to addresses of private networks.")
@option(
    "--error-log", type=click.Path(path_type=Path), help="Write a JSON line about each failure to this file."
)
@query_options
@option("--quiet", is_flag=True, help="Only the summary.")
@json_option
@with_agent
def download(
    agent: Agent,
    dataset: str,
    folder: Path,
    annotations: str | None,
    version: str,
    no_items_folder: bool,
    flat: bool,
    no_binaries: bool,
    overwrite: bool,
    thickness: int | None,
    alpha: float,
    text: bool,
    fill: bool,
    max_bytes: int,
    allow_private: bool,
    error_log: Path | None,
    prefix: str,
    label: tuple[str, ...],
    query: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Download items of a dataset into FOLDER, in the layout of the platform's client: items/a.jpg, json/a.jpg.json.

    What is there already is not read again. A file that is there and different is an error, unless --overwrite. Run again after an
    interruption, it goes on, also in the middle of a file.
    """
    from syncagent.ingest.download import Options
    from syncagent.ingest.render import Style

    if no_binaries and not annotations:
        raise InvalidInput(
            "--no-binaries leaves nothing to download", resource="--no-binaries", hint="name --annotations"
        )

    options = Options(
        annotations=[one.strip() for one in annotations.split(",") if one.strip()] if annotations else (),
        version=1 if version == "1" else 2, to_items_folder=not no_items_folder, without_relative_path=flat,
        binaries=not no_binaries, overwrite=overwrite, max_bytes=max_bytes, allow_private=allow_private,
        style=Style(thickness=thickness, alpha=alpha, text=text, fill=fill),
    )  # fmt: skip
    found = agent.catalog.dataset(dataset)
    lines = output.Lines(as_json=as_json, limit=None if as_json or verbose() else output.LINES)
    with output.Counter(quiet=quiet) as progress:
        report = agent.downloader(found).run(
            folder,
            query_of(prefix, label, query),
            options,
            on_outcome=None if quiet else lines,
            on_progress=lambda told: progress(_progress(told)),
        )
    return _tell(report, error_log, quiet=quiet, as_json=as_json)


def _progress(told: Downloaded) -> str:
    """How far it is, and how far the file of which most is missing."""
    text = (
        f"{told.added + told.changed:,} downloaded, {told.same:,} there already, {told.failed:,} failed,"
        f" of {told.found:,} so far; {told.bytes / 1e6:,.1f} MB"
    )
    running = {key: pair for key, pair in told.running.copy().items() if pair[1]}
    if running:
        key, (here, size) = max(running.items(), key=lambda one: one[1][1] - one[1][0])
        text += f"; {output.printable(key)[-40:]} {100 * here // size} %"
    return text


def _tell(report: Downloaded, error_log: Path | None, *, quiet: bool, as_json: bool) -> int:
    if error_log is not None:
        failures = [
            json.dumps({"key": key, "error": error}, ensure_ascii=False) for key, error in report.errors
        ]
        error_log.write_text("".join(f"{line}\n" for line in failures), encoding="utf-8")
    if quiet:
        for key, error in report.errors[: output.LINES]:
            output.note(f"! {output.printable(key)}: {error}")
    for line in report.notes[: output.LINES]:
        output.note(f"left out: {output.printable(line)}")
    names = ("added", "changed", "same", "failed", "bytes", "files")
    counts: dict[str, Any] = {name: getattr(report, name) for name in names}
    if as_json:
        output.emit_json({"report": {**counts, "left_out": len(report.notes)}})
    else:
        sys.stdout.write(
            f"{report.added} downloaded, {report.changed} replaced, {report.same} there already, {report.failed} failed;"
            f" {report.bytes} bytes, {report.files} annotation files\n"
        )
    return EXIT_DIFFERS if report.failed else 0


COMMANDS = (download,)
