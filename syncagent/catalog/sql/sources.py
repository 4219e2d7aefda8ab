"""Annotation and metadata files that are mirrored: what was taken of each, and what waits for its item."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from syncagent.catalog.base import Item
from syncagent.catalog.labels import Awaited, Entry, Stale, Taken, state_of
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Items, merged
from syncagent.catalog.wire import dumps

if TYPE_CHECKING:
    from syncagent.catalog.sql.labels import SqlLabels

_BATCH = 1000
_SMALL = 1 << 20  # bytes of a file that may be read once for each item that it waits for
_BY = "syncagent"


class Sources:
    """The part of `LabelStore` that is about mirrored files."""

    def __init__(self, catalog: SqlCatalog, labels: SqlLabels) -> None:
        self._catalog = catalog
        self._db = catalog.db
        self._labels = labels
        self._items = Items(catalog)

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
        given = {
            # No key holds a NUL, so that this is the first text after `after`.
            **self._catalog.source(dataset), "first": prefix if after is None else max(prefix, f"{after}\1"),
            "until": self._after(prefix), "suffixes": self._db.array(suffixes), "limit": limit,
        }  # fmt: skip
        return [Stale(*row) for row in self._db.query("stale", given)]

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
        """See `LabelStore.take`. A thousand entries in memory at a time."""
        source = self._catalog.source(dataset)
        with self._db.transaction(source["dataset"]):
            rows = self._db.query("source_row", {**source, "key": file.key})
            if not rows or rows[0][1] != file.fingerprint:
                return None
            number = rows[0][0]
            ambiguous: list[str] = []
            if awaited is not None:
                # Whoever made the item meanwhile found nothing that waits for it.
                ((state, several),) = self._states(dataset, [(awaited.key, awaited.stem, file.key)])
                if state != awaited.seen:
                    return None
                ambiguous += [awaited.key] * several
            noted = {
                "file": number, "dataset": source["dataset"], "fingerprint": file.fingerprint, "error": error,
                "now": self._catalog.now(), "awaited": awaited and awaited.key,
                "awaited_stem": awaited and int(awaited.stem), "seen": awaited and awaited.seen,
            }  # fmt: skip
            self._db.change("note_source", noted)
            if lists is not None:
                below = {"first": lists, "until": self._after(lists), "file": number}
                self._db.change("reread_below", {**source, **below})
            if error is not None:
                return Taken(ambiguous=tuple(ambiguous))
            self._forget_entries(number)
            seen: set[int] = set()
            kept, left = 0, iter(entries)
            while batch := list(islice(left, _BATCH)):
                items = self._add_entries(dataset, file.key, number, batch, ambiguous)
                kept += self._renew(number, items, batch, seen, overwrite=overwrite)
            kept += self._drop_elsewhere(number, overwrite=overwrite)
            return self._count(kept, number, ambiguous)

    def _count(self, kept: int, file: int, ambiguous: Sequence[str]) -> Taken:
        ((annotations,),) = self._db.query("annotations_of_file", {"file": file})
        ((waiting,),) = self._db.query("entries_waiting", {"file": file})
        return Taken(annotations, waiting, kept, tuple(ambiguous))

    def _forget_entries(self, file: int) -> None:
        for _, _, _, item, user in self._db.query("entries_of", {"file": file}):
            if item is not None and user:
                self._take_back(item, json.loads(user))
        self._db.change("drop_entries", {"file": file})

    def _add_entries(
        self, dataset: str, key: str, file: int, entries: Sequence[Entry], ambiguous: list[str]
    ) -> list[int | None]:
        """Note what the file says; returns each entry's item. Stems that name several items go to `ambiguous`."""
        named = self._named(dataset, [(entry.key, entry.stem, key) for entry in entries])
        rows, items = [], []
        for entry, found in zip(entries, named, strict=True):
            if len(found) > 1:
                ambiguous.append(entry.key)
            item = found[0] if len(found) == 1 else None
            n = self._catalog.number_of(item.id) if item is not None else None
            items.append(n)
            rows.append({
                "file": file, "dataset": self._catalog.source(dataset)["dataset"], "key": entry.key,
                "stem": int(entry.stem), "item": n,
                "annotations": dumps(list(entry.annotations)) if n is None else None,
                "user": json.dumps(dict(entry.user)) if entry.user else None,
            })  # fmt: skip
            if item is not None and entry.user:
                self._items.change(item.id, by=_BY, user=entry.user)
        self._db.change_many("add_entry", rows)
        return items

    def _named(self, dataset: str, names: Sequence[tuple[str, bool, str]]) -> list[list[Item]]:
        """The items that names in files may mean: each is told with whether it lacks an extension, and its file's key."""
        # Once each: an item of a stem that is asked for twice would be two.
        whole = self._labels.at(dataset, [*dict.fromkeys(key for key, stem, _ in names if not stem)])
        of_stems = self._labels.stems(dataset, [*dict.fromkeys(key for key, stem, _ in names if stem)])
        return [
            _media([one for one in of_stems.get(key, []) if one.key != file])
            if stem
            else [whole[one] for one in (key,) if one in whole]
            for key, stem, file in names
        ]

    def _states(self, dataset: str, names: Sequence[tuple[str, bool, str]]) -> list[tuple[str | None, bool]]:
        """As `Awaited.seen` tells them, and whether there are several."""
        return [
            (state_of(found[0]) if len(found) == 1 else None, len(found) > 1)
            for found in self._named(dataset, names)
        ]

    def _take_back(self, item: int, user: Mapping[str, Any]) -> None:
        """Remove metadata that a file gave, unless people changed it since."""
        for now, *_ in self._db.query("item_metadata", {"n": item}):
            current = json.loads(now)
            gone = {name: None for name, value in user.items() if name in current and current[name] == value}
            if gone:
                given = {"user": json.dumps(merged(current, gone)), "item": item}
                self._db.change("change_user_metadata", given)

    def _renew(
        self,
        file: int,
        items: Sequence[int | None],
        entries: Sequence[Entry],
        seen: set[int],
        *,
        overwrite: bool,
    ) -> int:
        """Make the file's annotations of some items those of its entries, keeping the numbers of records that stay.

        :param seen: items that an earlier entry of the file was about; grows. What that gave them stays.
        Returns how many records were left as people have them.
        """
        told: dict[int, list[Mapping[str, Any]]] = {}
        for item, entry in zip(items, entries, strict=True):
            if item is not None:
                told.setdefault(item, []).extend(entry.annotations)
        wanted = Counter((item, origin_of(one)) for item, mine in told.items() for one in mine)
        kept: Counter[tuple[int, str]] = Counter()
        old: dict[tuple[int, str], list[int]] = defaultdict(list)
        gone = []
        first = self._db.array(item for item in told if item not in seen)
        for n, item, origin, edited in self._db.query("annotations_from", {"file": file, "items": first}):
            record = (item, origin)
            if edited and not overwrite:
                kept[record] += 1
            elif wanted[record] > len(old[record]) + kept[record]:
                old[record].append(n)
            else:
                gone.append(n)
        renewed = [n for numbers in old.values() for n in numbers]
        for n, item, origin, by_hand in self._db.query(
            "trashed_from", {"file": file, "items": self._db.array(told)}
        ):
            record = (item, origin)
            if not wanted[record]:
                if by_hand and item not in seen:  # deleted by people, and now by the file too
                    self._db.change("untrash_annotation", {"n": n})
            elif by_hand and not overwrite:
                kept[record] += 1
            elif wanted[record] > len(old[record]) + kept[record]:
                self._db.change("untrash_annotation", {"n": n})
                old[record].append(n)
        self._discard(gone)
        self._db.change_many("delete_annotation", [{"n": n} for n in renewed])
        left, fresh = Counter(kept), []
        for item, mine in told.items():
            added = []
            for one in mine:
                record = (item, origin_of(one))
                if left[record] > 0:
                    left[record] -= 1
                else:
                    added.append(one)
            fresh.append((item, added))
        self._labels.insert(fresh, by=_BY, file=file, reuse=old)
        self._db.change("count_annotations_of", {"items": self._db.array(told)})
        seen.update(told)
        return sum(kept.values())

    def _drop_elsewhere(self, file: int, *, overwrite: bool) -> int:
        """Take back what the file gave to items that it does not tell of any more; returns what people keep of that."""
        rows = self._db.query("annotations_elsewhere", {"file": file})
        gone = [n for n, _, edited in rows if overwrite or not edited]
        self._discard(gone)
        self._db.change(
            "count_annotations_of", {"items": self._db.array(sorted({item for _, item, _ in rows}))}
        )
        return len(rows) - len(gone)

    def _discard(self, annotations: Sequence[int]) -> None:
        given = {"by_hand": 0, "now": self._catalog.now()}
        self._db.change_many("trash_annotation", [{**given, "n": n} for n in annotations])
        self._db.change_many("delete_annotation", [{"n": n} for n in annotations])

    def wake(self, dataset: str, keys: Sequence[str] | None = None) -> list[str]:
        """See `LabelStore.wake`."""
        given: dict[str, Any] = {"dataset": self._catalog.source(dataset)["dataset"], "after": "", "n": 0}
        name, found = "awaiting", list[str]()
        if keys is not None:
            given["keys"] = self._db.array([*keys, *(stem_of(key) for key in keys)])
            name = "awaiting_of"
        while True:
            with self._db.transaction(given["dataset"]):
                rows = self._db.query(name, given)
                now = self._states(dataset, [(key, bool(stem), file) for _, file, _, key, stem, _ in rows])
                woken = [
                    row for row, (state, _) in zip(rows, now, strict=True) if state not in {None, row[-1]}
                ]
                self._db.change_many("wake", [{"file": n} for n, *_ in woken])
            if keys is not None:
                found += [file for _, file, size, *_ in woken if size <= _SMALL]
            if len(rows) < _BATCH:
                return found
            given |= {"after": rows[-1][3], "n": rows[-1][0]}

    def match(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """See `LabelStore.match`."""
        source, found = self._catalog.source(dataset), 0
        given, name = dict[str, Any](source), "waiting"
        if keys is not None:
            given, name = {**source, "keys": self._db.array(keys)}, "waiting_for"
        while True:
            with self._db.transaction(source["dataset"]):
                rows = self._db.query(name, given)
                for n, file, told, user, item in rows:
                    self._give(n, file, item, told, user)
            found += len(rows)
            if len(rows) < _BATCH:
                break
        return found + self._match_stems(dataset, keys)

    def _match_stems(self, dataset: str, keys: Sequence[str] | None) -> int:
        found, after = 0, ""
        number = self._catalog.source(dataset)["dataset"]
        given: dict[str, Any] = {"dataset": number}
        if keys is not None:
            given["keys"] = self._db.array([*keys, *(stem_of(key) for key in keys)])
        while True:
            with self._db.transaction(number):
                name = "waiting_stems" if keys is None else "waiting_stems_of"
                stems = [stem for (stem,) in self._db.query(name, {**given, "after": after})]
                for stem, items in self._labels.stems(dataset, stems).items():
                    for n, file, told, user in self._db.query(
                        "waiting_of_stem", {"dataset": number, "key": stem}
                    ):
                        others = _media([one for one in items if self._catalog.number_of(one.id) != file])
                        if len(others) == 1:
                            self._give(n, file, self._catalog.number_of(others[0].id), told, user)
                            found += 1
            if len(stems) < _BATCH:
                return found
            after = stems[-1]

    def _after(self, prefix: str) -> Any:
        """The first value after all texts that begin with `prefix`."""
        last = ord(prefix[-1]) + 1 if prefix else 0x110000
        if last == 0x110000:
            return self._db.last_text
        return prefix[:-1] + chr(0xE000 if last == 0xD800 else last)

    def _give(self, n: int, file: int, item: int, told: str | None, user: str | None) -> None:
        self._labels.insert([(item, json.loads(told or "[]"))], by=_BY, file=file)
        if user:
            self._items.change(self._catalog.public_id(item), by=_BY, user=json.loads(user))
        self._db.change("matched", {"n": n, "item": item})


def origin_of(annotation: Mapping[str, Any]) -> str:
    """Names a record of a file: its own id, or its content."""
    if isinstance(name := annotation.get("id"), str) and name:
        return name
    return hashlib.sha256(json.dumps(annotation, sort_keys=True).encode()).hexdigest()[:32]


def stem_of(key: str) -> str:
    """A key without its last extension."""
    folder, slash, name = key.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return f"{folder}{slash}{stem if dot else name}"


def _media(found: list[Item]) -> list[Item]:
    """The pictures, videos and sounds among some items, if there are any."""
    return [one for one in found if one.mimetype.split("/")[0] in {"image", "video", "audio"}] or found
