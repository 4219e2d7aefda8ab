"""Annotations from files into a catalog, and back out of it. The same for every catalog and every format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from syncagent.catalog import Item
from syncagent.catalog.labels import Json, LabelStore, stable_color
from syncagent.ingest.annotations import Annotation, Label, Labelled
from syncagent.ingest.formats.base import Context
from syncagent.ingest.formats.dataloop import annotations_json, annotations_of, corners

_BATCH = 500
_NAMED = 20


@dataclass(slots=True)
class Imported:
    """What became of the items of an annotation file."""

    items: int = 0
    """Items that the file's annotations went to."""
    added: int = 0
    same: int = 0
    """Annotations that the item had already."""
    removed: int = 0
    missing: int = 0
    """Names that no item of the dataset has."""
    ambiguous: int = 0
    """Names without extension that several items share."""
    labels: int = 0
    """Labels that the recipe did not have."""
    unmatched: list[str] = field(default_factory=list)
    """The first of the missing and ambiguous names."""


class Colors(dict[str, str]):
    """Colours by label: the recipe's, and stable ones for those that it does not have."""

    def __missing__(self, label: str) -> str:
        self[label] = stable_color(label)
        return self[label]


def colors_of(labels: Sequence[Mapping[str, Any]]) -> Colors:
    """The colours of a recipe's labels."""
    return Colors({one["tag"]: one["color"] for one in labels if str(one.get("color", "")).startswith("#")})


def import_annotations(
    store: LabelStore,
    dataset: str,
    found: Iterable[Labelled],
    *,
    root: str = "",
    labels: Sequence[Label] = (),
    replace: bool = False,
    by: str | None = None,
    on_progress: Callable[[Imported], None] | None = None,
) -> Imported:
    """Give annotations to the items that they name. Running it again adds nothing.

    :param root: what the items' keys have before the names in the files.
    :param labels: declared by the files: they go to the recipe, used or not, unless all that the files tell of is missing.
    :param replace: remove all other annotations of the items that the files tell of.
    """
    report = Imported()
    colors = colors_of(store.labels(dataset))
    declared = {one.name: one.color for one in labels}
    left = iter(found)
    cleared: set[str] = set()
    # Read before anything is written: files that cannot be read, or tell of other items, leave the recipe alone.
    batch = list(islice(left, _BATCH))
    if not batch:
        report.labels += _add_labels(store, dataset, declared, colors)
    while batch:
        pairs = _paired(store, dataset, batch, root, report)
        if pairs:
            used = {one.label: declared.get(one.label) for _, item in pairs for one in item.annotations}
            report.labels += _add_labels(store, dataset, {**declared, **used}, colors)
        _give(store, dataset, pairs, report, colors, replace=replace, by=by, cleared=cleared)
        if on_progress is not None:
            on_progress(report)
        batch = list(islice(left, _BATCH))
    return report


def _add_labels(store: LabelStore, dataset: str, wanted: Mapping[str, str | None], colors: Colors) -> int:
    new = {name: color for name, color in wanted.items() if name and name not in colors}
    if not new:
        return 0
    added = store.add_labels(
        dataset, [{"tag": name, "color": color or stable_color(name)} for name, color in new.items()]
    )
    colors.update({name: color or stable_color(name) for name, color in new.items()})
    return added


def _paired(
    store: LabelStore, dataset: str, batch: Sequence[Labelled], root: str, report: Imported
) -> list[tuple[Item, Labelled]]:
    whole = store.at(dataset, [root + one.key for one in batch if not one.stem])
    of_stems = store.stems(dataset, [root + one.key for one in batch if one.stem])
    pairs = []
    for one in batch:
        key = root + one.key
        item = whole.get(key)
        if one.stem:
            candidates = media(of_stems.get(key, []))
            if len(candidates) > 1:
                report.ambiguous += 1
                _name(report, f"{key}: several items have this name")
                continue
            item = candidates[0] if candidates else None
        if item is None:
            report.missing += 1
            _name(report, f"{key}: no such item")
        else:
            pairs.append((item, one))
    return pairs


def media(items: Sequence[Item]) -> Sequence[Item]:
    """The pictures, videos and sounds among some items, if there are any."""
    return [one for one in items if one.mimetype.split("/")[0] in {"image", "video", "audio"}] or items


def _name(report: Imported, line: str) -> None:
    if len(report.unmatched) < _NAMED:
        report.unmatched.append(line)


