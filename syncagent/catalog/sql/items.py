"""Items as the platform knows them: found by id, queried, changed by people.

Where an item's bytes are (`Item.storage`):

- None: it mirrors the object at its key. Only the reconciler writes its facts.
- ``key:KEY``: the object KEY of the same driver. The item was imported or moved under another path.
- ``file:SHA256``: in `Files`, beside the catalog.
- ``dir``: nowhere, it is a folder that a person made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from syncagent.catalog.base import Item
from syncagent.catalog.filters import Query
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.dql import compile_query
from syncagent.catalog.sql.types import mimetype
from syncagent.errors import AlreadyExists, NotFound

Json = dict[str, Any]


def merged(old: Mapping[str, Any], change: Mapping[str, Any]) -> Json:
    """`change` laid over `old`: objects are merged, null removes, everything else replaces."""
    result = dict(old)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            below = result.get(name)
            result[name] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[name] = value
    return result


class Items:
    """Items by id and by query. Shares the catalog's connection."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._db = catalog.db

    # -- reading ---------------------------------------------------------------------------------

    def get(self, item: str, *, trashed: bool = False) -> Item:
        """One item by its id.

        :raises NotFound: there is none, or (unless `trashed`) it is in the trash.
        """
        for dataset, *row in self._db.query("item_by_number", {"n": self._catalog.number_of(item)}):
            found = self._catalog.item_of(dataset, row)
            if trashed or found.removed_at is None:
                return found
        raise NotFound(f"no item {item!r}", resource=item)

    def at(self, dataset: str, key: str) -> Item | None:
        """The live item of a path (a `filename` without its first slash), or None."""
        for row in self._db.query("item", {**self._catalog.source(dataset), "key": key}):
            found = self._catalog.item_of(dataset, row)
            return found if found.removed_at is None else None
        return None

    def page(self, dataset: str, query: Query) -> tuple[list[Item], int]:
        """One page of what a query finds, and how many it finds in all."""
        source, compiled = self._catalog.source(dataset), self._compiled(query)
        given = {**compiled.parameters, **source}
        counted = self._from(compiled)
        if query.join is not None:
            # Few items have a given label: their numbers are looked up, rather than all items walked.
            counted = self._db.dialect.by_number(counted)
        elif set(re.findall(r"\bi\.(\w+)", compiled.where)) <= _COVERED:
            counted = self._db.dialect.covered(counted)
        total: int = self._db.sql(f"SELECT count(*) {counted}", given)[0][0]
        size = query.page_size
        if not size or not total:
            return [], total
        rows = self._db.sql(
            f"SELECT i.n {self._from(compiled, compiled.order_by)} ORDER BY {compiled.order_by} {self._db.dialect.limit(size, size * query.page)}",
            given,
        )
        return self.numbered([n for (n,) in rows]), total

    def all(self, dataset: str, query: Query) -> Iterator[Item]:
        """Everything that a query finds, whatever its page, oldest first. What is found may be changed meanwhile."""
        compiled = self._compiled(query)
        given = {**compiled.parameters, **self._catalog.source(dataset), "_after": 0}
        statement = f"SELECT i.n {self._from(compiled)} AND i.n > {self._db.dialect.parameter('_after')} ORDER BY i.n LIMIT 1000"
        while rows := self._db.sql(statement, given):
            given["_after"] = rows[-1][0]
            yield from self.numbered([n for (n,) in rows])

    def _compiled(self, query: Query) -> Any:
        return compile_query(query, stamp=self._catalog.stamp, dialect=self._db.dialect)

    def _from(self, compiled: Any, order: str = "") -> str:
        # All rows of a dataset have its driver. Saying so helps where keys are searched or sorted, and keeps SQLite
        # from the indexes by type and by number elsewhere.
        told = self._db.dialect.parameter
        driver = f" AND i.driver = {told('driver')}" if "i.key" in compiled.where + order else ""
        joins = " LEFT JOIN item_metadata m ON m.item = i.n" if compiled.needs_metadata else ""
        return f"FROM item i{joins} WHERE i.dataset = {told('dataset')}{driver} AND i.removed_at IS NULL AND ({compiled.where})"

    def numbered(self, numbers: Sequence[int]) -> list[Item]:
        """Items by the numbers of their rows, in that order, those in the trash included; what is gone is left out."""
        rows = self._db.query("items_by_number", {"numbers": self._db.array(numbers)})
        found = {row[1]: self._catalog.item_of(row[0], row[1:]) for row in rows}
        return [found[n] for n in numbers if n in found]

    # -- what people change ----------------------------------------------------------------------

    def place(
        self,
        dataset: str,
        key: str,
        *,
        storage: str,
        by: str,
        size: int = 0,
        fingerprint: str | None = None,
        content_id: str | None = None,
        content_type: str | None = None,
        modified: str = "",
    ) -> Item:
        """Make (or overwrite) an item that mirrors no object at its key. Id and annotations stay."""
        folder = storage == "dir"
        given = {
            **self._catalog.source(dataset), "key": key, "now": self._catalog.now(), "creator": by, "size": size,
            "fingerprint": fingerprint, "content_id": content_id, "modified": modified, "storage": storage,
            "type": "dir" if folder else "file",
            "content_type": None if folder else mimetype(key, content_type),
        }  # fmt: skip
        with self._db.transaction(self._catalog.source(dataset)["dataset"]):
            self._db.change("place", given)
            found = self.at(dataset, key)
        assert found is not None  # noqa: S101  # written in this transaction
        return found

    def change(
        self,
        item: str,
        *,
        by: str,
        user: Mapping[str, Any] | None = None,
        system: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> Item:
        """Merge metadata: null removes a key, a list replaces. What the bucket tells is not taken from `system`."""
        n = self._catalog.number_of(item)
        with self._catalog.around(n):
            self.get(item)
            old: list[Any] = [None, None, None]
            for row in self._db.query("item_metadata", {"n": n}):
                old = list(row)
            told = {name: value for name, value in (system or {}).items() if name not in FACTS}
            given = {
                "user": json.dumps(merged(json.loads(old[0] or "{}"), user or {})),
                "system": json.dumps(merged(json.loads(old[1] or "{}"), told)),
                "description": old[2] if description is None else description or None,
            }
            self._db.change("write_metadata", {"n": n, **given})
            self._db.change("sign_item", {"n": n, "by": by, "now": self._catalog.now()})
        return self.get(item)

    def dismiss(self, item: str, *, by: str) -> None:
        """Move an item to the trash because a person says so; its object may stay, and does not bring it back."""
        n = self._catalog.number_of(item)
        if not self._db.change("dismiss", {"n": n, "now": self._catalog.now(), "by": by}):
            raise NotFound(f"no item {item!r}", resource=item)

    def rename(self, item: str, key: str, *, by: str) -> Item:
        """Another path for an item. Its bytes stay where they are.

        :raises AlreadyExists: an item has that path.
        """
        n = self._catalog.number_of(item)
        with self._catalog.around(n):
            self._db.query("hold_item", {"n": n})
            found = self.get(item)
            if found.key == key:
                return found
            if self.at(found.dataset, key) is not None:
                raise AlreadyExists(
                    f"there is an item /{key} already", resource=key, hint="choose another name"
                )
            source = self._catalog.source(found.dataset)
            given = {**source, "n": n, "key": key, "old": found.key, "now": self._catalog.now(), "by": by}
            self._db.change("clear_path", given)
            self._db.change("rename", {**given, "storage": found.storage or f"key:{found.key}"})
            if found.storage is None:
                self._db.change("leave_known", given)
        return self.get(item)


# Columns of the index `item_type`.
_COVERED = frozenset({"content_type", "type", "hidden"})
# What `metadata.system` tells of the object itself: the mirror's to write.
FACTS = frozenset({"size", "mimetype", "originalname", "etag", "version", "modified", "storageClass"})
