"""annotations: labels in from files and out to files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncagent.cli import output
from syncagent.cli.ingest import known_dataset, tell_followed
from syncagent.cli.query import item_at, query_of, query_options
from syncagent.cli.root import json_option, option, with_agent
from syncagent.errors import EXIT_DIFFERS, InvalidInput, NotFound

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.ingest.annotations import Labelled
    from syncagent.ingest.formats import Format, Losses, NewFolder, Tree

_format = option("--format", "form", metavar="NAME", help="Of the files. Default: by looking at them.")
_media = option(
    "--media", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the media files, for formats that tell neither sizes nor extensions.",
)  # fmt: skip
_lossy = option("--lossy", is_flag=True, help="Leave out what the format cannot hold, and list it.")


@click.group("annotations")
def labelling() -> None:
    """Labels of items: in from annotation files, out to them, from one format to another."""


@labelling.command("import")
@click.argument("dataset")
@click.argument("path", type=click.Path(path_type=Path))
@_format
@option("--root", default="", help="What items' keys have before the names in the files: images/train/")
@option("--replace", is_flag=True, help="Remove all other annotations of the items that the files tell of.")
@json_option
@with_agent
def import_(
    agent: Agent, dataset: str, path: Path, form: str | None, root: str, replace: bool, as_json: bool
) -> int:
    """Give the annotations of a file or folder to a dataset's items. Running it again adds nothing."""
    from syncagent.ingest.annotate import context_of, import_annotations
    from syncagent.ingest.formats import open_tree, pick, read

    found = agent.catalog.dataset(dataset)
    store = agent.catalog.labels
    tree = open_tree(path)
    reader = pick(form, tree, str(path))
    items = read(reader, tree, str(path), context_of(store, found.id, root=root))
    with output.Counter() as progress:
        report = import_annotations(
            store, found.id, items, root=root, labels=reader.labels(tree), replace=replace,
            on_progress=lambda told: progress(f"{told.items:,} items, {told.added:,} annotations"),
        )  # fmt: skip
    for line in report.unmatched:
        output.note(f"! {output.printable(line)}")
    if report.missing and root and not root.endswith("/"):
        output.note(f"--root {output.printable(root)} stands before the names as it is; a folder ends in '/'")
    if as_json:
        output.emit_json({"report": asdict(report)})
    else:
        removed = f", {report.removed} removed" if replace else ""
        lost = f"; {report.missing} names without an item" if report.missing else ""
        several = f"; {report.ambiguous} names of several items" if report.ambiguous else ""
        sys.stdout.write(
            f"{report.added} annotations added, {report.same} there already{removed}, on {report.items} items;"
            f" {report.labels} new labels{lost}{several}\n"
        )
    return EXIT_DIFFERS if report.missing or report.ambiguous else 0


@labelling.command("export")
@click.argument("dataset")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@option("--format", "form", metavar="NAME", default="dataloop", show_default=True, help="Of the files.")
@_lossy
@option("--annotated-only", is_flag=True, help="Without items that have no annotation.")
@query_options
@with_agent
def export(
    agent: Agent,
    dataset: str,
    folder: Path,
    form: str,
    lossy: bool,
    annotated_only: bool,
    prefix: str,
    label: tuple[str, ...],
    query: str | None,
) -> int:
    """Write annotations of a dataset's items to files below FOLDER."""
    from syncagent.ingest.annotate import exported, recipe_labels
    from syncagent.ingest.formats import NewFolder, get

    found = agent.catalog.dataset(dataset)
    store = agent.catalog.labels
    writer = get(form)
    items = exported(store, found.id, query_of(prefix, label, query), annotated_only=annotated_only)
    with _losses(lossy) as losses, _counted(items) as (counted, counts), _whole(NewFolder(folder)) as out:
        writer.write(counted, out, labels=recipe_labels(store, found.id), losses=losses)
    sys.stdout.write(f"{counts['annotations']} annotations of {counts['items']} items\n")
    return 0


