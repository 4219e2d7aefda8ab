"""The contract of a catalog.

`Catalog` is what the reconciler needs and no more. `Store` adds what the embedded catalog keeps
beside it: integrations, drivers, datasets, items, runs, quarantine and trash.

A catalog is right when `tests/contract/test_catalog.py` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from syncagent.errors import Conflict
from syncagent.model import DriverSpec, Integration, ObjectInfo, Report, Row, Settle
from syncagent.pages import last_key

if TYPE_CHECKING:
    from syncagent.catalog.labels import LabelStore
    from syncagent.digest import Digest


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named set of items mirrored from one driver."""

    id: str
    """24 hexadecimal digits."""
    name: str
    driver: DriverSpec
    created_at: str


@dataclass(frozen=True, slots=True)
class Item:
    """One item, with everything that a person or the platform's API wants to know of it."""

    id: str
    """24 hexadecimal digits, the same for the life of the item, also across overwrites and moves."""
    dataset: str
    key: str
    """The external path without ``external://``; `filename` is ``/`` plus this."""
    size: int
    mimetype: str
    etag: str | None
    version: str | None
    content_id: str | None
    storage_class: str | None
    modified: str
    created_at: str
    removed_at: str | None
    """When it went to the trash, or None."""
    rev: int
    annotations: int
    changed_since_annotated: bool
    user: Mapping[str, Any] = field(default_factory=dict)
    type: str = "file"
    """``file`` or ``dir``."""
    hidden: bool = False
    storage: str | None = None
    """Where the bytes are: None for a mirrored object, else as `Items` says."""
    creator: str | None = None
    updated_at: str = ""
    updated_by: str | None = None
    description: str | None = None
    system: Mapping[str, Any] = field(default_factory=dict)
    """``metadata.system`` beyond the facts above."""

    @property
    def filename(self) -> str:
        """The platform's name for the item."""
        return "/" + self.key

    def to_json(self) -> dict[str, Any]:
        """The platform's item JSON, as far as a mirrored object fills it."""
        directory, _, name = self.filename.rpartition("/")
        return {
            "id": self.id,
            "datasetId": self.dataset,
            "filename": self.filename,
            "dir": directory or "/",
            "name": name,
            "type": self.type,
            "hidden": self.hidden,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at or self.created_at,
            "creator": self.creator,
            "updatedBy": self.updated_by,
            "description": self.description,
            "annotationsCount": self.annotations,
            "changedSinceAnnotated": self.changed_since_annotated,
            "metadata": {
                "system": {
                    **self.system,
                    "size": self.size,
                    "mimetype": self.mimetype,
                    "originalname": name,
                    "etag": self.etag,
                    "version": self.version,
                    "modified": self.modified,
                    "storageClass": self.storage_class,
                },
                "user": dict(self.user),
            },
        }


Ranges = Sequence[tuple[str | None, str | None]]
"""Parts of the key space, by an exclusive and an inclusive bound; None for the beginning, and for the end."""


@dataclass(frozen=True, slots=True)
class Run:
    """One sweep, running or past."""

    number: int
    dataset: str
    state: str
    """``running``, ``done``, ``failed``, ``refused``, ``interrupted`` or ``resumed`` (by a later run)."""
    holder: str
    """``host:pid`` of the process that runs or ran it."""
    started_at: str
    ended_at: str | None
    cursor: str | None
    """The last key whose page was worked off."""
    report: Report
    error: str | None
    origin: int
    """The run that began this listing; differs from `number` when resumed."""
    ranges: Ranges | None = None
    """What several workers have not worked off; None if it was one listing, for which `cursor` tells."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A key that could not be settled."""

    dataset: str
    key: str
    reason: str
    error: str
    """Class of the error, such as ``AccessDenied``."""
    attempts: int
    first_at: str
    last_at: str


class Catalog(Protocol):
    """Rows by (dataset, key). `dataset` is a `Dataset.id`.

    :raises Conflict: somebody else wrote the row meanwhile.
    :raises Transient: the catalog is locked or out of reach for now.
    """

    span: int
    """How many objects, at least, one comparison of a listing with the rows should take."""
    atomic: bool
    """Whether `settle` compares and sets in one step. Where it does not, who settles must look again."""
    sums: bool
    """Whether `digest` costs less than the `stamps` of the same rows."""

    def get(self, dataset: str, key: str) -> Row | None:
        """The row of a key, also a tombstone; None if the key was never seen."""
        ...

    def rows(self, dataset: str, keys: Sequence[str]) -> list[Row | None]:
        """What `get` gives for each of some keys."""
        ...

    def scan(
        self, dataset: str, *, after: str | None = None, until: str | None = None, limit: int | None = None
    ) -> Iterator[Row]:
        """Rows with ``after < key <= until`` in UTF-8 byte order, tombstones included."""
        ...

    def stamps(
        self, dataset: str, *, after: str | None, until: str, limit: int
    ) -> list[tuple[str, str | None]]:
        """Key and fingerprint of the rows that `scan` would give: all that an unchanged range needs."""
        ...

    def unchanged(self, dataset: str, objects: Sequence[ObjectInfo], *, after: str | None) -> bool | None:
        """Whether the rows after a key, up to the last of `objects`, are just these by key and fingerprint; None if there are none."""
        ...

    def digest(self, dataset: str, *, after: str | None, until: str | None) -> Digest:
        """Count and sum of the rows that `scan` would give, tombstones left out; see `syncagent.digest`."""
        ...

    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """Insert items for keys never seen; returns the keys that already had a row (left as they were).

        :param run: the sweep that found them, to pair moves.
        """
        ...

    def settle(self, dataset: str, key: str, found: ObjectInfo | None, *, expect_rev: int) -> Row:
        """Write what the bucket holds, if the row still has revision `expect_rev` (0: no row).

        Always writes, and always bumps the revision. None leaves a tombstone and moves a live item
        to the trash with its annotations and metadata; an object brings its item back from there.

        :raises Conflict: the revision is another one by now.
        """
        ...

    def settle_many(self, dataset: str, settles: Sequence[Settle]) -> list[Row | None]:
        """What `settle` gives for each, or None for one that came too late; that does not stop the others."""
        ...

    def close(self) -> None:
        """Release connections. Calling twice is fine."""
        ...


