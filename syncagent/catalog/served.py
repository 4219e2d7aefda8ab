"""The catalog behind a `syncagent serve`: a whole `Store` over HTTP.

The server does the work, compare-and-set and pairing of moves among it, so that this catalog converges as the embedded
one does. Credentials never come back: buckets are opened with this machine's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter

from syncagent.catalog.base import Dataset, Item, Quarantined, Ranges, Run, unchanged_by_stamps
from syncagent.catalog.labels import LabelStore
from syncagent.catalog.rest import Session
from syncagent.catalog.served_labels import ServedLabels
from syncagent.digest import Digest
from syncagent.errors import ConfigError, Conflict, NotFound, Unsupported
from syncagent.model import DriverSpec, Integration, ObjectInfo, Report, Row, Settle

_BATCH = 5000
_SUMMED = 20_000
T = TypeVar("T")
Named = TypeVar("Named", DriverSpec, Integration)
_DATASET, _DRIVER, _INTEGRATION = TypeAdapter(Dataset), TypeAdapter(DriverSpec), TypeAdapter(Integration)
_ITEM, _RUN, _QUARANTINED = TypeAdapter(Item), TypeAdapter(Run), TypeAdapter(Quarantined)


def is_served(session: Session) -> bool:
    """Whether a `syncagent serve` answers there, and not the platform.

    :raises Unsupported: one of another version.
    """
    try:
        told = session.get("/syncagent")
    except NotFound:
        return False
    if not isinstance(told, dict) or told.get("version") != 1:
        raise Unsupported(
            f"{session.gate} is a syncagent of another version", resource=session.gate,
            hint="upgrade the older of the two",
        )  # fmt: skip
    return True


class ServedCatalog:
    """`Store` over a server of ours. One object may be used from many threads.

    :param only: id of the one dataset that is to be worked on (``DATASET_ID``), or None.
    """

    span = _BATCH
    """See `Catalog.span`. A round trip costs more than what it carries."""
    atomic = True
    sums = True

    def __init__(self, session: Session, *, only: str | None = None) -> None:
        self._session = session
        self._only = only
        self._runs: dict[int, str] = {}
        self.labels: LabelStore = ServedLabels(session)

    def __repr__(self) -> str:
        return f"<ServedCatalog {self._session.gate}>"

    def close(self) -> None:
        """See `Catalog.close`."""
        self._session.close()

    # -- what the reconciler needs ---------------------------------------------------------------

    def get(self, dataset: str, key: str) -> Row | None:
        """See `Catalog.get`."""
        return self.rows(dataset, [key])[0]

    def rows(self, dataset: str, keys: Sequence[str]) -> list[Row | None]:
        """See `Catalog.rows`. One request for 5,000 keys."""
        return [
            None if row is None else Row._make(row)
            for batch in _batches(keys)
            for row in self._of(dataset, "get", keys=batch)["rows"]
        ]

    def scan(
        self, dataset: str, *, after: str | None = None, until: str | None = None, limit: int | None = None
    ) -> Iterator[Row]:
        """See `Catalog.scan`. One request for 5,000 rows."""
        left = limit
        while left is None or left > 0:
            page = _BATCH if left is None else min(_BATCH, left)
            rows = self._of(dataset, "scan", after=after, until=until, limit=page)["rows"]
            yield from map(Row._make, rows)
            if len(rows) < page:
                return
            after = rows[-1][0]
            left = None if left is None else left - len(rows)

    def stamps(
        self, dataset: str, *, after: str | None, until: str, limit: int
    ) -> list[tuple[str, str | None]]:
        """See `Catalog.stamps`."""
        found: list[tuple[str, str | None]] = []
        while limit > 0:
            page = min(_BATCH, limit)
            told = self._of(dataset, "stamps", after=after, until=until, limit=page)["stamps"]
            found += map(tuple, told)
            if len(told) < page:
                break
            after, limit = told[-1][0], limit - len(told)
        return found

    def unchanged(self, dataset: str, objects: Sequence[ObjectInfo], *, after: str | None) -> bool | None:
        """See `Catalog.unchanged`."""
        return unchanged_by_stamps(self, dataset, objects, after)

    def digest(self, dataset: str, *, after: str | None, until: str | None) -> Digest:
        """See `Catalog.digest`. One request for 20,000 rows, and no row moves."""
        whole = Digest()
        while True:
            told = self._of(dataset, "digest", after=after, until=until, limit=_SUMMED)
            whole += Digest(told["count"], int(told["sum"], 16))
            if (after := told["last"]) is None:
                return whole

    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """See `Catalog.insert_new`. One request for 5,000 objects."""
        known: list[str] = []
        for batch in _batches(found) or [[]]:
            known += self._of(dataset, "insert", found=list(batch), run=run)["known"]
        return known

    def settle(self, dataset: str, key: str, found: ObjectInfo | None, *, expect_rev: int) -> Row:
        """See `Catalog.settle`."""
        (row,) = self.settle_many(dataset, [Settle(key, found, expect_rev)])
        if row is None:
            raise Conflict(f"{key!r} was settled by somebody else meanwhile", resource=key)
        return row

    def settle_many(self, dataset: str, settles: Sequence[Settle]) -> list[Row | None]:
        """See `Catalog.settle_many`. One request for 5,000 keys."""
        rows: list[Row | None] = []
        for batch in _batches(settles):
            told = [{"key": one.key, "found": one.found, "expectRev": one.expect_rev} for one in batch]
            written = self._of(dataset, "settle", settles=told)["rows"]
            rows += [None if row is None else Row._make(row) for row in written]
        return rows

    # -- integrations, drivers, datasets ---------------------------------------------------------

    def create_integration(self, integration: Integration) -> Integration:
        """Store credentials at the server, for its own use; they never come back."""
        given = {"name": integration.name, "type": integration.type, "options": dict(integration.options)}
        return _INTEGRATION.validate_python(self._ask("create_integration", **given)["integration"])

    def integration(self, name: str) -> Integration:
        """An integration without its options, which the server keeps to itself."""
        return _find(self.integrations(), name, "integration")

    def integrations(self) -> list[Integration]:
        """All integrations, without their options."""
        return [_INTEGRATION.validate_python(one) for one in self._ask("integrations")["integrations"]]

    def remove_integration(self, name: str) -> None:
        """Forget credentials that no driver uses."""
        self._ask("remove_integration", name=name)

    def create_driver(self, spec: DriverSpec) -> DriverSpec:
        """Store a driver under `spec.name`."""
        return _DRIVER.validate_python(self._ask("create_driver", spec=_driver(spec))["driver"])

    def driver(self, name: str) -> DriverSpec:
        """A driver by name."""
        return _find(self.drivers(), name, "driver")

    def drivers(self) -> list[DriverSpec]:
        """All drivers."""
        return [_DRIVER.validate_python(one) for one in self._ask("drivers")["drivers"]]

    def remove_driver(self, name: str) -> None:
        """Forget a driver that no dataset uses."""
        self._ask("remove_driver", name=name)

    def create_dataset(self, name: str, driver: str) -> Dataset:
        """Make an empty dataset over a driver."""
        self._refuse_others(name)
        return _dataset(self._ask("create_dataset", name=name, driver=driver)["dataset"])

    def ensure_dataset(self, name: str, spec: DriverSpec) -> Dataset:
        """The dataset of this name over this source, made on first use.

        :raises ConfigError: the name mirrors another source, or is not the one of ``DATASET_ID``.
        """
        self._refuse_others(name)
        return _dataset(self._ask("ensure_dataset", name=name, spec=_driver(spec))["dataset"])

    def _refuse_others(self, name: str) -> None:
        if self._only is not None:
            raise ConfigError(
                f"DATASET_ID names another dataset than {name!r}", resource=name,
                hint="unset it, or sync the bucket that its dataset mirrors",
            )  # fmt: skip

    def dataset(self, name: str) -> Dataset:
        """A dataset by name or id."""
        found = _dataset(self._ask("dataset", name=name)["dataset"])
        if self._only not in (None, found.id):
            raise NotFound(f"no dataset {name!r} here", resource=name, hint="DATASET_ID names another one")
        return found

    def datasets(self) -> list[Dataset]:
        """All datasets, or the one of ``DATASET_ID``. Those without a bucket have a driver of the type ``none``."""
        if self._only is not None:
            return [self.dataset(self._only)]
        return [_dataset(one) for one in self._ask("datasets")["datasets"]]

    def remove_dataset(self, name: str) -> None:
        """Forget a dataset with its items, annotations and runs. The bucket is not touched."""
        self._ask("remove_dataset", name=self.dataset(name).id if self._only else name)

    # -- items, metadata, annotations ------------------------------------------------------------

    def count(self, dataset: str) -> int:
        """How many live items."""
        return int(self._of(dataset, "count")["count"])

    def items(
        self,
        dataset: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        trashed: bool = False,
    ) -> Iterator[Item]:
        """Full items in key order; `trashed` lists the trash instead."""
        left = limit
        while left is None or left > 0:
            page = min(1000, left or 1000)
            told = self._of(dataset, "items", prefix=prefix, after=after, limit=page, trashed=trashed)[
                "items"
            ]
            for one in told:
                yield _ITEM.validate_python(one)
            if len(told) < page:
                return
            after = told[-1]["key"]
            left = None if left is None else left - len(told)

    def item(self, dataset: str, key: str) -> Item:
        """One item, also from the trash."""
        return _ITEM.validate_python(self._of(dataset, "item", key=key)["item"])

    def set_user_metadata(self, dataset: str, key: str, user: Mapping[str, Any]) -> None:
        """Replace `metadata.user` of an item."""
        self._of(dataset, "set_user_metadata", key=key, user=dict(user))

    def annotate(self, dataset: str, key: str, annotation: Mapping[str, Any]) -> int:
        """Add an annotation (any JSON object); returns its number."""
        return int(self._of(dataset, "annotate", key=key, annotation=dict(annotation))["id"])

    def annotations(self, dataset: str, key: str) -> list[dict[str, Any]]:
        """Annotations of an item, oldest first, also of one in the trash."""
        told: list[dict[str, Any]] = self._of(dataset, "annotations", key=key)["annotations"]
        return told

    def move(self, dataset: str, old: Row, new: Row, found: ObjectInfo) -> Row:
        """Give the new key the old key's item, with its id, annotations and metadata; leave a tombstone."""
        return Row._make(self._of(dataset, "move", old=old, new=new, found=found)["row"])

    # -- runs ------------------------------------------------------------------------------------

    def begin_run(self, dataset: str, *, resume: bool = True) -> Run:
        """Take the dataset for a sweep, going on where an interrupted one stopped, on whatever machine.

        :raises Conflict: another process is sweeping it, and who that is.
        """
        from syncagent.catalog.sql.holders import this_process

        told = self._of(dataset, "begin_run", holder=this_process(), resume=resume)["run"]
        run = _RUN.validate_python(told)
        self._runs[run.number] = dataset
        return run

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
        *first, last = _batches(missing) or [[]]
        for batch in first:  # the cursor may not be ahead of what is noted
            self._run(run, "advance", cursor=None, missing=batch, report=asdict(report))
        # Without ranges nothing is said of them, for servers that know of none.
        more = {} if ranges is None else {"ranges": ranges}
        self._run(run, "advance", cursor=cursor, missing=last, report=asdict(report), **more)

    def heartbeat(self, run: int) -> None:
        """Say that the run is alive."""
        self._run(run, "heartbeat")

    def missing(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[str]:
        """A page of keys noted as missing, in byte order."""
        keys: list[str] = self._run(run, "missing", after=after, limit=min(limit, _BATCH))["keys"]
        return keys

    def count_missing(self, run: int) -> int:
        """How many keys the run has noted as missing."""
        return int(self._run(run, "count_missing")["count"])

    def forget_missing(self, run: int, keys: Sequence[str]) -> None:
        """Take keys from the run's missing ones: they were dealt with."""
        for batch in _batches(keys):
            self._run(run, "forget_missing", keys=batch)

    def pair_moves(self, run: int) -> int:
        """Find a new key for missing ones; returns how many pairs `moves` will give."""
        return int(self._run(run, "pair_moves")["pairs"])

    def moves(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[tuple[str, str]]:
        """A page of the pairs (old key, new key), by old key in byte order."""
        told = self._run(run, "moves", after=after, limit=min(limit, _BATCH))["moves"]
        return [(old, new) for old, new in told]

    def finish_run(self, run: int, state: str, report: Report, error: str | None = None) -> None:
        """End a run. The listing's progress stays for the next one, unless it is done."""
        self._run(run, "finish_run", state=state, report=asdict(report), error=error)

    def runs(self, dataset: str | None = None, *, limit: int = 20) -> list[Run]:
        """Runs, newest first."""
        of = [dataset] if dataset else [one.id for one in self.datasets()]
        told = [one for each in of for one in self._of(each, "runs", limit=min(limit, _BATCH))["runs"]]
        found = sorted(map(_RUN.validate_python, told), key=lambda run: -run.number)
        return found[:limit]

    # -- quarantine and trash --------------------------------------------------------------------

    def quarantine(self, dataset: str, key: str, error: Exception) -> None:
        """Remember a key that could not be settled, and why."""
        self._of(dataset, "quarantine", key=key, error=type(error).__name__, reason=str(error))

    def quarantined(self, dataset: str | None = None) -> list[Quarantined]:
        """Keys that could not be settled."""
        of = [dataset] if dataset else [one.id for one in self.datasets()]
        told = [one for each in of for one in self._of(each, "quarantined")["keys"]]
        return [_QUARANTINED.validate_python(one) for one in told]

    def release(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Take keys (None: all) out of the quarantine; returns how many."""
        if keys is None:
            return int(self._of(dataset, "release", keys=None)["count"])
        return sum(int(self._of(dataset, "release", keys=batch)["count"]) for batch in _batches(keys))

    def restore(self, dataset: str, key: str) -> bool:
        """Bring back an item that a person deleted while its object stayed; returns whether there was one."""
        return bool(self._of(dataset, "restore", key=key)["restored"])

    def empty_trash(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Forget trashed items (None: all) with annotations and metadata, for good; returns how many."""
        if keys is None:
            return int(self._of(dataset, "empty_trash", keys=None)["count"])
        return sum(int(self._of(dataset, "empty_trash", keys=batch)["count"]) for batch in _batches(keys))

    # -- upkeep ----------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Sizes and counts of the server's catalog."""
        return {**self._ask("stats"), "catalog": self._session.gate}

    def vacuum(self, *, trash_days: float = 30, tombstone_days: float = 15) -> dict[str, int]:
        """Forget trash and tombstones past their time, and give the space back to the server's disk."""
        told: dict[str, int] = self._ask("vacuum", trash_days=trash_days, tombstone_days=tombstone_days)
        return told

    # -- small things ----------------------------------------------------------------------------

    def _of(self, dataset: str, operation: str, **body: Any) -> Any:
        return self._session.post(f"/syncagent/datasets/{dataset}/{operation}", body)

    def _run(self, run: int, operation: str, **body: Any) -> Any:
        if run not in self._runs:
            raise NotFound(f"this process has begun no run {run}", resource=str(run))
        return self._of(self._runs[run], operation, run=run, **body)

    def _ask(self, operation: str, **body: Any) -> Any:
        return self._session.post(f"/syncagent/{operation}", body)


def _batches(things: Sequence[T]) -> list[Sequence[T]]:
    return [things[start : start + _BATCH] for start in range(0, len(things), _BATCH)]


def _driver(spec: DriverSpec) -> dict[str, Any]:
    return {**asdict(spec), "scope": spec.scope.value, "options": dict(spec.options)}


def _dataset(told: Any) -> Dataset:
    found = _DATASET.validate_python(told)
    # The server's credentials stay there: the bucket is opened with this machine's own.
    return replace(found, driver=replace(found.driver, integration=None))


def _find(among: Sequence[Named], name: str, kind: str) -> Named:
    for one in among:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in among[:10])
    hint = f"there are {known}" if known else f"there is no {kind} yet"
    raise NotFound(f"no {kind} {name!r}", resource=name, hint=hint)
