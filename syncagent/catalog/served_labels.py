"""What people and files say about items of a catalog behind a `syncagent serve`. See `catalog.labels`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter

from syncagent.catalog.base import Item
from syncagent.catalog.labels import Awaited, Change, Entry, Facts, Json, Stale, Taken
from syncagent.catalog.rest import Session

_BATCH = 1000
_ITEM = TypeAdapter(Item)
T = TypeVar("T")


class ServedLabels:
    """`LabelStore` over a server of ours: its operations of the same names, in batches."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, dataset: str, query: Mapping[str, Any] | None = None) -> Iterator[Item]:
        """See `LabelStore.find`. One request for 1,000 items."""
        after: str | None = None
        while True:
            told = self._ask(dataset, "find", query=query, after=after, limit=_BATCH)["items"]
            yield from map(_ITEM.validate_python, told)
            if len(told) < _BATCH:
                return
            after = told[-1]["id"]

    def at(self, dataset: str, keys: Sequence[str]) -> dict[str, Item]:
        """See `LabelStore.at`."""
        found = {}
        for batch in _batches(keys):
            for one in self._ask(dataset, "at", keys=batch)["items"]:
                found[one["key"]] = _ITEM.validate_python(one)
        return found

    def stems(self, dataset: str, stems: Sequence[str]) -> dict[str, list[Item]]:
        """See `LabelStore.stems`."""
        found: dict[str, list[Item]] = {}
        for batch in _batches(stems):
            for stem, items in self._ask(dataset, "stems", stems=batch)["items"].items():
                found[stem] = [_ITEM.validate_python(one) for one in items]
        return found

    def describe(self, dataset: str, changes: Sequence[Change], *, by: str | None = None) -> int:
        """See `LabelStore.describe`. Signed by the account."""
        done = (self._ask(dataset, "describe", changes=batch)["count"] for batch in _batches(changes))
        return sum(map(int, done))

    def annotations_of(self, dataset: str, items: Sequence[str]) -> dict[str, list[Json]]:
        """See `LabelStore.annotations_of`."""
        found: dict[str, list[Json]] = {}
        for batch in _batches(items):
            found.update(self._ask(dataset, "annotations_of", items=batch)["annotations"])
        return found

    def annotate(
        self, dataset: str, given: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], *, by: str | None = None
    ) -> list[list[str]]:
        """See `LabelStore.annotate`. All or none of each 1,000 items. Signed by the account."""
        made: list[list[str]] = []
        for batch in _batches(given):
            told = [[item, list(annotations)] for item, annotations in batch]
            made += self._ask(dataset, "annotate_items", given=told)["ids"]
        return made

    def unannotate(self, dataset: str, annotations: Sequence[str]) -> int:
        """See `LabelStore.unannotate`."""
        done = (
            self._ask(dataset, "unannotate", annotations=batch)["count"] for batch in _batches(annotations)
        )
        return sum(map(int, done))

    def labels(self, dataset: str) -> list[Json]:
        """See `LabelStore.labels`."""
        told: list[Json] = self._ask(dataset, "labels")["labels"]
        return told

    def add_labels(self, dataset: str, labels: Sequence[Mapping[str, Any]]) -> int:
        """See `LabelStore.add_labels`."""
        return int(self._ask(dataset, "add_labels", labels=list(labels))["count"])

    def unprobed(
        self, dataset: str, *, after: str | None = None, limit: int = 1000
    ) -> list[tuple[Item, str]]:
        """See `LabelStore.unprobed`."""
        told = self._ask(dataset, "unprobed", after=after, limit=min(limit, _BATCH))["items"]
        return [(_ITEM.validate_python(item), fingerprint) for item, fingerprint in told]

    def set_facts(self, dataset: str, facts: Sequence[Facts]) -> int:
        """See `LabelStore.set_facts`."""
        return sum(int(self._ask(dataset, "set_facts", facts=batch)["count"]) for batch in _batches(facts))

    def settings(self, dataset: str) -> Json:
        """See `LabelStore.settings`."""
        told: Json = self._ask(dataset, "settings")["settings"]
        return told

    def set_settings(self, dataset: str, settings: Mapping[str, Any]) -> None:
        """See `LabelStore.set_settings`."""
        self._ask(dataset, "set_settings", settings=dict(settings))

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
        given = {"prefix": prefix, "suffixes": list(suffixes), "after": after, "limit": min(limit, _BATCH)}
        return [Stale(*one) for one in self._ask(dataset, "stale", **given)["files"]]

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
        """See `LabelStore.take`. One request, however much the file says: it is one transaction."""
        given = {
            "file": file,
            "entries": [list(entry) for entry in entries],
            "overwrite": overwrite,
            "error": error,
            "awaited": awaited,
            "lists": lists,
        }
        told = self._ask(dataset, "take", **given)["taken"]
        if told is None:
            return None
        annotations, waiting, kept, ambiguous = told
        return Taken(annotations, waiting, kept, tuple(ambiguous))

    def wake(self, dataset: str, keys: Sequence[str] | None = None) -> list[str]:
        """See `LabelStore.wake`."""
        batches = [None] if keys is None else _batches(keys)
        return [key for batch in batches for key in self._ask(dataset, "wake", keys=batch)["files"]]

    def match(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """See `LabelStore.match`."""
        if keys is None:
            return int(self._ask(dataset, "match", keys=None)["count"])
        return sum(int(self._ask(dataset, "match", keys=batch)["count"]) for batch in _batches(keys))

    def _ask(self, dataset: str, operation: str, **body: Any) -> Any:
        return self._session.post(f"/syncagent/datasets/{dataset}/{operation}", body)


def _batches(things: Sequence[T]) -> list[Sequence[T]]:
    return [things[start : start + _BATCH] for start in range(0, len(things), _BATCH)]
