"""What people and files say about items on the Dataloop platform. See `catalog.labels`.

The platform takes metadata and annotations item by item. It has no place for facts of a write and for files that wait for
their items, so those operations are not offered there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from syncagent.catalog.base import Item
from syncagent.catalog.labels import Awaited, Change, Entry, Facts, Json, Stale, Taken
from syncagent.catalog.rest import Session
from syncagent.errors import NotFound, Unsupported
from syncagent.workers import each

_IN = 100
"""Names in one query."""
_ANNOTATIONS = 100
"""What the platform's own client sends at once."""
_CONCURRENT = 8
T = TypeVar("T")
R = TypeVar("R")


class DataloopLabels:
    """`LabelStore` over the platform's REST API.

    :param pages: everything that a query finds; :param item: an item of its JSON.
    """

    def __init__(
        self,
        session: Session,
        pages: Callable[[str, Json], Iterator[Json]],
        item: Callable[[Json, str], Item],
    ) -> None:
        self._session, self._pages, self._item = session, pages, item

    def find(self, dataset: str, query: Mapping[str, Any] | None = None) -> Iterator[Item]:
        """See `LabelStore.find`."""
        given = query or {"filter": {"$and": [{"type": "file"}]}}
        for told in self._pages(f"/datasets/{dataset}/query", {**given, "resource": "items"}):
            yield self._item(told, dataset)

    def at(self, dataset: str, keys: Sequence[str]) -> dict[str, Item]:
        """See `LabelStore.at`."""
        found, wanted = {}, set(keys)
        plain = [f"/{key}" for key in keys if "*" not in key]
        asked: list[list[Json]] = [
            [{"filename": {"$in": plain[start : start + _IN]}}] for start in range(0, len(plain), _IN)
        ]
        # A star would be read as a pattern, and a range does not.
        asked += [
            [{"filename": {"$gte": f"/{key}"}}, {"filename": {"$lte": f"/{key}"}}]
            for key in keys
            if "*" in key
        ]
        for conditions in asked:
            for item in self.find(dataset, {"filter": {"$and": [{"type": "file"}, *conditions]}}):
                if item.key in wanted:
                    found[item.key] = item
        return found

    def stems(self, dataset: str, stems: Sequence[str]) -> dict[str, list[Item]]:
        """See `LabelStore.stems`. A query for each: the platform cannot be asked for several ranges at once."""

        def of(stem: str) -> list[Item]:
            bounds: list[Json] = [{"filename": {"$gt": f"/{stem}."}}, {"filename": {"$lt": f"/{stem}/"}}]
            items = list(self.find(dataset, {"filter": {"$and": [{"type": "file"}, *bounds]}}))
            whole = self.at(dataset, [stem])
            kept = [
                one
                for one in items
                if "." not in one.key[len(stem) + 1 :] and "/" not in one.key[len(stem) + 1 :]
            ]
            media = {"image", "video", "audio"}
            return sorted(
                [*whole.values(), *kept], key=lambda one: (one.mimetype.split("/")[0] not in media, one.key)
            )

        return {stem: items for stem, items in zip(stems, self._each(of, stems), strict=True) if items}

    def describe(self, dataset: str, changes: Sequence[Change], *, by: str | None = None) -> int:
        """See `LabelStore.describe`."""

        def change(one: Change) -> bool:
            metadata = {
                name: dict(told) for name, told in (("user", one.user), ("system", one.system)) if told
            }
            body: Json = {"metadata": metadata} if metadata else {}
            if one.description is not None:
                body["description"] = one.description
            try:
                self._session.call("PATCH", f"/items/{one.item}", body)
            except NotFound:
                return False
            return True

        return sum(self._each(change, changes))

    def annotations_of(self, dataset: str, items: Sequence[str]) -> dict[str, list[Json]]:
        """See `LabelStore.annotations_of`."""
        found: dict[str, list[Json]] = {}
        for start in range(0, len(items), _IN):
            query = {
                "filter": {"$and": [{"itemId": {"$in": list(items[start : start + _IN])}}]}, "resource": "annotations"
            }  # fmt: skip
            for told in self._pages(f"/datasets/{dataset}/query", query):
                found.setdefault(told["itemId"], []).append(told)
        return found

    def annotate(
        self, dataset: str, given: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], *, by: str | None = None
    ) -> list[list[str]]:
        """See `LabelStore.annotate`. All or none of each 100 annotations; parents before what is below them."""
        return self._each(lambda one: self._annotate(*one), given)

    def _annotate(self, item: str, annotations: Sequence[Mapping[str, Any]]) -> list[str]:
        ids: dict[int, str] = {}
        names: dict[str, str] = {}
        left = list(enumerate(annotations))
        mine = {one.get("id") for one in annotations} - {None}
        while left:
            ready = [(n, one) for n, one in left if _parent(one) not in mine or _parent(one) in names][
                :_ANNOTATIONS
            ]
            if not ready:
                raise Unsupported("annotations below each other in a circle", resource=item)
            told = self._session.post(f"/items/{item}/annotations", [_below(one, names) for _, one in ready])
            for (n, one), made in zip(ready, told, strict=True):
                ids[n] = made["id"]
                if one.get("id"):
                    names[one["id"]] = made["id"]
            done = {n for n, _ in ready}
            left = [pair for pair in left if pair[0] not in done]
        return [ids[n] for n in range(len(annotations))]

    def unannotate(self, dataset: str, annotations: Sequence[str]) -> int:
        """See `LabelStore.unannotate`."""

        def remove(one: str) -> bool:
            try:
                self._session.call("DELETE", f"/annotations/{one}", {})
            except NotFound:
                return False
            return True

        return sum(self._each(remove, annotations))

    def labels(self, dataset: str) -> list[Json]:
        """See `LabelStore.labels`."""
        return list(_flat(self._ontology(dataset).get("roots") or []))

    def add_labels(self, dataset: str, labels: Sequence[Mapping[str, Any]]) -> int:
        """See `LabelStore.add_labels`."""
        ontology = self._ontology(dataset)
        known = {one["tag"] for one in _flat(ontology.get("roots") or [])}
        nodes = [dict(one) for one in labels if one.get("tag") not in known]
        if nodes:
            body = {"labelsNode": nodes, "upsert": True}
            self._session.call("PATCH", f"/ontologies/{ontology['id']}/labels", body)
        return len(nodes)

    def _ontology(self, dataset: str) -> Json:
        told = self._session.get(f"/datasets/{dataset}")
        recipes = ((told.get("metadata") or {}).get("system") or {}).get("recipes") or []
        for recipe in recipes[:1]:
            for ontology in self._session.get(f"/recipes/{recipe}").get("ontologyIds") or []:
                found: Json = self._session.get(f"/ontologies/{ontology}")
                return found
        raise NotFound(
            f"dataset {told.get('name')!r} has no recipe",
            resource=dataset,
            hint="give it one on the web page",
        )

    def unprobed(
        self, dataset: str, *, after: str | None = None, limit: int = 1000
    ) -> list[tuple[Item, str]]:
        """Not offered: the platform finds out itself."""
        _elsewhere("facts of media")

    def set_facts(self, dataset: str, facts: Sequence[Facts]) -> int:
        """Not offered."""
        _elsewhere("facts of media")

    def settings(self, dataset: str) -> Json:
        """None: see `take`."""
        return {}

    def set_settings(self, dataset: str, settings: Mapping[str, Any]) -> None:
        """Not offered."""
        _elsewhere("annotation files that are mirrored")

    def stale(
        self,
        dataset: str,
        prefix: str,
        suffixes: Sequence[str],
        *,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[Stale]:
        """Not offered."""
        _elsewhere("annotation files that are mirrored")

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
        """Not offered."""
        _elsewhere("annotation files that are mirrored")

    def wake(self, dataset: str, keys: Sequence[str] | None = None) -> list[str]:
        """None: nothing waits."""
        return []

    def match(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """None: nothing waits."""
        return 0

    def _each(self, work: Callable[[T], R], things: Sequence[T]) -> list[R]:
        return list(each(work, things, _CONCURRENT, name="syncagent-labels"))


def _elsewhere(what: str) -> NoReturn:
    raise Unsupported(
        f"the platform has no place for {what}",
        hint="use a catalog of your own: sqlite://, or syncagent serve",
    )


def _system(annotation: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = annotation.get("metadata")
    system = metadata.get("system") if isinstance(metadata, Mapping) else None
    return system if isinstance(system, Mapping) else {}


def _parent(annotation: Mapping[str, Any]) -> Any:
    return _system(annotation).get("parentId")


def _below(annotation: Mapping[str, Any], names: Mapping[str, str]) -> Json:
    told = {name: value for name, value in annotation.items() if name != "id"}
    if (parent := _parent(annotation)) in names:
        system = {**_system(annotation), "parentId": names[parent]}
        told["metadata"] = {**told["metadata"], "system": system}
    return told


def _flat(roots: Sequence[Json], above: str = "") -> Iterator[Json]:
    for node in roots:
        tag = f"{above}{node['value']['tag']}"
        yield {**node["value"], "tag": tag}
        yield from _flat(node.get("children") or [], f"{tag}.")
