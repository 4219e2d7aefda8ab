"""Annotations: the platform's JSON, with what queries ask for most in columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from syncagent.catalog.filters import Query, parse_query
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.dql import compile_query
from syncagent.catalog.sql.items import Json, merged
from syncagent.catalog.wire import time
from syncagent.errors import InvalidInput, NotFound

# The server says these; what a client sends for them belongs to the item it copied from.
OURS = frozenset(
    (
        "id",
        "url",
        "itemId",
        "item",
        "dataset",
        "datasetId",
        "hash",
        "creator",
        "createdAt",
        "updatedAt",
        "updatedBy",
        "type",
        "label",
    )
)


class Annotations:
    """Annotations by id, by item and by query."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._db = catalog.db

    def add(self, item: str, annotations: Sequence[Mapping[str, Any]], *, by: str) -> list[Json]:
        """Add annotations to an item, all or none, in their order.

        :raises InvalidInput: one of them has no type or label; which one.
        :raises NotFound: no such item, or no such parent in it.
        """
        n, made = self._catalog.number_of(item), []
        with self._catalog.around(n):
            for position, annotation in enumerate(annotations):
                kind, label = annotation.get("type"), annotation.get("label")
                if not isinstance(kind, str) or not kind:
                    raise InvalidInput(f"annotation {position} has no type", resource=item)
                if not isinstance(label, str):
                    raise InvalidInput(f"annotation {position} has no label", resource=item)
                self._check_parent(n, 0, annotation)
                data = {name: value for name, value in annotation.items() if name not in OURS}
                given = {
                    "item": n, "data": json.dumps(data), "now": self._catalog.now(), "type": kind, "label": label,
                    "creator": by,
                }  # fmt: skip
                made.append(self._db.insert("annotate", given))
            self._db.change("count_annotations", {"item": n})
            return [self.get(self._catalog.public_id(number)) for number in made]

    def get(self, annotation: str) -> Json:
        """One annotation as the platform tells it.

        :raises NotFound: there is none.
        """
        for row in self._db.query("annotation", {"n": self._catalog.number_of(annotation)}):
            return self.told(row)
        raise NotFound(f"no annotation {annotation!r}", resource=annotation)

    def change(self, annotation: str, difference: Mapping[str, Any], *, by: str) -> Json:
        """Merge a difference: null removes a key, a list replaces.

        :raises InvalidInput: the new parent is the annotation itself, or below it.
        """
        n = self._catalog.number_of(annotation)
        with self._around(annotation):
            old = self.get(annotation)
            self._check_parent(self._catalog.number_of(old["itemId"]), n, difference)
            kept = {name: value for name, value in old.items() if name not in OURS}
            data = merged(kept, {name: value for name, value in difference.items() if name not in OURS})
            given = {
                "n": n, "data": json.dumps(data), "by": by, "now": self._catalog.now(),
                "type": difference.get("type") or old["type"], "label": difference.get("label") or old["label"],
            }  # fmt: skip
            self._db.change("write_annotation", given)
            self._db.change("edit_annotation", {"n": n})
        return self.get(annotation)

    def delete(self, annotation: str) -> None:
        """Forget one.

        :raises NotFound: there is none.
        """
        with self._around(annotation):
            item = self._catalog.number_of(self.get(annotation)["itemId"])
            self.delete_numbers([self._catalog.number_of(annotation)])
            self._db.change("count_annotations", {"item": item})

    def _around(self, annotation: str) -> AbstractContextManager[None]:
        """A transaction alone with the annotation's dataset."""
        return self._catalog.around(self._catalog.number_of(self.get(annotation)["itemId"]))

    def delete_numbers(self, numbers: Sequence[int]) -> None:
        """What came from a file goes to the trash, so that the file does not bring it back."""
        given = {"by_hand": 1, "now": self._catalog.now()}
        self._db.change_many("trash_annotation", [{**given, "n": n} for n in numbers])
        self._db.change_many("delete_annotation", [{"n": n} for n in numbers])

    def of(self, dataset: str, item: str, query: Mapping[str, Any] | None = None) -> list[Json]:
        """All annotations of an item, oldest first; those that a query finds, if one is given."""
        given = {
            "filter": {},
            "resource": "annotations",
            **(query or {}),
            "sort": {"id": "ascending"},
            "page": 0,
        }
        wanted: list[Any] = [given["filter"], {"$and": [{"itemId": item}]}]
        found: list[Json] = []
        while True:
            parsed = parse_query(
                {**given, "filter": {"$and": [one for one in wanted if one]}, "pageSize": 1000}
            )
            told, total = self.page(dataset, parsed)
            found += told
            if len(told) == total:
                return found
            wanted[2:] = [{"$and": [{"id": {"$gt": told[-1]["id"]}}]}]

    def page(self, dataset: str, query: Query) -> tuple[list[Json], int]:
        """One page of what a query finds in a dataset, and how many it finds in all."""
        compiled, given = self._compiled(dataset, query)
        total: int = self._db.sql(f"SELECT count(*) {self._from(compiled)}", given)[0][0]
        size = query.page_size
        if not size or not total:
            return [], total
        rows = self._db.sql(
            f"{_SELECT} {self._from(compiled)} ORDER BY {compiled.order_by} {self._db.dialect.limit(size, size * query.page)}",
            given,
        )
        return [self.told(row) for row in rows], total

    def delete_found(self, dataset: str, query: Query) -> int:
        """Forget everything that a query finds, whatever its page; returns how many."""
        compiled, given = self._compiled(dataset, query)
        with self._db.transaction(given["dataset"]):
            rows = self._db.sql(f"SELECT a.n, a.item {self._from(compiled)}", given)
            self.delete_numbers([n for n, _ in rows])
            self._db.change_many("count_annotations", [{"item": item} for item in {item for _, item in rows}])
        return len(rows)

    def _compiled(self, dataset: str, query: Query) -> tuple[Any, dict[str, Any]]:
        compiled = compile_query(query, stamp=self._catalog.stamp, dialect=self._db.dialect)
        return compiled, {**compiled.parameters, "dataset": self._catalog.source(dataset)["dataset"]}

    def _from(self, compiled: Any) -> str:
        return (
            "FROM annotation a JOIN dataset d ON d.n = a.dataset JOIN item live ON live.n = a.item"
            f" WHERE a.dataset = {self._db.dialect.parameter('dataset')} AND live.removed_at IS NULL AND ({compiled.where})"
        )

    def told(self, row: Sequence[Any]) -> Json:
        """The platform's JSON of a row of the statement `annotation`."""
        n, item, data, kind, label, creator, created, updated, updated_by, dataset = row
        told = json.loads(data)
        return {
            **told,
            "id": self._catalog.public_id(n),
            "itemId": self._catalog.public_id(item),
            "datasetId": dataset,
            "type": kind or told.get("type") or "undefined",
            "label": label or "",
            "creator": creator,
            "createdAt": time(created),
            "updatedAt": time(updated),
            "updatedBy": updated_by,
        }

    def _check_parent(self, item: int, annotation: int, told: Mapping[str, Any]) -> None:
        system = (
            (told.get("metadata") or {}).get("system") if isinstance(told.get("metadata"), Mapping) else None
        )
        parent = system.get("parentId") if isinstance(system, Mapping) else None
        seen = {annotation}
        while parent is not None:
            n = self._catalog.number_of(str(parent))
            rows = self._db.query("annotation", {"n": n})
            if not rows or rows[0][1] != item:
                raise NotFound(f"no annotation {parent!r} on the item to be a parent", resource=str(parent))
            if n in seen:
                raise InvalidInput("an annotation cannot be below itself", resource=str(parent))
            seen.add(n)
            above = json.loads(rows[0][2]).get("metadata") or {}
            parent = (above.get("system") or {}).get("parentId")


_SELECT = (
    "SELECT a.n, a.item, a.data, a.type, a.label, a.creator, a.created_at, a.updated_at, a.updated_by, d.id"
)
