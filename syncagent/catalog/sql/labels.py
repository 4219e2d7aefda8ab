"""What people and files say about the items of the embedded catalog. See `catalog.labels`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from syncagent.catalog.base import Item
from syncagent.catalog.filters import parse_query
from syncagent.catalog.labels import Awaited, Change, Entry, Facts, Stale, Taken
from syncagent.catalog.sql.annotations import OURS, Annotations
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.datasets import Datasets
from syncagent.catalog.sql.items import FACTS, Items, Json
from syncagent.catalog.sql.recipes import Recipes, flat_labels, put_label
from syncagent.catalog.sql.sources import Sources, origin_of
from syncagent.catalog.wire import dumps
from syncagent.errors import InvalidInput, NotFound

_BATCH = 1000
_SETTINGS = "syncagent"
_FILES: Json = {"filter": {"$and": [{"type": "file"}]}}
_BY = "syncagent"
Given = Sequence[tuple[str, Sequence[Mapping[str, Any]]]]


class SqlLabels:
    """`LabelStore` over the embedded catalog. Shares its connection."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._db = catalog.db
        self._items = Items(catalog)
        self._annotations = Annotations(catalog)
        self._recipes = Recipes(catalog)
        self._datasets = Datasets(catalog)
        self._sources = Sources(catalog, self)

    # -- items -----------------------------------------------------------------------------------

    def find(self, dataset: str, query: Mapping[str, Any] | None = None) -> Iterator[Item]:
        """See `LabelStore.find`."""
        return self._items.all(dataset, parse_query({**(query or _FILES), "resource": "items"}))

    def at(self, dataset: str, keys: Sequence[str]) -> dict[str, Item]:
        """See `LabelStore.at`."""
        found = {}
        for start in range(0, len(keys), _BATCH):
            given = {**self._catalog.source(dataset), "keys": self._db.array(keys[start : start + _BATCH])}
            for row in self._db.query("items_at", given):
                item = self._catalog.item_of(dataset, row)
                found[item.key] = item
        return found

    def stems(self, dataset: str, stems: Sequence[str]) -> dict[str, list[Item]]:
        """See `LabelStore.stems`."""
        found: dict[str, list[Item]] = {}
        for start in range(0, len(stems), _BATCH):
            given = {
                **self._catalog.source(dataset),
                "stems": self._db.array(stems[start : start + _BATCH]),
            }
            for stem, *row in self._db.query("items_of_stems", given):
                found.setdefault(stem, []).append(self._catalog.item_of(dataset, row))
        return found

    def describe(self, dataset: str, changes: Sequence[Change], *, by: str | None = None) -> int:
        """See `LabelStore.describe`."""
        with self._db.transaction(self._catalog.source(dataset)["dataset"]):
            known = self._known(dataset, [change.item for change in changes])
            done = [change for change in changes if self._catalog.number_of(change.item) in known]
            for change in done:
                self._items.change(
                    change.item,
                    by=by or _BY,
                    user=change.user,
                    system=change.system,
                    description=change.description,
                )
        return len(done)

    def _known(self, dataset: str, items: Sequence[str]) -> set[int]:
        """Numbers of those of some ids that are items of the dataset."""
        numbers = self._db.array(self._catalog.number_of(item) for item in items)
        given = {"numbers": numbers, "dataset": self._catalog.source(dataset)["dataset"]}
        return {n for (n,) in self._db.query("dataset_items", given)}

    # -- annotations -----------------------------------------------------------------------------

    def annotations_of(self, dataset: str, items: Sequence[str]) -> dict[str, list[Json]]:
        """See `LabelStore.annotations_of`."""
        found: dict[str, list[Json]] = {}
        for start in range(0, len(items), _BATCH):
            numbers = [self._catalog.number_of(item) for item in items[start : start + _BATCH]]
            given = {"items": self._db.array(numbers), "dataset": self._catalog.source(dataset)["dataset"]}
            for row in self._db.query("annotations_of", given):
                told = self._annotations.told(row)
                found.setdefault(told["itemId"], []).append(told)
        return found

    def annotate(self, dataset: str, given: Given, *, by: str | None = None) -> list[list[str]]:
        """See `LabelStore.annotate`."""
        with self._db.transaction(self._catalog.source(dataset)["dataset"]):
            known = self._known(dataset, [item for item, _ in given])
            numbers = [self._catalog.number_of(item) for item, _ in given]
            for (item, _), number in zip(given, numbers, strict=True):
                if number not in known:
                    raise NotFound(f"the dataset has no item {item!r}", resource=item)
            pairs = [(n, added) for n, (_, added) in zip(numbers, given, strict=True)]
            made = self.insert(pairs, by=by or _BY)
        return [[self._catalog.public_id(n) for n in numbers] for numbers in made]

    def insert(
        self,
        given: Sequence[tuple[int, Sequence[Mapping[str, Any]]]],
        *,
        by: str,
        file: int | None = None,
        reuse: Mapping[tuple[int, str], list[int]] = {},
    ) -> list[list[int]]:
        """Insert annotations of items, by the items' numbers; returns their own numbers.

        :param reuse: numbers that records of the file had, by item and origin.
        """
        above = max((number for numbers in reuse.values() for number in numbers), default=0)
        wanted = {"count": sum(len(added) for _, added in given), "above": above}
        fresh = iter([n for (n,) in self._db.query("free_numbers", wanted)])
        now, rows, made = self._catalog.now(), [], []
        items = self._db.array(item for item, added in given if added)
        kept = {n: told for n, *told in self._db.query("annotated_items", {"items": items})}
        for item, added in given:
            names: dict[str, int] = {}
            numbers = []
            for annotation in added:
                # Only a file's records have an origin: to name one by its content takes long, and plain JSON.
                free = reuse.get((item, origin_of(annotation))) if reuse else None
                number = free.pop(0) if free else next(fresh)
                numbers.append(number)
                if isinstance(name := annotation.get("id"), str):
                    names.setdefault(name, number)
            parents = [_parent(annotation) for annotation in added]
            if any(parents):
                _refuse_circles(added, parents, self._catalog.public_id(item))
            made.append(numbers)
            for number, annotation, parent in zip(numbers, added, parents, strict=True):
                data, kind, label = self._row(annotation, parent, names, item)
                origin = origin_of(annotation) if file is not None else None
                rows.append((number, item, *kept[item], data, kind, label, by, now, now, file, origin))
        self._db.change_many("annotate_numbered", rows)
        self._db.change("count_annotations_of", {"items": items})
        return made

    def _row(
        self, annotation: Mapping[str, Any], parent: Any, names: Mapping[str, int], item: int
    ) -> tuple[str, str, str]:
        """Data, type and label, with the parent's name replaced by its id."""
        kind, label = annotation.get("type"), annotation.get("label")
        if not isinstance(kind, str) or not kind or not isinstance(label, str):
            raise InvalidInput(
                "an annotation has no type or no label", resource=self._catalog.public_id(item)
            )
        data = {name: value for name, value in annotation.items() if name not in OURS}
        if parent:
            metadata = data["metadata"]
            above = names.get(parent)
            if above is None and self._of_item(str(parent)) != item:
                raise NotFound(f"no annotation {parent!r} on the item to be a parent", resource=str(parent))
            told = self._catalog.public_id(above) if above is not None else parent
            data["metadata"] = {**metadata, "system": {**metadata["system"], "parentId": told}}
        return dumps(data), kind, label

    def _of_item(self, annotation: str) -> int | None:
        rows = self._db.query("annotation", {"n": self._catalog.number_of(annotation)})
        return rows[0][1] if rows else None

    def unannotate(self, dataset: str, annotations: Sequence[str]) -> int:
        """See `LabelStore.unannotate`."""
        number = self._catalog.source(dataset)["dataset"]
        wanted = self._db.array(self._catalog.number_of(one) for one in annotations)
        with self._db.transaction(number):
            rows = self._db.query("some_annotations", {"dataset": number, "numbers": wanted})
            self._annotations.delete_numbers([n for n, _ in rows])
            self._db.change("count_annotations_of", {"items": self._db.array({item for _, item in rows})})
        return len(rows)

    # -- the recipe ------------------------------------------------------------------------------

    def labels(self, dataset: str) -> list[Json]:
        """See `LabelStore.labels`."""
        ontology = self._ontology(dataset)
        return [] if ontology is None else list(flat_labels(ontology.get("roots") or []))

    def add_labels(self, dataset: str, labels: Sequence[Mapping[str, Any]]) -> int:
        """See `LabelStore.add_labels`."""
        with self._db.transaction():
            known = {one["tag"] for one in self.labels(dataset)}
            wanted = [one for one in labels if one.get("tag") not in known]
            if not wanted:
                return 0
            ontology = self._ontology(dataset) or self._made(dataset)
            roots = ontology.get("roots") or []
            made = sum(put_label(roots, one, create=True, change=False) for one in wanted)
            self._recipes.change("ontology", ontology["id"], {"roots": roots})
        return made

    def _ontology(self, dataset: str) -> Json | None:
        recipes = self._datasets.get(dataset, counted=False)["metadata"]["system"]["recipes"]
        for recipe in recipes or []:
            for ontology in self._recipes.get("recipe", str(recipe)).get("ontologyIds") or []:
                return self._recipes.get("ontology", str(ontology))
        return None

    def _made(self, dataset: str) -> Json:
        told = self._datasets.get(dataset, counted=False)
        recipe = self._recipes.default(told["projects"][0], told["name"])
        recipes = [*told["metadata"]["system"]["recipes"], recipe]
        self._datasets.change(dataset, data={"metadata": {"system": {"recipes": recipes}}})
        return self._recipes.get("ontology", self._recipes.get("recipe", recipe)["ontologyIds"][0])

    # -- facts -----------------------------------------------------------------------------------

    def unprobed(
        self, dataset: str, *, after: str | None = None, limit: int = 1000
    ) -> list[tuple[Item, str]]:
        """See `LabelStore.unprobed`."""
        number = self._catalog.number_of(after) if after else 0
        given = {"dataset": self._catalog.source(dataset)["dataset"], "after": number, "limit": limit}
        return [
            (self._catalog.item_of(dataset, row), fingerprint)
            for fingerprint, *row in self._db.query("unprobed", given)
        ]

    def set_facts(self, dataset: str, facts: Sequence[Facts]) -> int:
        """See `LabelStore.set_facts`."""
        done, source = 0, self._catalog.source(dataset)
        with self._db.transaction(source["dataset"]):
            for one in facts:
                n = self._catalog.number_of(one.item)
                for _, fingerprint, _, system, _ in self._db.query(
                    "probed", {"n": n, "dataset": source["dataset"]}
                ):
                    if fingerprint != one.fingerprint:
                        continue
                    old = {k: v for k, v in json.loads(system or "{}").items() if k not in MEDIA}
                    told = {k: v for k, v in one.system.items() if k not in FACTS}
                    self._db.change(
                        "write_facts", {"n": n, "system": json.dumps({**old, **told}), "probed": fingerprint}
                    )
                    if one.mimetype:
                        self._db.change("write_type", {"n": n, "type": one.mimetype})
                    done += 1
        return done

    # -- mirrored files --------------------------------------------------------------------------

    def settings(self, dataset: str) -> Json:
        """See `LabelStore.settings`."""
        found = self._datasets.get(dataset, counted=False)["metadata"]["system"].get(_SETTINGS)
        return found if isinstance(found, dict) else {}

    def set_settings(self, dataset: str, settings: Mapping[str, Any]) -> None:
        """See `LabelStore.set_settings`."""
        gone = dict.fromkeys(self.settings(dataset))
        told = {"metadata": {"system": {_SETTINGS: {**gone, **settings}}}}
        self._datasets.change(dataset, data=told)

    def stale(
        self,
        dataset: str,
        prefix: str,
        suffixes: Sequence[str],
        *,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[Stale]:
        """See `LabelStore.stale`."""
        return self._sources.stale(dataset, prefix, suffixes, after=after, limit=limit)

    def take(
        self,
        dataset: str,
        file: Stale,
        entries: Iterable[Entry],
        *,
        overwrite: bool = False,
        error: str | None = None,
        awaited: Awaited | None = None,
        lists: str | None = None,
    ) -> Taken | None:
        """See `LabelStore.take`."""
        return self._sources.take(
            dataset, file, entries, overwrite=overwrite, error=error, awaited=awaited, lists=lists
        )

    def wake(self, dataset: str, keys: Sequence[str] | None = None) -> list[str]:
        """See `LabelStore.wake`."""
        return self._sources.wake(dataset, keys)

    def match(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """See `LabelStore.match`."""
        return self._sources.match(dataset, keys)


def _refuse_circles(annotations: Sequence[Mapping[str, Any]], parents: Sequence[Any], item: str) -> None:
    """Raise if one of an item's new annotations is below itself."""
    above = {
        one["id"]: parent
        for one, parent in zip(annotations, parents, strict=True)
        if parent and isinstance(one.get("id"), str)
    }
    sound: set[str] = set()
    for name in above:
        path = [name]
        while path[-1] in above and path[-1] not in sound:
            path.append(above[path[-1]])
            if path[-1] in path[:-1]:
                raise InvalidInput("an annotation cannot be below itself", resource=item)
        sound.update(path)


def _parent(annotation: Mapping[str, Any]) -> Any:
    metadata = annotation.get("metadata")
    system = metadata.get("system") if isinstance(metadata, dict) else None
    return system.get("parentId") if isinstance(system, dict) else None


# What a probe tells, and another one may take back.
MEDIA = frozenset({
    "width", "height", "exif", "takenAt", "gps", "duration", "fps", "fpsRational", "nb_frames", "videoCodec", "audioCodec",
    "channels", "sampleRate", "mediaError",
})  # fmt: skip