@labelling.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@option("--from", "form", metavar="NAME", help="Format of SOURCE. Default: by looking at it.")
@option("--to", "to", metavar="NAME", required=True, help="Format of TARGET.")
@_media
@_lossy
def convert(source: Path, target: Path, form: str | None, to: str, media: Path | None, lossy: bool) -> int:
    """Read annotation files of one format, and write them to the folder TARGET in another. No catalog is needed."""
    from syncagent.ingest.formats import NewFolder, get, open_tree, pick

    tree = open_tree(source)
    reader, writer = pick(form, tree, str(source)), get(to)
    found = _read(reader, tree, source, media)
    with _losses(lossy) as losses, _counted(found) as (items, counts), _whole(NewFolder(target)) as out:
        writer.write(items, out, labels=reader.labels(tree), losses=losses)
    sys.stdout.write(f"{counts['annotations']} annotations of {counts['items']} items\n")
    return 0


@labelling.command()
@click.argument("target", metavar="DATASET|PATH")
@_format
@_media
@json_option
@query_options
@with_agent
def stats(
    agent: Agent,
    target: str,
    form: str | None,
    media: Path | None,
    as_json: bool,
    prefix: str,
    label: tuple[str, ...],
    query: str | None,
) -> None:
    """Count annotations by label and type, of a dataset or of files."""
    from syncagent.ingest.annotate import exported
    from syncagent.ingest.annotations import kind
    from syncagent.ingest.formats import open_tree, pick

    found = known_dataset(agent, target)
    items: Iterable[Labelled]
    if found is not None:
        items = exported(agent.catalog.labels, found.id, query_of(prefix, label, query))
    elif Path(target).exists():
        tree = open_tree(Path(target))
        items = _read(pick(form, tree, target), tree, Path(target), media)
    else:
        raise NotFound(f"no dataset and no file {target!r}", resource=target)
    counts: Counter[tuple[str, str]] = Counter()
    on: Counter[tuple[str, str]] = Counter()
    with _counted(items) as (counted, totals):
        for item in counted:
            pairs = [(one.label, kind(one.geometry)) for one in item.annotations]
            counts.update(pairs)
            on.update(set(pairs))
            totals["annotated"] += bool(pairs)
    rows = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if as_json:
        for (name, what), count in rows:
            output.emit_json({"label": name, "type": what, "annotations": count, "items": on[name, what]})
        output.emit_json({"report": dict(totals)})
        return
    output.table(
        ((output.printable(name), what, count, on[name, what]) for (name, what), count in rows),
        ("label", "type", "annotations", "items"),
    )
    sys.stdout.write(
        f"{totals['annotations']} annotations on {totals['annotated']} of {totals['items']} items\n"
    )


@labelling.command()
@click.argument("dataset")
@click.argument("key")
@option(
    "-o", "--output", "target", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="PNG file to write.",
)  # fmt: skip
@option(
    "--thickness", type=click.IntRange(1, 100), help="Of lines, in pixels. Default: by the picture's size."
)
@option(
    "--alpha", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Opacity of what is drawn."
)
@option("--text", is_flag=True, help="Write the labels.")
@option("--fill", is_flag=True, help="Fill what encloses an area.")
@option("--mask-only", is_flag=True, help="Draw on nothing instead of on the picture.")
@with_agent
def show(
    agent: Agent, dataset: str, key: str, target: Path, thickness: int | None, alpha: float, text: bool, fill: bool,
    mask_only: bool,
) -> None:  # fmt: skip
    """Draw an item's annotations over its picture."""
    import io

    from msgspec.structs import replace

    from syncagent.ingest import render
    from syncagent.ingest.annotate import colors_of, exported
    from syncagent.ingest.partial import write_whole

    if target.suffix.lower() not in {"", ".png"}:
        raise InvalidInput(
            f"{target}: the drawing is a PNG",
            resource=str(target),
            hint=f"name it {target.with_suffix('.png')}",
        )
    found = agent.catalog.dataset(dataset)
    store = agent.catalog.labels
    item = item_at(store, found.id, key)
    (told,) = exported(store, found.id, {"filter": {"$and": [{"id": item.id}]}})
    style = render.Style(
        thickness=thickness, alpha=alpha, text=text, fill=fill, colors=colors_of(store.labels(found.id))
    )
    if mask_only and told.width and told.height:
        write_whole(target, render.png(render.mask(told, style)))
        return
    picture = agent.downloader(found).picture(item)
    if mask_only:  # nobody noted how large it is
        sized = replace(told, width=picture.width, height=picture.height)
        write_whole(target, render.png(render.mask(sized, style)))
        return
    out = io.BytesIO()
    render.on_image(picture, told, style).save(out, "PNG")
    write_whole(target, out.getvalue())


# -- files in the bucket -------------------------------------------------------------------------