def unchanged_by_stamps(
    catalog: Catalog, dataset: str, objects: Sequence[ObjectInfo], after: str | None
) -> bool | None:
    """`Catalog.unchanged` by `Catalog.stamps`."""
    known = catalog.stamps(dataset, after=after, until=last_key(objects), limit=len(objects) + 1)
    return known == [(found.key, found.fingerprint) for found in objects] if known else None


def settle_each(catalog: Catalog, dataset: str, settles: Sequence[Settle]) -> list[Row | None]:
    """`Catalog.settle_many` by `Catalog.settle`."""
    rows: list[Row | None] = []
    for key, found, expect_rev in settles:
        try:
            rows.append(catalog.settle(dataset, key, found, expect_rev=expect_rev))
        except Conflict:
            rows.append(None)
    return rows


class Store(Catalog, Protocol):
    """The embedded catalog: a `Catalog`, and what people and the API ask of it. Names are unique."""

    @property
    def labels(self) -> LabelStore:
        """What people and files say about items."""
        ...

    # Integrations, drivers, datasets. `create_…` raise AlreadyExists, the others NotFound.
    def create_integration(self, integration: Integration) -> Integration: ...
    def integration(self, name: str) -> Integration: ...
    def integrations(self) -> list[Integration]: ...
    def remove_integration(self, name: str) -> None: ...
    def create_driver(self, spec: DriverSpec) -> DriverSpec: ...
    def driver(self, name: str) -> DriverSpec: ...
    def drivers(self) -> list[DriverSpec]: ...
    def remove_driver(self, name: str) -> None: ...
    def create_dataset(self, name: str, driver: str) -> Dataset: ...
    def ensure_dataset(self, name: str, spec: DriverSpec) -> Dataset: ...
    def dataset(self, name: str) -> Dataset: ...
    def datasets(self) -> list[Dataset]: ...
    def remove_dataset(self, name: str) -> None: ...

    # Items, metadata, annotations.
    def count(self, dataset: str) -> int: ...
    def items(
        self,
        dataset: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        trashed: bool = False,
    ) -> Iterator[Item]: ...
    def item(self, dataset: str, key: str) -> Item: ...
    def set_user_metadata(self, dataset: str, key: str, user: Mapping[str, Any]) -> None: ...
    def annotate(self, dataset: str, key: str, annotation: Mapping[str, Any]) -> int: ...
    def annotations(self, dataset: str, key: str) -> list[dict[str, Any]]: ...
    def move(self, dataset: str, old: Row, new: Row, found: ObjectInfo) -> Row: ...

    # Runs.
    def begin_run(self, dataset: str, *, resume: bool = True) -> Run: ...
    def quantiles(self, dataset: str, every: int) -> list[str]: ...
    def advance(
        self,
        run: int,
        cursor: str | None,
        missing: Sequence[str],
        report: Report,
        ranges: Ranges | None = None,
    ) -> None: ...
    def heartbeat(self, run: int) -> None: ...
    def missing(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[str]: ...
    def count_missing(self, run: int) -> int: ...
    def forget_missing(self, run: int, keys: Sequence[str]) -> None: ...
    def pair_moves(self, run: int) -> int: ...
    def moves(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[tuple[str, str]]: ...
    def finish_run(self, run: int, state: str, report: Report, error: str | None = None) -> None: ...
    def runs(self, dataset: str | None = None, *, limit: int = 20) -> list[Run]: ...

    # Quarantine and trash.
    def quarantine(self, dataset: str, key: str, error: Exception) -> None: ...
    def quarantined(self, dataset: str | None = None) -> list[Quarantined]: ...
    def release(self, dataset: str, keys: Sequence[str] | None = None) -> int: ...
    def restore(self, dataset: str, key: str) -> bool: ...
    def empty_trash(self, dataset: str, keys: Sequence[str] | None = None) -> int: ...

    # Upkeep.
    def stats(self) -> dict[str, Any]: ...
    def vacuum(self, *, trash_days: float = 30, tombstone_days: float = 15) -> dict[str, int]: ...
