"""The embedded catalog: what is the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

from syncagent.catalog.base import Dataset, Item, Quarantined, Ranges, Run, settle_each, unchanged_by_stamps
from syncagent.catalog.files import Files
from syncagent.catalog.labels import LabelStore
from syncagent.catalog.sql import holders
from syncagent.catalog.sql.database import Database
from syncagent.catalog.sql.types import mimetype
from syncagent.catalog.vault import Vault
from syncagent.digest import MODULUS, Digest
from syncagent.errors import AlreadyExists, ConfigError, Conflict, NotFound, Refused
from syncagent.model import DriverSpec, Integration, ObjectInfo, Report, Row, Scope, Settle
from syncagent.pages import ObjectPage

_PAGE = 1000
_SUMMED = 20_000
_LEASE_SECONDS = 60
_RESUME_SECONDS = 24 * 3600
_FILE_SECONDS = 24 * 3600  # an upload takes less
_new = tuple.__new__


class SqlCatalog(ABC):
    """`Store` in a database. One object may be used from many threads, one database by many processes."""

    span = 1
    atomic = True
    sums = False

    def __init__(
        self, db: Database, vault: Vault, *, folder: Path | None, clock: Callable[[], float] = time.time
    ) -> None:
        """:param folder: what the paths of files beside the catalog begin with; None where there is no place for any."""
        self.db = db
        self.vault = vault
        self._folder = folder
        self._clock = clock
        self._sources: dict[str, tuple[int, int]] = {}
        self._stamp = self._read_stamp()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.db.name}>"

    def close(self) -> None:
        """See `Catalog.close`."""
        self.db.close()

    # -- what the databases do in their own ways -------------------------------------------------

    @abstractmethod
    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """See `Catalog.insert_new`. A key that the database cannot hold is left alone as well: settling it tells why."""

    def webhooks_changed(self) -> None:  # noqa: B027  # a database may have nothing to do
        """Called in each transaction that puts or removes a webhook."""

    @abstractmethod
    def presence(self) -> str:
        """Names whoever uses this catalog object, so that others can tell whether it is still there."""

    @abstractmethod
    def departed(self, holder: str) -> bool | None:
        """Whether the process that `presence` named is gone; None if that cannot be told from here."""

    @abstractmethod
    def absent(self, holder: str | None) -> bool:
        """Whether a server is gone that began commands under this name."""

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The schema's version, bytes in all and those that are free."""

    @abstractmethod
    def reclaim(self) -> None:
        """Give the space of what was removed back."""

    # -- files beside the catalog ----------------------------------------------------------------

    @property
    def files(self) -> Files:
        """Bytes that belong to no bucket.

        :raises ConfigError: the catalog has no folder.
        """
        return Files(self.beside("files"))

    def beside(self, what: str) -> Path:
        """A folder beside the catalog."""
        if self._folder is None:
            raise ConfigError(
                f"the catalog {self.db.name} has no folder for {what}",
                resource=self.db.name,
                hint="set SYNCAGENT_FILES to one that all its servers share",
            )
        return self._folder.with_name(f"{self._folder.name}.{what}")

    @property
    def has_folder(self) -> bool:
        """Whether there is a place for files beside the catalog."""
        return self._folder is not None

    @contextlib.contextmanager
    def around(self, item: int) -> Generator[None]:
        """A transaction alone with the dataset of an item, by its number."""
        numbers = self.db.query("item_dataset", {"n": item})
        with self.db.transaction(numbers[0][0] if numbers else None):
            yield

    @cached_property
    def labels(self) -> LabelStore:
        """What people and files say about items."""
        from syncagent.catalog.sql.labels import SqlLabels

        return SqlLabels(self)

    # -- what the reconciler needs ---------------------------------------------------------------

    def get(self, dataset: str, key: str) -> Row | None:
        """See `Catalog.get`."""
        rows = self.db.query("get", {**self.source(dataset), "key": key})
        return Row._make(rows[0]) if rows else None

    def rows(self, dataset: str, keys: Sequence[str]) -> list[Row | None]:
        """See `Catalog.rows`. One statement."""
        rows = self.db.query("rows", {**self.source(dataset), "keys": self.db.array(keys)})
        found = {row[0]: Row._make(row) for row in rows}
        return [found.get(key) for key in keys]

    def scan(
        self, dataset: str, *, after: str | None = None, until: str | None = None, limit: int | None = None
    ) -> Iterator[Row]:
        """See `Catalog.scan`."""
        source = self.source(dataset)
        left = limit
        while left is None or left > 0:
            page = _PAGE * 2 if left is None else left
            # Every key sorts after the empty one, which no object can have.
            bounds = {**source, "after": after or "", "until": until, "limit": page}
            rows = self.db.look("scan" if until is None else "scan_until", bounds)
            yield from [_new(Row, row) for row in rows]
            if len(rows) < page:
                return
            after = rows[-1][0]
            left = None if left is None else left - len(rows)

    def stamps(
        self, dataset: str, *, after: str | None, until: str, limit: int
    ) -> list[tuple[str, str | None]]:
        """See `Catalog.stamps`. One statement."""
        bounds = {**self.source(dataset), "after": after or "", "until": until, "limit": limit}
        return cast("list[tuple[str, str | None]]", self.db.look("stamps", bounds))

    def unchanged(self, dataset: str, objects: Sequence[ObjectInfo], *, after: str | None) -> bool | None:
        """See `Catalog.unchanged`. One statement, which gives two long texts."""
        page = ObjectPage.of(objects)
        keys, fingerprints = page.text(0), page.text(1)
        if keys is None or fingerprints is None:
            return unchanged_by_stamps(self, dataset, objects, after)
        bounds = {"after": after or "", "until": page.value(0, -1), "limit": len(page) + 1}
        ((count, *texts),) = self.db.look("stamp_texts", {**self.source(dataset), **bounds})
        # As many rows as there are objects, and as many separators: so none of them holds one, and equal texts are equal rows.
        return count == len(page) and texts == [keys, fingerprints] if count else None

    def digest(self, dataset: str, *, after: str | None, until: str | None) -> Digest:
        """See `Catalog.digest`. A statement for 20,000 rows, so that nobody waits long for the database."""
        whole, more = self.digest_page(dataset, after=after, until=until, limit=_SUMMED)
        while more is not None:
            part, more = self.digest_page(dataset, after=more, until=until, limit=_SUMMED)
            whole += part
        return whole

    def digest_page(
        self, dataset: str, *, after: str | None, until: str | None, limit: int
    ) -> tuple[Digest, str | None]:
        """The digest of a range's first `limit` rows, and the last of their keys; None if there are no more."""
        until = self.db.last_text if until is None else until
        bounds = {**self.source(dataset), "after": after or "", "until": until, "limit": limit}
        ((rows, count, total, last),) = self.db.query("digest", bounds)
        return Digest(count, int(total or 0) % MODULUS), last if rows == limit else None

    def settle(self, dataset: str, key: str, found: ObjectInfo | None, *, expect_rev: int) -> Row:
        """See `Catalog.settle`. One statement, which compares and sets."""
        rows = self.db.query(*self.settling(dataset, key, found, expect_rev))
        if not rows:
            raise Conflict(f"{key!r} was settled by somebody else meanwhile", resource=key)
        return Row._make(rows[0])

    def settling(
        self, dataset: str, key: str, found: ObjectInfo | None, expect_rev: int
    ) -> tuple[str, dict[str, Any]]:
        """The statement that settles a key, and what it binds. Its row is the new one; none if it came too late."""
        now, given = self.now(), {**self.source(dataset), **facts_of(found, key), "key": key}
        if expect_rev == 0:
            times = {"created_at": now if found else None, "removed_at": None if found else now}
            return "insert_settled", {**given, **times}
        return "settle_found" if found else "settle_gone", {**given, "rev": expect_rev, "now": now}

    def settle_many(self, dataset: str, settles: Sequence[Settle]) -> list[Row | None]:
        """See `Catalog.settle_many`. One transaction."""
        with self.db.transaction(alone=False):
            return settle_each(self, dataset, settles)

    # -- integrations, drivers, datasets ---------------------------------------------------------

    def create_integration(self, integration: Integration) -> Integration:
        """Store credentials, sealed."""
        made = replace(integration, id=str(uuid.uuid4()))
        given = {"id": made.id, "type": made.type, "sealed": self.vault.seal(made.options)}
        self._unique("integration", made.name, "create_integration", given)
        return made

    def integration(self, name: str) -> Integration:
        """An integration with its options, by name."""
        for n_id, n_name, kind, sealed in self.db.query("integration", {"name": name}):
            return Integration(n_name, kind, self.vault.open(sealed, n_name), n_id)
        raise _unknown("integration", name, [i.name for i in self.integrations()])

    def integrations(self) -> list[Integration]:
        """All integrations, without their options."""
        rows = self.db.query("integrations")
        return [Integration(name, kind, {}, n_id) for n_id, name, kind in rows]

    def change_integration(
        self, name: str, *, new_name: str | None = None, options: Mapping[str, str] | None = None
    ) -> Integration:
        """Rename an integration, or seal other options in place of its own."""
        with self.db.transaction():
            old = self.integration(name)
            if new_name not in (None, name) and any(one.name == new_name for one in self.integrations()):
                raise AlreadyExists(f"there is an integration {new_name!r} already", resource=new_name)
            sealed = self.vault.seal(old.options if options is None else options)
            given = {"name": name, "new_name": new_name or name, "sealed": sealed}
            self.db.change("change_integration", given)
        return self.integration(new_name or name)

    def remove_integration(self, name: str) -> None:
        """Forget credentials that no driver uses."""
        with self.db.transaction():
            _refuse_used("integration", name, "driver", self.db.query("integration_users", {"name": name}))
            removed = self.db.change("remove_integration", {"name": name})
        if not removed:
            raise _unknown("integration", name, [i.name for i in self.integrations()])

    def create_driver(self, spec: DriverSpec) -> DriverSpec:
        """Store a driver under `spec.name`."""
        made = replace(spec, id=str(uuid.uuid4()))
        integration = None
        if made.integration is not None:
            rows = self.db.query("integration_number", {"name": made.integration})
            if not rows:
                raise _unknown("integration", made.integration, [i.name for i in self.integrations()])
            integration = rows[0][0]
        given = {
            "id": made.id, "type": made.type, "integration": integration, "bucket": made.bucket, "path": made.path,
            "scope": made.scope.value, "region": made.region, "endpoint": made.endpoint,
            "storage_class": made.storage_class, "allow_external_delete": int(made.allow_external_delete),
            "options": json.dumps(dict(made.options), sort_keys=True),
        }  # fmt: skip
        self._unique("driver", made.name, "create_driver", given)
        return made

    def driver(self, name: str) -> DriverSpec:
        """A driver by name."""
        for spec in self.drivers():
            if spec.name == name:
                return spec
        raise _unknown("driver", name, [spec.name for spec in self.drivers()])

    def drivers(self) -> list[DriverSpec]:
        """All drivers."""
        return [_spec(row) for row in self.db.query("drivers")]

    def remove_driver(self, name: str) -> None:
        """Forget a driver that no dataset uses."""
        with self.db.transaction():
            _refuse_used("driver", name, "dataset", self.db.query("driver_users", {"name": name}))
            removed = self.db.change("remove_driver", {"name": name})
        if not removed:
            raise _unknown("driver", name, [spec.name for spec in self.drivers()])

    def create_dataset(self, name: str, driver: str) -> Dataset:
        """Make an empty dataset over a driver."""
        rows = self.db.query("driver_number", {"name": driver})
        if not rows:
            raise _unknown("driver", driver, [spec.name for spec in self.drivers()])
        self._unique("dataset", name, "add_dataset", {"id": secrets.token_hex(12), "driver": rows[0][0]})
        return self.dataset(name)

    def ensure_dataset(self, name: str, spec: DriverSpec) -> Dataset:
        """The dataset of this name over this source, made on first use.

        :raises ConfigError: the name mirrors another source.
        """
        if not name:
            raise ConfigError("a dataset needs a name", hint="pass --dataset NAME")
        with self.db.transaction():
            for dataset in self.datasets():
                if dataset.name != name:
                    continue
                if dataset.driver.same_objects(spec):
                    return dataset
                raise ConfigError(
                    f"dataset {name!r} mirrors another source",
                    resource=name,
                    hint="give the new one a name with --dataset",
                )
            drivers = {driver.name: driver for driver in self.drivers()}
            driver = spec.name or name
            if driver not in drivers:
                self.create_driver(replace(spec, name=driver))
            elif not drivers[driver].same_objects(spec):
                raise AlreadyExists(f"driver {driver!r} is another source", resource=driver)
            return self.create_dataset(name, driver)

    def dataset(self, name: str) -> Dataset:
        """A dataset by name or id.

        :raises ConfigError: several projects have one of this name.
        """
        found = [one for one in self._datasets(name) if one.id == name] or self._datasets(name)
        if len(found) > 1:
            raise ConfigError(f"several projects have a dataset {name!r}", resource=name, hint="give its id")
        for dataset in found:
            return dataset
        raise _unknown("dataset", name, [dataset.name for dataset in self.datasets()])

    def datasets(self) -> list[Dataset]:
        """All datasets, but for each project's own."""
        return self._datasets(None)

    def _datasets(self, name: str | None) -> list[Dataset]:
        rows = self.db.query("datasets") if name is None else self.db.query("datasets_called", {"name": name})
        return [
            Dataset(n_id, name, _spec(rest) if rest[0] else DriverSpec(type="none", bucket=""), _iso(created))
            for n_id, name, created, *rest in rows
        ]

    def remove_dataset(self, name: str) -> None:
        """Forget a dataset with its items, annotations and runs. The bucket is not touched."""
        dataset = self.dataset(name)
        number = self.source(dataset.id)["dataset"]
        given = {"dataset": number}
        with self.db.transaction(), self.db.transaction(number):
            if self.db.query("running", given):
                self._free_lease(number, dataset.name)
            for part in _PARTS:
                self.db.change(part, given)
            self.webhooks_changed()
        self._sources.pop(dataset.id, None)

    def _unique(self, kind: str, name: str, statement: str, given: Mapping[str, Any]) -> None:
        if not name:
            raise ConfigError(f"a {kind} needs a name")
        with self.db.transaction():
            if self.db.query(_NAMED[kind], {"name": name}):
                raise AlreadyExists(f"there is a {kind} {name!r} already", resource=name)
            self.db.change(statement, {**given, "name": name, "now": self.now()})

    # -- items, metadata, annotations ------------------------------------------------------------

    def count(self, dataset: str) -> int:
        """How many live items."""
        count: int = self.db.query("count", self.source(dataset))[0][0]
        return count

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
        source = self.source(dataset)
        given = {**source, "trashed": trashed}
        # The key just before the prefix: a page may then begin inside the range, without a second statement.
        after = max(after or "", before(prefix))
        left = limit
        while left is None or left > 0:
            page = min(_PAGE, left or _PAGE)
            rows = self.db.query("items", {**given, "after": after, "limit": page})
            for row in rows:
                if prefix and not row[1].startswith(prefix):
                    if row[1] > prefix:
                        return
                    continue
                yield self.item_of(dataset, row)
                left = None if left is None else left - 1
                if left == 0:
                    return
            if len(rows) < page:
                return
            after = rows[-1][1]

    def item(self, dataset: str, key: str) -> Item:
        """One item, also from the trash.

        :raises NotFound: there never was one.
        """
        for row in self.db.query("item", {**self.source(dataset), "key": key}):
            return self.item_of(dataset, row)
        raise NotFound(f"no item {key!r} in the dataset", resource=key)

    def item_of(self, dataset: str, row: Sequence[Any]) -> Item:
        """The item of a row of the statement `item`."""
        (number, key, size, content_type, etag, version, content_id, storage_class, modified, created, removed,
         rev, content_rev, annotations, kind, hidden, storage, creator, updated, updated_by, user, system,
         description, annotated) = row  # fmt: skip
        return Item(
            id=self.public_id(number),
            dataset=dataset,
            key=key,
            size=size,
            mimetype=content_type or mimetype(key),
            etag=etag,
            version=version,
            content_id=content_id,
            storage_class=storage_class,
            modified=modified,
            created_at=_iso(created),
            removed_at=_iso(removed) if removed is not None else None,
            rev=rev,
            annotations=annotations,
            changed_since_annotated=bool(annotated and content_rev > annotated),
            user=json.loads(user) if user else {},
            type=kind,
            hidden=bool(hidden),
            storage=storage,
            creator=creator,
            updated_at=_iso(created if updated is None else updated),
            updated_by=updated_by,
            description=description,
            system=json.loads(system) if system else {},
        )

    def public_id(self, number: int) -> str:
        """The 24 digits by which the world knows a row; they sort in the order of creation."""
        return f"{self._stamp}{number:016x}"

    def number_of(self, public_id: str) -> int:
        """The row of `public_id`; 0, which no row has, if it is not of this catalog."""
        if len(public_id) == 24 and public_id.startswith(self._stamp):
            with contextlib.suppress(ValueError):
                number = int(public_id[8:], 16)
                return number if number < 1 << 63 else 0
        return 0

    @property
    def stamp(self) -> str:
        """Eight digits that begin every id of this catalog's rows."""
        return self._stamp

    def set_user_metadata(self, dataset: str, key: str, user: Mapping[str, Any]) -> None:
        """Replace `metadata.user` of an item."""
        with self.db.transaction(self.source(dataset)["dataset"]):
            item = self._number(dataset, key)
            self.db.change("set_metadata", {"item": item, "user": json.dumps(dict(user))})

    def annotate(self, dataset: str, key: str, annotation: Mapping[str, Any]) -> int:
        """Add an annotation (any JSON object); returns its number."""
        with self.db.transaction(self.source(dataset)["dataset"]):
            item = self._number(dataset, key)
            number = self.db.insert(
                "annotate",
                {
                    "item": item, "data": json.dumps(dict(annotation)), "now": self.now(), "creator": None,
                    "type": annotation.get("type"), "label": annotation.get("label"),
                },
            )  # fmt: skip
            self.db.change("count_annotations", {"item": item})
            return number

    def annotations(self, dataset: str, key: str) -> list[dict[str, Any]]:
        """Annotations of an item, oldest first, also of one in the trash."""
        rows = self.db.query("annotations", {"item": self._number(dataset, key)})
        return [{"id": number, **json.loads(data)} for number, data in rows]

    def move(self, dataset: str, old: Row, new: Row, found: ObjectInfo) -> Row:
        """Give the new key the old key's item, with its id, annotations and metadata; leave a tombstone.

        :raises Conflict: one of the rows changed, or somebody already worked on the new item.
        """
        source = self.source(dataset)
        now = self.now()
        # Alone, so that nobody labels what is dropped.
        with self.db.transaction(source["dataset"]):
            dropped = self.db.change("move_drop_new", {"new": new.item, "new_rev": new.rev})
            # Above both: whoever still holds a revision of either row must read again.
            rev = max(old.rev, new.rev) + 1
            given = {
                **facts_of(found, new.key),
                "key": new.key,
                "rev": rev,
                "old": old.item,
                "old_rev": old.rev,
            }
            if not dropped or not self.db.change("move_keep_old", given):
                raise Conflict(f"{new.key!r} or {old.key!r} changed meanwhile", resource=new.key)
            self.db.change("move_tombstone", {**source, "key": old.key, "rev": rev, "now": now})
            row = self.get(dataset, new.key)
        assert row is not None  # noqa: S101  # written in this transaction
        return row

    def _number(self, dataset: str, key: str) -> int:
        rows = self.db.query("item", {**self.source(dataset), "key": key})
        if not rows:
            raise NotFound(f"no item {key!r} in the dataset", resource=key)
        number: int = rows[0][0]
        return number

    # -- runs ------------------------------------------------------------------------------------

    def begin_run(self, dataset: str, *, resume: bool = True, holder: str | None = None) -> Run:
        """Take the dataset for a sweep, going on where an interrupted one stopped.

        :param holder: who sweeps, as `presence` names it; default whoever uses this object.
        :raises Conflict: another process is sweeping it, and who that is.
        """
        number = self.source(dataset)["dataset"]
        now = self.now()
        name, holder = self.dataset(dataset).name, holder or self.presence()
        with self.db.transaction(number):
            self._free_lease(number, name)
            cursor, origin, started, report, former, ranges = None, 0, now, Report(), None, None
            for n, first, state, _, _, at, begun, counts, rest in self.db.query(
                "last_run", {"dataset": number}
            ):
                if not resume or (at is None and rest is None) or state not in ("interrupted", "failed"):
                    continue
                if now - begun > _RESUME_SECONDS:
                    continue
                cursor, origin, started, report, former = at, first, begun, Report(**json.loads(counts)), n
                ranges = rest
            report.resumed_after = cursor
            run = self.db.insert(
                "begin_run",
                {
                    "dataset": number, "origin": origin, "holder": holder, "now": now, "started_at": started,
                    "cursor": cursor, "report": json.dumps(asdict(report)), "ranges": ranges,
                },
            )  # fmt: skip
            self.db.change("set_origin", {"run": run})
            if former is not None:
                self.db.change("adopt_missing", {"run": run, "former": former})
                self.db.change("resumed", {"run": former})
            self.db.change("drop_stale_missing", {"run": run, "dataset": number})
            return self._runs("run", {"run": run})[0]

    def _free_lease(self, dataset: int, name: str) -> None:
        """End a running sweep whose holder is gone; refuse while it lives."""
        for n, _, state, holder, heartbeat, *_ in self.db.query("last_run", {"dataset": dataset}):
            if state != "running":
                continue
            departed = self.departed(holder)
            if departed is False or (departed is None and self.now() - heartbeat < _LEASE_SECONDS):
                raise Conflict(
                    f"dataset {name!r} is being swept by {holders.shown(holder)} (run {n})",
                    resource=name,
                    hint="wait for it to end",
                )
            self.db.change("lost", {"run": n})

    def quantiles(
        self, dataset: str, every: int, *, after: str | None = None, until: str | None = None
    ) -> list[str]:
        """Every so-many-th key of the dataset's rows, in byte order: where a listing of it may be divided.

        :param after: exclusive lower bound; :param until: exclusive upper bound.
        """
        given, found = {**self.source(dataset), "skip": every - 1}, [after or ""]
        while rows := self.db.query("key_after", {**given, "after": found[-1]}):
            if until is not None and rows[0][0] >= until:
                break
            found.append(rows[0][0])
        return found[1:]

    def advance(
        self,
        run: int,
        cursor: str | None,
        missing: Sequence[str],
        report: Report,
        ranges: Ranges | None = None,
    ) -> None:
        """Record progress: everything up to `cursor` is worked off, or everything outside of `ranges`.

        :raises Conflict: another process has taken the sweep over.
        """
        given = {
            "run": run, "cursor": cursor, "now": self.now(), "report": json.dumps(asdict(report)),
            "ranges": None if ranges is None else json.dumps(ranges, ensure_ascii=False),
        }  # fmt: skip
        with self.db.transaction(alone=False):
            if not self.db.change("advance", given):
                raise Conflict(f"run {run} was taken over by another process", resource=str(run))
            if missing:
                self.db.change_many("note_missing", [(run, key) for key in missing])

    def note_missing(self, run: int, keys: Sequence[str]) -> None:
        """Note keys that a part of the listing lacks, for the process that runs the sweep.

        :raises Conflict: the run is over, or another one has taken it over.
        """
        with self.db.transaction(alone=False):
            if [one.state for one in self._runs("run", {"run": run})] != ["running"]:
                raise Conflict(f"run {run} is over", resource=str(run), hint="start another sweep")
            if keys:
                self.db.change_many("note_missing", [(run, key) for key in keys])

    def is_run_of(self, dataset: str, run: int) -> bool:
        """Whether there is such a run, and it is this dataset's."""
        given = {"run": run, "dataset": self.source(dataset)["dataset"]}
        return bool(self.db.query("run_of", given))

    def heartbeat(self, run: int) -> None:
        """Say that the run is alive."""
        self.db.change("heartbeat", {"run": run, "now": self.now()})

    def missing(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[str]:
        """A page of keys noted as missing, in byte order."""
        return [
            key for (key,) in self.db.query("missing", {"run": run, "after": after or "", "limit": limit})
        ]

    def count_missing(self, run: int) -> int:
        """How many keys the run has noted as missing."""
        count: int = self.db.query("count_missing", {"run": run})[0][0]
        return count

    def forget_missing(self, run: int, keys: Sequence[str]) -> None:
        """Take keys from the run's missing ones: they were dealt with."""
        self.db.change("forget_missing", {"run": run, "keys": self.db.array(keys)})

    def pair_moves(self, run: int) -> int:
        """Find a new key for missing ones, where the pair is unambiguous: same size, same content hash.

        Returns how many pairs `moves` will give. Both sides stay in the catalog, none in memory.
        """
        if not self.missing(run, limit=1):
            return 0  # else all that the run found would be read
        ((dataset, origin, driver),) = self.db.query("run_source", {"run": run})
        given = {"dataset": dataset, "driver": driver, "run": run, "origin": origin}
        with self.db.transaction(alone=False):
            self.db.change("unpair_moves", {"run": run})
            return self.db.change("pair_moves", given)

    def moves(self, run: int, *, after: str | None = None, limit: int = 1000) -> list[tuple[str, str]]:
        """A page of the pairs (old key, new key) that `pair_moves` found, by old key in byte order."""
        given = {"run": run, "after": after or "", "limit": limit}
        return [(old, new) for old, new in self.db.query("moves", given)]

    def finish_run(self, run: int, state: str, report: Report, error: str | None = None) -> None:
        """End a run. The listing's progress stays for the next one, unless it is done."""
        given = {
            "run": run,
            "state": state,
            "now": self.now(),
            "report": json.dumps(asdict(report)),
            "error": error,
        }
        with self.db.transaction(alone=False):
            self.db.change("end_run", given)
            if state in ("done", "refused"):
                self.db.change("drop_missing", {"run": run})

    def runs(self, dataset: str | None = None, *, limit: int = 20) -> list[Run]:
        """Runs, newest first."""
        number = self.source(dataset)["dataset"] if dataset else None
        return self._runs("runs", {"dataset": number, "limit": limit})

    def _runs(self, name: str, given: Mapping[str, Any]) -> list[Run]:
        rows = self.db.query(name, given)
        return [
            Run(
                number=n, dataset=name, state=state, holder=holders.shown(holder), started_at=_iso(started),
                ended_at=_iso(ended) if ended else None, cursor=cursor, report=Report(**json.loads(report)),
                error=error, origin=origin, ranges=_ranges(ranges),
            )
            for n, name, state, holder, started, ended, cursor, report, error, origin, ranges in rows
        ]  # fmt: skip

    # -- quarantine and trash --------------------------------------------------------------------

    def quarantine(self, dataset: str, key: str, error: Exception) -> None:
        """Remember a key that could not be settled, and why."""
        given = {
            "dataset": self.source(dataset)["dataset"], "key": key, "reason": str(error),
            "error": type(error).__name__, "now": self.now(),
        }  # fmt: skip
        self.db.change("quarantine", given)

    def quarantined(self, dataset: str | None = None) -> list[Quarantined]:
        """Keys that could not be settled."""
        number = self.source(dataset)["dataset"] if dataset else None
        rows = self.db.query("quarantined", {"dataset": number})
        return [
            Quarantined(name, key, reason, error, attempts, _iso(first), _iso(last))
            for name, key, reason, error, attempts, first, last in rows
        ]

    def release(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Take keys (None: all) out of the quarantine; returns how many."""
        number = self.source(dataset)["dataset"]
        if keys is None:
            return self.db.change("release_all", {"dataset": number})
        with self.db.transaction(alone=False):
            return sum(self.db.change("release", {"dataset": number, "key": key}) for key in sorted(keys))

    def restore(self, dataset: str, key: str) -> bool:
        """Bring back an item that a person deleted while its object stayed; returns whether there was one."""
        return bool(self.db.change("restore", {**self.source(dataset), "key": key}))

    def empty_trash(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Forget trashed items (None: all) with annotations and metadata, for good; returns how many."""
        source = self.source(dataset)
        given = {**source, "everything": keys is None, "keys": self.db.array(keys or ())}
        with self.db.transaction(source["dataset"]):
            rows = self.db.query("trashed", given)
            self._forget([n for (n,) in rows])
        return len(rows)

    def _forget(self, items: Sequence[int]) -> None:
        given = [{"item": item} for item in items]
        names = (
            "reread_sources",
            "forget_trashed_annotations",
            "forget_annotations",
            "forget_metadata",
            "forget_item",
        )
        for name in names:
            self.db.change_many(name, given)

    # -- upkeep ----------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Sizes and counts."""
        items, trash, tombstones = self.db.query("counts")[0]
        ((annotations,),) = self.db.query("annotation_count")
        return {
            "catalog": self.db.name,
            **self.sizes(),
            "datasets": len(self.datasets()),
            "items": items,
            "trash": trash,
            "tombstones": tombstones,
            "annotations": annotations,
            "quarantined": len(self.quarantined()),
        }

    def vacuum(self, *, trash_days: float = 30, tombstone_days: float = 15) -> dict[str, int]:
        """Move expired items to the trash, forget trash and tombstones past their time, give the space back to the disk.

        Returns how many of each (``expired``, ``trash``, ``tombstones``, ``files`` beside the catalog) and how many ``bytes``.
        """
        now = self.now()
        expired = forgotten = 0
        while moved := self.db.change("expire", {"now": now}):
            expired += moved
        while True:
            with self.db.transaction(alone=False):
                rows = self.db.query("trashed_before", {"time": now - trash_days * 86400})
                self._forget([n for (n,) in rows])
            if not rows:
                break
            forgotten += len(rows)
        self.db.change("vacuum_annotations", {"time": now - trash_days * 86400})
        tombstones = self.db.change("vacuum_tombstones", {"time": now - tombstone_days * 86400})
        files = 0
        if self.has_folder:
            wanted = {digest for (digest,) in self.db.query("files_wanted")}
            files = self.files.collect(wanted, before=time.time() - _FILE_SECONDS)
        before = self.sizes()["bytes"]
        self.reclaim()
        return {
            "expired": expired, "trash": forgotten, "tombstones": tombstones, "files": files,
            "bytes": before - self.sizes()["bytes"],
        }  # fmt: skip

    # -- small things ----------------------------------------------------------------------------

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def source(self, dataset: str) -> dict[str, int]:
        """The numbers that stand for a dataset and its driver in every row."""
        if dataset not in self._sources:
            rows = self.db.query("dataset_source", {"id": dataset})
            if not rows:
                raise NotFound(f"no dataset {dataset!r}", resource=dataset)
            self._sources[dataset] = rows[0][0], rows[0][1] or 0
        number, driver = self._sources[dataset]
        return {"dataset": number, "driver": driver}

    def _read_stamp(self) -> str:
        """Eight digits that make item ids differ from another catalog's."""
        rows = self.db.query("setting", {"name": "stamp"})
        if rows:
            stamp: str = rows[0][0]
            return stamp
        self.db.change("put_setting", {"name": "stamp", "value": secrets.token_hex(4)})
        return self._read_stamp()


_NAMED = {"integration": "integration_number", "driver": "driver_number", "dataset": "dataset_named"}
# What belongs to a dataset, and then the dataset.
_PARTS = (
    "drop_annotations", "drop_metadata", "drop_all_missing", "drop_trashed_annotations", "remove_webhook", "empty_outbox",
    "drop_items", "drop_runs", "release_all", "drop_source_files", "drop_source_entries", "drop_dataset",
)  # fmt: skip


def _spec(row: Sequence[Any]) -> DriverSpec:
    n_id, name, kind, integration, bucket, path, scope, region, endpoint, storage_class, allow, options = row
    return DriverSpec(
        type=kind, bucket=bucket, path=path, scope=Scope(scope), region=region, endpoint=endpoint,
        storage_class=storage_class, allow_external_delete=bool(allow), options=json.loads(options),
        name=name, id=n_id, integration=integration,
    )  # fmt: skip


def facts_of(found: ObjectInfo | None, key: str) -> dict[str, Any]:
    """What statements bind of an object."""
    facts = found._asdict() if found else dict.fromkeys(ObjectInfo._fields)
    # A listing that tells no type must not make us forget what the store told before.
    facts["guessed_type"] = mimetype(key)
    if found and found.content_type:
        facts["content_type"] = mimetype(key, found.content_type)
    del facts["key"]
    return facts


def before(prefix: str) -> str:
    """A string that sorts before every key with this prefix, and close to the first of them."""
    if not prefix or ord(prefix[-1]) <= 1:
        return ""
    last = ord(prefix[-1]) - 1
    return prefix[:-1] + chr(0xD7FF if last == 0xDFFF else last)  # surrogates are not characters


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unknown(kind: str, name: str, known: Sequence[str]) -> NotFound:
    hint = f"there are {', '.join(known[:10])}" if known else f"there is no {kind} yet"
    return NotFound(f"no {kind} {name!r}", resource=name, hint=hint)


def _refuse_used(kind: str, name: str, user: str, users: Sequence[Sequence[str]]) -> None:
    if users:
        raise Refused(
            f"{kind} {name!r} is used by {user} {users[0][0]!r}",
            resource=name,
            hint=f"remove the {user} first",
        )


def _ranges(text: str | None) -> Ranges | None:
    return None if text is None else [(lo, hi) for lo, hi in json.loads(text)]