@labelling.group("source")
def source() -> None:
    """Annotation and metadata files that live in the bucket itself, and are mirrored to their items."""


@source.command("add")
@click.argument("dataset")
@option("--prefix", default="", help="Keys of the files begin so: labels/")
@option(
    "--format",
    "form",
    required=True,
    metavar="NAME",
    help="A format, or 'sidecar' for metadata: a.json beside a.jpg.",
)
@option("--root", default="", help="What items' keys have before the names in the files.")
@option("--overwrite", is_flag=True, help="Also where people changed or deleted what a file gave.")
@with_agent
def source_add(agent: Agent, dataset: str, prefix: str, form: str, root: str, overwrite: bool) -> int:
    """Mirror annotation files of a prefix, from now on with every sync and every event."""
    from syncagent.ingest.follow import Following, Source, suffixes

    found = agent.catalog.dataset(dataset)
    known = agent.following(found)
    added = Source(prefix=prefix, format=form, root=root, overwrite=overwrite)
    suffixes(added)  # a format that there is
    kept = [one for one in known.sources if (one.prefix, one.format) != (prefix, form)]
    new = Following(sources=(*kept, added), probe=known.probe)
    agent.catalog.labels.set_settings(found.id, new.model_dump(mode="json"))
    return EXIT_DIFFERS if tell_followed(agent.follow(found), as_json=False) else 0


@source.command("ls")
@click.argument("dataset")
@json_option
@with_agent
def source_ls(agent: Agent, dataset: str, as_json: bool) -> None:
    """List what is mirrored."""
    found = agent.following(agent.catalog.dataset(dataset)).sources
    if as_json:
        for one in found:
            output.emit_json(one.model_dump())
        return
    rows = [
        (one.prefix or "-", one.format, one.root or "-", "yes" if one.overwrite else "no") for one in found
    ]
    output.table(rows, ("prefix", "format", "root", "overwrite"))


@source.command("rm")
@click.argument("dataset")
@option("--prefix", default="", help="As it was added.")
@with_agent
def source_rm(agent: Agent, dataset: str, prefix: str) -> None:
    """Mirror them no longer. What they gave stays."""
    from syncagent.ingest.follow import Following

    found = agent.catalog.dataset(dataset)
    known = agent.following(found)
    kept = tuple(one for one in known.sources if one.prefix != prefix)
    if len(kept) == len(known.sources):
        raise NotFound(
            f"nothing with the prefix {prefix!r} is mirrored", resource=prefix, hint="see 'source ls'"
        )
    agent.catalog.labels.set_settings(
        found.id, Following(sources=kept, probe=known.probe).model_dump(mode="json")
    )


# -- small things --------------------------------------------------------------------------------


def _read(reader: Format, tree: Tree, source: Path, media: Path | None) -> Iterator[Labelled]:
    """Items of files that no dataset is asked about."""
    from syncagent.ingest.formats import Context, read
    from syncagent.ingest.local import Media

    if media is None:
        return read(reader, tree, str(source), Context(sizes="name the pictures' folder with --media"))
    found = Media(media)
    context = Context(size=found.size, sizes=f"put the picture below {media}")
    return found.named(read(reader, tree, str(source), context))


@contextmanager
def _whole(folder: NewFolder) -> Iterator[NewFolder]:
    """A folder that has all files in the end, or none."""
    try:
        yield folder
    except BaseException:
        folder.discard()
        raise


@contextmanager
def _losses(allowed: bool) -> Iterator[Losses]:
    """Losses, each told on a line; their sum at the end."""
    from syncagent.ingest.formats import Losses

    losses = Losses(allowed=allowed, tell=output.note)
    yield losses
    if losses.counts:
        told = ", ".join(f"{count} times {what}" for what, count in losses.counts.most_common())
        output.note(f"left out: {told}")


@contextmanager
def _counted(items: Iterable[Labelled]) -> Iterator[tuple[Iterator[Labelled], Counter[str]]]:
    """The items as they come, and how many there were, with a sign of life."""
    counts: Counter[str] = Counter()

    def counted(progress: Callable[[str], Any]) -> Iterator[Labelled]:
        for item in items:
            counts["items"] += 1
            counts["annotations"] += len(item.annotations)
            if counts["items"] % 500 == 0:
                progress(f"{counts['items']:,} items, {counts['annotations']:,} annotations")
            yield item

    with output.Counter() as progress:
        yield counted(progress), counts


COMMANDS = (labelling,)