def _give(
    store: LabelStore, dataset: str, pairs: Sequence[tuple[Item, Labelled]], report: Imported, colors: Colors, *,
    replace: bool, by: str | None, cleared: set[str],
) -> None:  # fmt: skip
    had = store.annotations_of(dataset, [found.id for found, _ in pairs if found.annotations])
    known: dict[str, dict[bytes, list[str]]] = {}
    for item, told in had.items():
        ours = known.setdefault(item, {})
        for name, parsed in _parsed(told, item):
            ours.setdefault(_content(parsed), []).append(name)
    given: list[tuple[str, Sequence[Json]]] = []
    for found, one in pairs:
        there = known.get(found.id, {})
        new = []
        for annotation in one.annotations:
            ids = there.get(_content(annotation)) if there else None
            if ids:
                ids.pop(0)
                report.same += 1
            else:
                new.append(annotation)
        if new:
            given.append((found.id, _whole(annotations_json(new, colors, corners), one.annotations, new)))
        report.items += 1
        report.added += len(new)
    if replace:
        told_of = {found.id for found, _ in pairs} - cleared
        gone = [one for item in told_of for ids in known.get(item, {}).values() for one in ids]
        report.removed += store.unannotate(dataset, gone) if gone else 0
        cleared.update(told_of)
    if given:
        store.annotate(dataset, given, by=by)


def _whole(told: list[Json], all_of_item: Sequence[Annotation], new: Sequence[Annotation]) -> list[Json]:
    """Without parents that are not among the new ones: those are there already, under ids that the file does not know."""
    if len(new) == len(all_of_item):
        return told
    names = {one.get("id") for one in told}
    for one in told:
        system = one["metadata"]["system"]
        if system.get("parentId") not in names:
            system.pop("parentId", None)
    return told


def _parsed(told: Sequence[Json], item: str) -> Iterator[tuple[str, Annotation]]:
    """The annotations of an item in our words; the points of a pose are in it."""
    for one in annotations_of(told, f"item {item}"):
        if one.id is not None:
            yield one.id, one


def _content(annotation: Annotation) -> bytes:
    """Equal for annotations that say the same, whatever they are called."""
    return msgspec.json.encode(  # which holds integers of any size
        msgspec.structs.replace(annotation, id=None, parent=None), order="deterministic"
    )


def exported(
    store: LabelStore, dataset: str, query: Mapping[str, Any] | None = None, *, annotated_only: bool = False
) -> Iterator[Labelled]:
    """Items with their annotations, as `Format.write` takes them.

    :param query: of the platform's language; None for all files of the dataset.
    """
    found = store.find(dataset, query)
    while batch := list(islice(found, _BATCH)):
        told = store.annotations_of(dataset, [item.id for item in batch if item.annotations])
        for item in batch:
            mine = told.get(item.id, [])
            if mine or not annotated_only:
                yield _labelled(item, annotations_of(mine, item.key))


def _labelled(item: Item, annotations: tuple[Annotation, ...]) -> Labelled:
    system = item.system
    fps = system.get("fpsRational") or system.get("fps")
    return Labelled(
        key=item.key,
        annotations=annotations,
        width=system.get("width"),
        height=system.get("height"),
        fps=str(fps) if fps else None,
        frames=system.get("nb_frames"),
        user=dict(item.user),
        description=item.description,
    )


def recipe_labels(store: LabelStore, dataset: str) -> list[Label]:
    """The recipe's labels as formats take them."""
    return [Label(name=one["tag"], color=one.get("color")) for one in store.labels(dataset)]


def context_of(
    store: LabelStore,
    dataset: str,
    *,
    root: str = "",
    size_of: Callable[[Item], tuple[int, int] | None] = lambda item: None,
    unsized: Callable[[str, bool, Item | None], None] = lambda key, stem, item: None,
    apart: str | None = None,
    later: bool = False,
) -> Context:
    """What annotation files leave to be known, from a dataset's items and recipe.

    :param size_of: looks at the bytes of an item whose size nobody noted yet.
    :param unsized: told of an item's key, whether it lacks the extension, and the item if there is one, where no size is known.
    :param apart: key of the annotation file itself, if it is an item of the dataset.
    :param later: items that are not there yet may come, so that nothing is passed over.
    """

    def item_of(key: str, stem: bool) -> Item | None:
        if not stem:
            return store.at(dataset, [root + key]).get(root + key)
        found = media([
            one for one in store.stems(dataset, [root + key]).get(root + key, []) if one.key != apart
        ])  # fmt: skip
        return found[0] if len(found) == 1 else None

    def size(key: str, stem: bool) -> tuple[int, int] | None:
        item, found = item_of(key, stem), None
        if item is not None:
            width, height = item.system.get("width"), item.system.get("height")
            found = (width, height) if width and height else size_of(item)
        if found is None:
            unsized(root + key, stem, item)
        return found

    def fps(key: str, stem: bool) -> str | None:
        item = item_of(key, stem)
        told = item.system.get("fpsRational") or item.system.get("fps") if item is not None else None
        return str(told) if told else None

    labels = [one["tag"] for one in store.labels(dataset)]
    return Context(
        labels=labels, size=size, fps=fps, known=lambda key, stem: later or item_of(key, stem) is not None
    )
