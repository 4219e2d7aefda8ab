"""The catalog on the Dataloop platform: a `Store` over its REST API, as far as that goes.

The platform has no compare-and-set, no tombstones and no trash, and it does not tell which write of an object an item
was made of. So each item carries a mark in ``metadata.user.syncagent``: the fingerprint, and a revision that tells that
somebody else wrote. A write that came in between two of ours is found by looking again (`Reconciler.settle`), or by the
next sweep. Runs and quarantine are kept in a journal on this machine. Source: docs/dataloop.md.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from syncagent.catalog.base import Dataset, Item, Quarantined, Ranges, Run, settle_each, unchanged_by_stamps
from syncagent.catalog.dataloop_labels import DataloopLabels
from syncagent.catalog.labels import LabelStore
from syncagent.catalog.rest import Session
from syncagent.catalog.sql.catalog import before
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.digest import Digest, digest_of
from syncagent.errors import Conflict, InvalidInput, NotFound, Refused, SyncAgentError, Unsupported
from syncagent.model import DriverSpec, Integration, ObjectInfo, Report, Row, Scope, Settle
from syncagent.workers import each

_log = logging.getLogger(__name__)
_PAGE = 1000  # the most that the platform gives
_IMPORTS = 500  # objects a request, unless that is refused
_CONCURRENT = 8
_MARK = "syncagent"
_BUCKET = {"s3": "bucketName", "gcs": "bucket", "azureblob": "containerName"}
Json = dict[str, Any]


class DataloopCatalog:
    """`Store` on the platform. One object may be used from many threads.

    :param only: id of the one dataset that is to be worked on (``DATASET_ID``), or None.
    :param journal: file of the journal; made when it is first written to.
    """

    span = 1000
    atomic = False
    sums = False

    def __init__(self, session: Session, *, only: str | None = None, journal: Path) -> None:
        self._session = session
        self._only = only
        self._journal = _Journal(journal, session.gate)
        self._datasets: dict[str, Dataset] = {}
        self._one_by_one = False
        self.labels: LabelStore = DataloopLabels(session, self._pages, _item)

    def __repr__(self) -> str:
        return f"<DataloopCatalog {self._session.gate}>"

    def close(self) -> None:
        """See `Catalog.close`."""
        self._journal.close()
        self._session.close()

    # -- what the reconciler needs ---------------------------------------------------------------

    def get(self, dataset: str, key: str) -> Row | None:
        """The row of a key; None also where an item was removed: the platform keeps no tombstones."""
        found = self._find(dataset, key)
        return None if found is None else _row(found)

    def rows(self, dataset: str, keys: Sequence[str]) -> list[Row | None]:
        """See `Catalog.rows`. One request each."""
        return [self.get(dataset, key) for key in keys]

    def scan(
        self, dataset: str, *, after: str | None = None, until: str | None = None, limit: int | None = None
    ) -> Iterator[Row]:
        """See `Catalog.scan`. One request for 1,000 rows.

        :raises Unsupported: the platform does not give file names in the order of their bytes.
        """
        return map(_row, self._found(dataset, after=after, until=until, limit=limit))

    def stamps(
        self, dataset: str, *, after: str | None, until: str, limit: int
    ) -> list[tuple[str, str | None]]:
        """See `Catalog.stamps`."""
        return [row[:2] for row in self.scan(dataset, after=after, until=until, limit=limit)]

    def unchanged(self, dataset: str, objects: Sequence[ObjectInfo], *, after: str | None) -> bool | None:
        """See `Catalog.unchanged`."""
        return unchanged_by_stamps(self, dataset, objects, after)

    def digest(self, dataset: str, *, after: str | None, until: str | None) -> Digest:
        """See `Catalog.digest`. The platform has none: it is computed here, of the rows."""
        whole, rows = Digest(), self.scan(dataset, after=after, until=until)
        while page := list(islice(rows, _PAGE)):
            whole += digest_of(page)
        return whole

    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """See `Catalog.insert_new`. One request for 500 objects, or for each where the platform takes no more."""
        spec = self.dataset(dataset).driver
        known: list[str] = []
        for start in range(0, len(found), _IMPORTS):
            batch = found[start : start + _IMPORTS]
            known += self._import(dataset, spec, batch)
        return known

    def settle(self, dataset: str, key: str, found: ObjectInfo | None, *, expect_rev: int) -> Row:
        """Write what the bucket holds, if the item's mark still has the revision `expect_rev` (0: no item).

        Between this look and the write somebody else may write: see `Reconciler.settle`.

        :raises Conflict: the revision is another one by now.
        :raises Refused: the item is to go, and the platform would delete the object with it.
        """
        item = self._find(dataset, key)
        rev = 0 if item is None else _row(item).rev
        if rev != expect_rev:
            raise Conflict(f"{key!r} was settled by somebody else meanwhile", resource=key)
        if found is None:
            if item is not None:
                self._remove(dataset, item, key)
            return Row(key, None, rev + 1, 0, 0, None)
        if item is not None:
            return _row(self._mark(item, found, rev=rev + 1))
        try:
            known, (item,) = self._imported(dataset, self.dataset(dataset).driver, [found])
        except NotFound as gone:
            raise Conflict(f"{key!r} is gone from the bucket meanwhile", resource=key) from gone
        if known:
            raise Conflict(f"{key!r} was imported by somebody else meanwhile", resource=key)
        return _row(item)

    def settle_many(self, dataset: str, settles: Sequence[Settle]) -> list[Row | None]:
        """See `Catalog.settle_many`. Each for itself."""
        return settle_each(self, dataset, settles)

    # -- integrations, drivers, datasets: the platform's own to make -------------------------------

    def create_integration(self, integration: Integration) -> Integration:
        """Not offered."""
        raise self._elsewhere("integrations")

    def integration(self, name: str) -> Integration:
        """An integration without its options, which the platform keeps to itself."""
        for one in self.integrations():
            if one.name == name:
                return one
        raise NotFound(f"no integration {name!r}", resource=name)

    def integrations(self) -> list[Integration]:
        """All integrations of the account's organizations, without their options."""
        return [
            Integration(one["name"], one["type"], {}, one["id"])
            for org in self._session.get("/orgs")
            for one in self._session.get(f"/orgs/{org['id']}/integrations")
        ]

    def remove_integration(self, name: str) -> None:
        """Not offered."""
        raise self._elsewhere("integrations")

    def create_driver(self, spec: DriverSpec) -> DriverSpec:
        """Not offered."""
        raise self._elsewhere("drivers")

    def driver(self, name: str) -> DriverSpec:
        """A driver by name."""
        for one in self.drivers():
            if one.name == name:
                return one
        raise NotFound(f"no driver {name!r}", resource=name)

    def drivers(self) -> list[DriverSpec]:
        """The drivers of the datasets that this catalog works on."""
        drivers = [one.driver for one in self.datasets() if one.driver.type != "none"]
        return list({one.id: one for one in drivers}.values())

    def remove_driver(self, name: str) -> None:
        """Not offered."""
        raise self._elsewhere("drivers")

    def create_dataset(self, name: str, driver: str) -> Dataset:
        """Not offered."""
        raise self._elsewhere("datasets")

    def ensure_dataset(self, name: str, spec: DriverSpec) -> Dataset:
        """The dataset of this name over this source. None is made."""
        for one in self.datasets():
            if one.name == name and one.driver.same_objects(spec):
                return one
        raise self._elsewhere("datasets")

    def dataset(self, name: str) -> Dataset:
        """A dataset by name or id.

        :raises NotFound: there is none, or it is not the one of ``DATASET_ID``.
        """
        if name in self._datasets:
            return self._datasets[name]
        for one in self.datasets():
            if name in (one.id, one.name):
                return one
        raise NotFound(f"no dataset {name!r}", resource=name, hint="see 'syncagent datasets ls'")

    def datasets(self) -> list[Dataset]:
        """All datasets, or the one of ``DATASET_ID``. Those without a bucket have a driver of the type ``none``."""
        if self._only is not None:
            told = [self._session.get(f"/datasets/{self._only}")]
        else:
            told = list(self._pages("/datasets/query", {"filter": {}, "resource": "datasets"}))
        drivers = {one["driver"]: self._driver(one["driver"]) for one in told if one.get("driver")}
        found = [
            Dataset(
                one["id"], one["name"],
                drivers[one["driver"]] if one.get("driver") else DriverSpec(type="none", bucket=""),
                one.get("createdAt") or "",
            )
            for one in told
        ]  # fmt: skip
        self._datasets.update({one.id: one for one in found})
        return found

    def _driver(self, driver: str) -> DriverSpec:
        told = self._session.get(f"/drivers/{driver}")
        kind = told["type"]
        return DriverSpec(
            type=kind, bucket=told.get(_BUCKET.get(kind, "bucket")) or "", path=told.get("path") or "",
            region=told.get("region"), endpoint=told.get("endpoint"), name=told["name"], id=told["id"],
            storage_class=told.get("storageClass") or None,
            allow_external_delete=bool(told.get("allowExternalDelete")),
        )  # fmt: skip

    def remove_dataset(self, name: str) -> None:
        """Not offered."""
        raise self._elsewhere("datasets")

    def _elsewhere(self, what: str) -> Unsupported:
        return Unsupported(
            f"{what} of the platform are made and removed there", resource=self._session.gate,
            hint="use its web page or dtlpy, then set DATASET_ID",
        )  # fmt: skip

    # -- items, metadata, annotations ------------------------------------------------------------

    def count(self, dataset: str) -> int:
        """How many items."""
        body = _query([], size=0)
        return int(self._session.post(f"/datasets/{dataset}/query", body)["totalItemsCount"])

    def items(
        self,
        dataset: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        trashed: bool = False,
    ) -> Iterator[Item]:
        """Full items in key order. The platform has no trash, so `trashed` finds none."""
        if trashed:
            return
        start = max(after or "", before(prefix))
        left = limit
        for one in self._found(dataset, after=start or None, limit=None):
            if left is not None and left <= 0:
                return
            key = one["filename"][1:]
            if not key.startswith(prefix):
                if key > prefix:
                    return
                continue
            yield _item(one, dataset)
            left = None if left is None else left - 1

    def item(self, dataset: str, key: str) -> Item:
        """One item."""
        return _item(self._known(dataset, key), dataset)

    def set_user_metadata(self, dataset: str, key: str, user: Mapping[str, Any]) -> None:
        """Replace `metadata.user` of an item, but for the mirror's own mark."""
        item = self._known(dataset, key)
        gone = dict.fromkeys(set(_user(item)) - {_MARK})
        self._change(item, {"metadata": {"user": {**gone, **user}}})

    def annotate(self, dataset: str, key: str, annotation: Mapping[str, Any]) -> int:
        """Add an annotation; returns the number that its id is."""
        item = self._known(dataset, key)
        told = self._session.post(f"/items/{item['id']}/annotations", [dict(annotation)])
        return _number(told[0]["id"])

    def annotations(self, dataset: str, key: str) -> list[Json]:
        """Annotations of an item, oldest first."""
        item = self._known(dataset, key)
        query = {"filter": {"$and": [{"itemId": item["id"]}]}, "resource": "annotations"}
        return list(self._pages(f"/datasets/{dataset}/query", query))

    def move(self, dataset: str, old: Row, new: Row, found: ObjectInfo) -> Row:
        """Not offered: an item of the platform stays with the object that it was made of."""
        raise Unsupported("the platform gives no object another item", resource=new.key)

    # -- runs, quarantine: in the journal ----------------------------------------------------------

    def begin_run(self, dataset: str, *, resume: bool = True) -> Run:
        """Take the dataset for a sweep, going on where an interrupted one of this machine stopped.

        :raises Conflict: another process of this machine is sweeping it. Other machines are not seen.
        """
        name = self.dataset(dataset).name
        return replace(self._journal.store.begin_run(self._journal.id(dataset), resume=resume), dataset=name)

    def quantiles(self, dataset: str, every: int) -> list[str]:
        """None: asking would cost more than a listing finds out by itself."""
        return []

    def advance(
        self,
        run: int,
        cursor: str | None,
        missing: Sequence[str],
        report: Report,
        ranges: Ranges | None = None,
    ) -> None:
        """Record progress: everything up to `cursor` is worked off, or everything outside of `ranges`."""
        self._journal.store.advance(run, cursor, missing, report, ranges)

    def heartbeat(self, run: int) -> None:
        """Say that the run is alive."""
        self._journal.store.heartbeat(run)

    def missing(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[str]:
        """A page of keys noted as missing, in byte order."""
        return self._journal.store.missing(run, after=after, limit=limit)

    def count_missing(self, run: int) -> int:
        """How many keys the run has noted as missing."""
        return self._journal.store.count_missing(run)

    def forget_missing(self, run: int, keys: Sequence[str]) -> None:
        """Take keys from the run's missing ones: they were dealt with."""
        self._journal.store.forget_missing(run, keys)

    def pair_moves(self, run: int) -> int:
        """None: see `move`."""
        return 0

    def moves(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[tuple[str, str]]:
        """None: see `move`."""
        return []

    def finish_run(self, run: int, state: str, report: Report, error: str | None = None) -> None:
        """End a run. The listing's progress stays for the next one, unless it is done."""
        self._journal.store.finish_run(run, state, report, error)

    def runs(self, dataset: str | None = None, *, limit: int = 20) -> list[Run]:
        """This machine's runs, newest first."""
        if not self._journal.exists:
            return []
        of = self._journal.id(dataset) if dataset else None
        return [self._named(run) for run in self._journal.store.runs(of, limit=limit)]

    def quarantine(self, dataset: str, key: str, error: Exception) -> None:
        """Remember a key that could not be settled, and why."""
        self._journal.store.quarantine(self._journal.id(dataset), key, error)

    def quarantined(self, dataset: str | None = None) -> list[Quarantined]:
        """Keys that this machine could not settle."""
        if not self._journal.exists:
            return []
        of = self._journal.id(dataset) if dataset else None
        return [self._named(one) for one in self._journal.store.quarantined(of)]

    def release(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Take keys (None: all) out of the quarantine; returns how many."""
        return self._journal.store.release(self._journal.id(dataset), keys) if self._journal.exists else 0

    def _named(self, one: Any) -> Any:
        """The journal knows datasets by id."""
        known = self._datasets.get(one.dataset)
        return replace(one, dataset=known.name) if known else one

    # -- what the platform does not have -----------------------------------------------------------

    def restore(self, dataset: str, key: str) -> bool:
        """Nothing: the platform has no trash."""
        return False

    def empty_trash(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Nothing: the platform has no trash."""
        return 0

    def stats(self) -> dict[str, Any]:
        """Counts of what the account sees."""
        datasets = self.datasets()
        return {
            "catalog": self._session.gate, "datasets": len(datasets), "items": sum(self.count(one.id) for one in datasets),
            "quarantined": len(self.quarantined()),
        }  # fmt: skip

    def vacuum(self, *, trash_days: float = 30, tombstone_days: float = 15) -> dict[str, int]:
        """Nothing: the platform keeps neither trash nor tombstones."""
        return {"expired": 0, "trash": 0, "tombstones": 0, "files": 0, "bytes": 0}

    # -- requests --------------------------------------------------------------------------------

    def _find(self, dataset: str, key: str) -> Json | None:
        """The item at a key. A key may hold ``*``, which an equality would read as a pattern, and a range does not."""
        name = f"/{key}"
        same: list[Json] = (
            [{"filename": {"$gte": name}}, {"filename": {"$lte": name}}]
            if "*" in name
            else [{"filename": name}]
        )
        told = self._session.post(f"/datasets/{dataset}/query", _query(same, size=10))
        for one in told.get("items") or []:
            if one["filename"] == name:
                found: Json = one
                return found
        return None

    def _known(self, dataset: str, key: str) -> Json:
        found = self._find(dataset, key)
        if found is None:
            raise NotFound(f"no item {key!r} in the dataset", resource=key)
        return found

    def _found(
        self, dataset: str, *, after: str | None, until: str | None = None, limit: int | None
    ) -> Iterator[Json]:
        """Items in byte order of their names. Each page begins after the last name of the one before."""
        last, left = None if after is None else f"/{after}", limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            bounds: list[Json] = [] if last is None else [{"filename": {"$gt": last}}]
            bounds += [] if until is None else [{"filename": {"$lte": f"/{until}"}}]
            page = (
                self._session.post(f"/datasets/{dataset}/query", _query(bounds, size=size)).get("items") or []
            )
            for one in page:
                name = one["filename"]
                if last is not None and name <= last:
                    raise Unsupported(
                        f"{self._session.gate} does not give file names in the order of their bytes",
                        resource=dataset, hint="please report it",
                    )  # fmt: skip
                last = name
                yield one
            if len(page) < size:
                return
            left = None if left is None else left - len(page)

    def _pages(self, path: str, query: Json) -> Iterator[Json]:
        """Everything that a query finds, in the order of ids."""
        last: str | None = None
        while True:
            conditions = list(query["filter"].get("$and", []))
            conditions += [] if last is None else [{"id": {"$gt": last}}]
            given = {
                **query, "filter": {"$and": conditions} if conditions else {}, "sort": {"id": "ascending"},
                "page": 0, "pageSize": _PAGE,
            }  # fmt: skip
            page = self._session.post(path, given).get("items") or []
            yield from page
            if len(page) < _PAGE or page[-1]["id"] == last:
                return
            last = page[-1]["id"]

    def _import(self, dataset: str, spec: DriverSpec, batch: Sequence[ObjectInfo]) -> list[str]:
        """Make items of objects; returns the keys that had one, or were refused."""
        if len(batch) > 1 and not self._one_by_one:
            try:
                return self._imported(dataset, spec, batch)[0]
            except NotFound:
                pass  # one of them is gone by now: which, each for itself will tell
            except (InvalidInput, _Short):
                self._one_by_one = True
                _log.warning("%s imports objects one by one only: this takes longer", self._session.gate)
        known = each(lambda one: self._alone(dataset, spec, one), batch, _CONCURRENT, name="syncagent-import")
        return [found.key for found, was in zip(batch, known, strict=True) if was]

    def _alone(self, dataset: str, spec: DriverSpec, found: ObjectInfo) -> bool:
        """Import one object; whether it is to be settled instead, which tells what is wrong with it."""
        try:
            return bool(self._imported(dataset, spec, [found])[0])
        except (InvalidInput, NotFound):
            return True

    def _imported(
        self, dataset: str, spec: DriverSpec, batch: Sequence[ObjectInfo]
    ) -> tuple[list[str], list[Json]]:
        """Keys that had an item already, and the items."""
        bucket = spec.bucket.rpartition("/")[2]
        # No two items of a key begin with the same revision, though nothing is left of the first.
        rev = int(time.time() * 1000)
        body = [
            {
                "filename": f"/{one.key}",
                "storageId": f"{bucket}:{_full_key(spec, one.key)}",
                "metadata": {"user": {_MARK: _marked(one, rev=rev)}},
            }
            for one in batch
        ]
        told = self._session.post(f"/datasets/{dataset}/imports", body)
        if not isinstance(told, list) or len(told) != len(batch):
            raise _Short(f"{self._session.gate} did not answer for every object", resource=dataset)
        known = []
        for place, (item, found) in enumerate(zip(told, batch, strict=True)):
            mark = _user(item).get(_MARK)
            if not isinstance(mark, dict):
                told[place] = self._mark(item, found, rev=rev)  # it was not taken from the request
            elif mark.get("fingerprint") != found.fingerprint:
                known.append(found.key)
        return known, told

    def _mark(self, item: Json, found: ObjectInfo, *, rev: int) -> Json:
        mark = _marked(found, rev=rev)
        old = _user(item).get(_MARK)
        if isinstance(old, dict) and item.get("annotationsCount"):
            same = found.content_id is not None and (old.get("contentId"), old.get("size")) == (
                found.content_id, found.size,
            )  # fmt: skip
            mark["changedSinceAnnotated"] = bool(
                old.get("changedSinceAnnotated") or (old.get("fingerprint") != found.fingerprint and not same)
            )
        return self._change(item, {"metadata": {"user": {_MARK: mark}}})

    def _change(self, item: Json, body: Json) -> Json:
        told: Json = self._session.call("PATCH", f"/items/{item['id']}", body)
        return told

    def _remove(self, dataset: str, item: Json, key: str) -> None:
        if self.dataset(dataset).driver.allow_external_delete:
            raise Refused(
                f"the platform would delete an object at {key!r} with its item, also one written just now",
                resource=key,
                hint="make the driver without allow_external_delete",
            )
        with contextlib.suppress(NotFound):  # somebody else removed it
            self._session.call("DELETE", f"/items/{item['id']}")


class _Short(SyncAgentError):
    """Fewer answers than there were questions."""


class _Journal:
    """A small embedded catalog for what the platform has no place for."""

    def __init__(self, path: Path, gate: str) -> None:
        self._path, self._gate = path, gate
        self._opened: SqliteCatalog | None = None
        self._ids: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def exists(self) -> bool:
        return self._opened is not None or self._path.exists()

    @property
    def store(self) -> SqliteCatalog:
        with self._lock:
            if self._opened is None:
                self._opened = SqliteCatalog(self._path)
            return self._opened

    def id(self, dataset: str) -> str:
        """What the journal calls the dataset."""
        if dataset not in self._ids:
            spec = DriverSpec(type="dataloop", bucket=f"{self._gate}/{dataset}", name=dataset)
            self._ids[dataset] = self.store.ensure_dataset(dataset, spec).id
        return self._ids[dataset]

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()


def _query(conditions: Sequence[Json], *, size: int) -> Json:
    return {
        "filter": {"$and": [{"type": "file"}, *conditions]}, "resource": "items", "sort": {"filename": "ascending"},
        "page": 0, "pageSize": size,
    }  # fmt: skip


def _user(item: Json) -> Json:
    user = (item.get("metadata") or {}).get("user")
    return user if isinstance(user, dict) else {}


def _marked(found: ObjectInfo, *, rev: int) -> Json:
    return {"fingerprint": found.fingerprint, "rev": rev, "size": found.size, "contentId": found.content_id}


def _row(item: Json) -> Row:
    mark = _user(item).get(_MARK)
    if not isinstance(mark, dict):  # somebody else's item: it agrees with no object until it is settled
        mark = {}
    rev, size = mark.get("rev"), mark.get("size")
    return Row(
        item["filename"][1:],
        str(mark.get("fingerprint") or "?"),
        rev if isinstance(rev, int) and rev > 0 else 1,
        _number(item["id"]),
        size if isinstance(size, int) else 0,
        mark.get("contentId"),
    )


def _item(told: Json, dataset: str) -> Item:
    system = (told.get("metadata") or {}).get("system") or {}
    mark = _user(told).get(_MARK)
    mark = mark if isinstance(mark, dict) else {}
    return Item(
        id=told["id"], dataset=dataset, key=told["filename"][1:], size=int(system.get("size") or mark.get("size") or 0),
        mimetype=system.get("mimetype") or "", etag=system.get("etag"), version=system.get("version"),
        content_id=mark.get("contentId"), storage_class=system.get("storageClass"), modified=system.get("modified") or "",
        created_at=told.get("createdAt") or "", removed_at=None, rev=_row(told).rev,
        annotations=int(told.get("annotationsCount") or 0),
        changed_since_annotated=bool(mark.get("changedSinceAnnotated")),
        user={name: value for name, value in _user(told).items() if name != _MARK}, hidden=bool(told.get("hidden")),
        creator=told.get("creator"), updated_at=told.get("updatedAt") or "", updated_by=told.get("updatedBy"),
        description=told.get("description"), system=system,
    )  # fmt: skip


def _number(told: Any) -> int:
    try:
        return int(str(told), 16)
    except ValueError:
        return 0


def _full_key(spec: DriverSpec, key: str) -> str:
    """The key in the bucket. The platform's drivers have folders as paths, never plain prefixes."""
    if not spec.path:
        return key
    return f"{spec.path}/{key}" if spec.scope is Scope.FOLDER else spec.path + key
