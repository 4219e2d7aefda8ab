"""The contract of what people and files say about items: metadata, annotations, labels.

`Store.labels` gives it for every catalog. JSON is the platform's. A catalog's is right when `tests/contract/test_labels.py` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from syncagent.catalog.base import Item

Json = dict[str, Any]


class Change(NamedTuple):
    """Metadata to be merged into an item: null removes a key, a list replaces."""

    item: str
    """The item's id."""
    user: Mapping[str, Any] | None = None
    system: Mapping[str, Any] | None = None
    """What the bucket tells (size, etag …) is not taken from here."""
    description: str | None = None


class Facts(NamedTuple):
    """What the bytes of an object say of it."""

    item: str
    fingerprint: str
    """Of the write of the object that was looked at. Facts of an older one than the item's are dropped."""
    system: Mapping[str, Any]
    """For ``metadata.system``."""
    mimetype: str | None = None


class Entry(NamedTuple):
    """What a mirrored file says about one item."""

    key: str
    """Of the item; it may come later than the file."""
    stem: bool
    """`key` lacks the item's extension."""
    annotations: Sequence[Mapping[str, Any]] = ()
    user: Mapping[str, Any] = {}


class Stale(NamedTuple):
    """A file whose last write was not taken yet."""

    key: str
    fingerprint: str | None
    """None: it is gone."""


class Awaited(NamedTuple):
    """The item without which a file cannot be read: the size of its picture, say, is not known."""

    key: str
    stem: bool
    """`key` lacks the item's extension."""
    seen: str | None
    """Its `state_of` when the file was tried; None: there was none, or there were several."""


class Taken(NamedTuple):
    """What became of a file's entries."""

    annotations: int = 0
    """That its items have from it now."""
    waiting: int = 0
    """Entries whose item is not there yet."""
    kept: int = 0
    """Records left as people made them, or left deleted."""
    ambiguous: tuple[str, ...] = ()
    """Names without extension that several items share."""


class LabelStore(Protocol):
    """Items by key and by query, their metadata, annotations and recipe. `dataset` is a `Dataset.id`.

    :raises NotFound: no such dataset, or an id of none of its items.
    """

    # -- items
    def find(self, dataset: str, query: Mapping[str, Any] | None = None) -> Iterator[Item]:
        """Files that a query of the platform finds (None: all), oldest first, whatever its page."""
        ...

    def at(self, dataset: str, keys: Sequence[str]) -> dict[str, Item]:
        """Live items of some keys; those that there are none of are left out."""
        ...

    def stems(self, dataset: str, stems: Sequence[str]) -> dict[str, list[Item]]:
        """Live items whose key is a stem, or a stem and one extension; pictures, videos and sounds first."""
        ...

    def describe(self, dataset: str, changes: Sequence[Change], *, by: str | None = None) -> int:
        """Merge metadata; returns how many items were there to be changed."""
        ...

    # -- annotations
    def annotations_of(self, dataset: str, items: Sequence[str]) -> dict[str, list[Json]]:
        """Annotations of some items by the item's id, oldest first; items without any are left out."""
        ...

    def annotate(
        self, dataset: str, given: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], *, by: str | None = None
    ) -> list[list[str]]:
        """Add annotations to items, all or none; returns their ids.

        A ``parentId`` may name the ``id`` of another annotation of the same item in here. Annotations are whatever `wire.dumps` writes.
        """
        ...

    def unannotate(self, dataset: str, annotations: Sequence[str]) -> int:
        """Remove annotations by id; returns how many there were."""
        ...

    # -- the recipe
    def labels(self, dataset: str) -> list[Json]:
        """The recipe's labels, parents first: ``tag`` (levels joined with dots), ``color``, ``attributes`` …"""
        ...

    def add_labels(self, dataset: str, labels: Sequence[Mapping[str, Any]]) -> int:
        """Add those whose ``tag`` is not there yet, with their parents; returns how many. Others are left as they are."""
        ...

    # -- facts
    def unprobed(
        self, dataset: str, *, after: str | None = None, limit: int = 1000
    ) -> list[tuple[Item, str]]:
        """Files whose object was written since it was probed, oldest first, after an item's id, with the fingerprint."""
        ...

    def set_facts(self, dataset: str, facts: Sequence[Facts]) -> int:
        """Note facts of objects that are still the same; returns how many were."""
        ...

    # -- mirrored files
    def settings(self, dataset: str) -> Json:
        """What the dataset says about its own files; see `ingest.follow`."""
        ...

    def set_settings(self, dataset: str, settings: Mapping[str, Any]) -> None:
        """Replace it."""
        ...

    def stale(
        self,
        dataset: str,
        prefix: str,
        suffixes: Sequence[str],
        *,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[Stale]:
        """Files below a prefix that were written, or that went, since `take`; in byte order."""
        ...

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
        """Make annotations and metadata that come from a file equal to what it says now; one transaction.

        Records that people changed or deleted stay so, unless `overwrite`. Entries wait for items that are not there.
        With `error` the file could not be read: what was taken from it stays, and it is not tried again until it changes,
        or until `wake` finds that `awaited` did.
        With `lists` the file says how others are read whose keys begin so: those are stale then.
        None: the file was written again meanwhile, or `awaited` is another than was seen; nothing was done.
        """
        ...

    def wake(self, dataset: str, keys: Sequence[str] | None = None) -> list[str]:
        """Make files stale whose `awaited` item came or changed since they were tried (None: look at all of them).

        Returns those that are worth reading at an event: they wait for one of `keys`, and are not large.
        """
        ...

    def match(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Give waiting entries to items that came (None: look at all of them); returns how many found theirs."""
        ...


def state_of(item: Item) -> str:
    """Differs when the item, its object or its noted size is another."""
    # Not its revision, which an event of an object that is still the same raises, too.
    told = (
        item.id,
        item.etag,
        item.version,
        item.modified,
        item.size,
        *map(item.system.get, ("width", "height")),
    )
    return json.dumps(told)


def stable_color(tag: str) -> str:
    """A colour that is the same for the same label everywhere."""
    number = 0
    for character in tag:
        number = (number * 31 + ord(character)) & 0xFFFFFF
    return f"#{number:06x}"
