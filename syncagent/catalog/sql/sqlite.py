"""The embedded catalog on SQLite."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, cast

from syncagent.catalog.base import Dataset, Item, Quarantined, Ranges, Run, settle_each
from syncagent.catalog.files import Files
from syncagent.catalog.labels import LabelStore
from syncagent.catalog.sql.connection import Connection
from syncagent.catalog.sql.types import BY_SUFFIX, mimetype
from syncagent.catalog.vault import Vault
from syncagent.errors import AlreadyExists, ConfigError, Conflict, NotFound, Refused
from syncagent.model import DriverSpec, Integration, ObjectInfo, Report, Row, Scope, Settle

_PAGE = 1000
_INSERT = 1000  # rows a statement: one call into SQLite inserts them all, without Python's lock
_LEASE_SECONDS = 60
_RESUME_SECONDS = 24 * 3600
_FILE_SECONDS = 24 * 3600  # an upload takes less
_new = tuple.__new__


class SqliteCatalog:
    """`Store` in one SQLite file. One object may be used from many threads, one file by many processes."""

    span = 1
    atomic = True

    def __init__(
        self,
        path: Path,
        *,
        secret_key: str | None = None,
        secret_key_file: Path | None = None,
        timeout: float = 30.0,
        migrate: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.db = Connection(path, timeout=timeout, migrate=migrate)
        self.vault = Vault(secret_key, secret_key_file or path.with_name(path.name + ".key"))
        self._clock = clock
        self._sources: dict[str, tuple[int, int]] = {}
        self._stamp = self._read_stamp()

    def __enter__(self) -> SqliteCatalog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SqliteCatalog {self.db.path}>"

    def close(self) -> None:
        """See `Catalog.close`."""
        self.db.close()

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
        """See `Catalog.rows`."""
        return [self.get(dataset, key) for key in keys]

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
            rows = self.db.query("scan" if until is None else "scan_until", bounds)
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
        return cast("list[tuple[str, str | None]]", self.db.query("stamps", bounds))

    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """See `Catalog.insert_new`. One transaction."""
        source = self.source(dataset)
        now = self.now()
        known: list[str] = []
        with self.db.transaction():
            # Numbers grow, and nobody else writes in this transaction: rows up to here were there before.
            ((last,),) = self.db.sql("SELECT coalesce(max(n), 0) FROM item")
            for start in range(0, len(found), _INSERT):
                batch = found[start : start + _INSERT]
                statement = _insert_statement(len(batch), source["dataset"], source["driver"], run, now)
                written = self.db.change_sql(statement, _bound(batch))
                if written != len(batch):
                    names = json.dumps([o.key for o in batch])
                    rows = self.db.query("known", {**source, "keys": names, "last": last})
                    known += [key for (key,) in rows]
        return known

    def settle(self, dataset: str, key: str, found: ObjectInfo | None, *, expect_rev: int) -> Row:
        """See `Catalog.settle`."""
        source = self.source(dataset)
        now = self.now()
        facts = _facts(found, key)
        with self.db.transaction():
            if expect_rev == 0:
                written = self.db.change(
                    "insert_settled",
                    {
                        **source,
                        **facts,
                        "key": key,
                        "created_at": now if found else None,
                        "removed_at": None if found else now,
                    },
                )
            else:
                name = "settle_found" if found else "settle_gone"
                given = {**source, **facts, "key": key, "rev": expect_rev, "now": now}
                written = self.db.change(name, given)
            if not written:
                raise Conflict(f"{key!r} was settled by somebody else meanwhile", resource=key)
            row = self.get(dataset, key)
        assert row is not None  # noqa: S101  # written in this transaction
        return row

    def settle_many(self, dataset: str, settles: Sequence[Settle]) -> list[Row | None]:
        """See `Catalog.settle_many`. One transaction."""
        with self.db.transaction():
            return settle_each(self, dataset, settles)

    # -- integrations, drivers, datasets ---------------------------------------------------------

    def create_integration(self, integration: Integration) -> Integration:
        """Store credentials, sealed."""
        made = replace(integration, id=str(uuid.uuid4()))
        self._unique(
            "integration",
            made.name,
            "INSERT INTO integration (id, name, type, sealed, created_at) VALUES (?, ?, ?, ?, ?)",
            (made.id, made.name, made.type, self.vault.seal(made.options), self.now()),
        )
        return made

    def integration(self, name: str) -> Integration:
        """An integration with its options, by name."""
        for n_id, n_name, kind, sealed in self.db.sql(
            "SELECT id, name, type, sealed FROM integration WHERE name = ?", (name,)
        ):
            return Integration(n_name, kind, self.vault.open(sealed, n_name), n_id)
        raise _unknown("integration", name, [i.name for i in self.integrations()])

    def integrations(self) -> list[Integration]:
        """All integrations, without their options."""
        rows = self.db.sql("SELECT id, name, type FROM integration ORDER BY name")
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
            self.db.change_sql(
                "UPDATE integration SET name = ?, sealed = ? WHERE name = ?", (new_name or name, sealed, name)
            )
        return self.integration(new_name or name)

    def remove_integration(self, name: str) -> None:
        """Forget credentials that no driver uses."""
        users = self.db.sql(
            "SELECT d.name FROM driver d JOIN integration i ON i.n = d.integration WHERE i.name = ?", (name,)
        )
        _refuse_used("integration", name, "driver", users)
        if not self.db.change_sql("DELETE FROM integration WHERE name = ?", (name,)):
            raise _unknown("integration", name, [i.name for i in self.integrations()])

    def create_driver(self, spec: DriverSpec) -> DriverSpec:
        """Store a driver under `spec.name`."""
        made = replace(spec, id=str(uuid.uuid4()))
        integration = None
        if made.integration is not None:
            rows = self.db.sql("SELECT n FROM integration WHERE name = ?", (made.integration,))
            if not rows:
                raise _unknown("integration", made.integration, [i.name for i in self.integrations()])
            integration = rows[0][0]
        self._unique(
            "driver",
            made.name,
            "INSERT INTO driver (id, name, type, integration, bucket, path, scope, region, endpoint, storage_class,"
            " allow_external_delete, options, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                made.id, made.name, made.type, integration, made.bucket, made.path, made.scope.value, made.region,
                made.endpoint, made.storage_class, made.allow_external_delete,
                json.dumps(dict(made.options), sort_keys=True), self.now(),
            ),
        )  # fmt: skip
        return made

    def driver(self, name: str) -> DriverSpec:
        """A driver by name."""
        for spec in self.drivers():
            if spec.name == name:
                return spec
        raise _unknown("driver", name, [spec.name for spec in self.drivers()])

    def drivers(self) -> list[DriverSpec]:
        """All drivers."""
        return [_spec(row) for row in self.db.sql(_DRIVER + " ORDER BY d.name")]

    def remove_driver(self, name: str) -> None:
        """Forget a driver that no dataset uses."""
        users = self.db.sql(
            "SELECT s.name FROM dataset s JOIN driver d ON d.n = s.driver WHERE d.name = ?", (name,)
        )
        _refuse_used("driver", name, "dataset", users)
        if not self.db.change_sql("DELETE FROM driver WHERE name = ?", (name,)):
            raise _unknown("driver", name, [spec.name for spec in self.drivers()])

    def create_dataset(self, name: str, driver: str) -> Dataset:
        """Make an empty dataset over a driver."""
        rows = self.db.sql("SELECT n FROM driver WHERE name = ?", (driver,))
        if not rows:
            raise _unknown("driver", driver, [spec.name for spec in self.drivers()])
        self._unique(
            "dataset",
            name,
            "INSERT INTO dataset (id, name, driver, created_at) VALUES (?, ?, ?, ?)",
            (secrets.token_hex(12), name, rows[0][0], self.now()),
        )
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
        rows = self.db.sql(_DATASET, (name,))
        return [
            Dataset(n_id, name, _spec(rest) if rest[0] else DriverSpec(type="none", bucket=""), _iso(created))
            for n_id, name, created, *rest in rows
        ]

    def remove_dataset(self, name: str) -> None:
        """Forget a dataset with its items, annotations and runs. The bucket is not touched."""
        dataset = self.dataset(name)
        number = self.source(dataset.id)["dataset"]
        with self.db.transaction():
            if self.db.sql("SELECT 1 FROM run WHERE dataset = ? AND state = 'running'", (number,)):
                self._free_lease(number, dataset.name)
            of_items = "WHERE item IN (SELECT n FROM item WHERE dataset = ?)"
            self.db.change_sql(f"DELETE FROM annotation {of_items}", (number,))
            self.db.change_sql(f"DELETE FROM item_metadata {of_items}", (number,))
            self.db.change_sql(
                "DELETE FROM run_missing WHERE run IN (SELECT n FROM run WHERE dataset = ?)", (number,)
            )
            self.db.change_sql(
                "DELETE FROM annotation_trash WHERE item IN (SELECT n FROM item WHERE dataset = ?)", (number,)
            )
            for table in ("webhook", "outbox", "item", "run", "quarantine", "source_file", "source_entry"):
                self.db.change_sql(f"DELETE FROM {table} WHERE dataset = ?", (number,))
            self.db.change_sql("DELETE FROM dataset WHERE n = ?", (number,))
        self._sources.pop(dataset.id, None)

    def _unique(self, kind: str, name: str, statement: str, values: Sequence[Any]) -> None:
        if not name:
            raise ConfigError(f"a {kind} needs a name")
        with self.db.transaction():
            if self.db.sql(f"SELECT 1 FROM {kind} WHERE name = ?", (name,)):
                raise AlreadyExists(f"there is a {kind} {name!r} already", resource=name)
            self.db.change_sql(statement, values)

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
        given = {**source, "trashed": int(trashed)}
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
        with self.db.transaction():
            item = self._number(dataset, key)
            self.db.change("set_metadata", {"item": item, "user": json.dumps(dict(user))})

    def annotate(self, dataset: str, key: str, annotation: Mapping[str, Any]) -> int:
        """Add an annotation (any JSON object); returns its number."""
        with self.db.transaction():
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
        with self.db.transaction():
            dropped = self.db.change("move_drop_new", {"new": new.item, "new_rev": new.rev})
            # Above both: whoever still holds a revision of either row must read again.
            rev = max(old.rev, new.rev) + 1
            given = {
                **_facts(found, new.key),
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

        :param holder: who sweeps, as `this_process` names it; default this process.
        :raises Conflict: another process is sweeping it, and who that is.
        """
        number = self.source(dataset)["dataset"]
        now = self.now()
        with self.db.transaction():
            self._free_lease(number, self.dataset(dataset).name)
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
                    "dataset": number, "origin": origin, "holder": holder or this_process(), "now": now, "started_at": started,
                    "cursor": cursor, "report": json.dumps(asdict(report)), "ranges": ranges,
                },
            )  # fmt: skip
            self.db.change("set_origin", {"run": run})
            if former is not None:
                self.db.change("adopt_missing", {"run": run, "former": former})
                self.db.change_sql("UPDATE run SET state = 'resumed' WHERE n = ?", (former,))
            self.db.change("drop_stale_missing", {"run": run, "dataset": number})
            return self._runs("WHERE r.n = ?", (run,))[0]

    def _free_lease(self, dataset: int, name: str) -> None:
        """End a running sweep whose holder is gone; refuse while it lives."""
        for n, _, state, holder, heartbeat, *_ in self.db.query("last_run", {"dataset": dataset}):
            if state != "running":
                continue
            alive = _alive(holder)
            if alive or (alive is None and self.now() - heartbeat < _LEASE_SECONDS):
                raise Conflict(
                    f"dataset {name!r} is being swept by {_holder_name(holder)} (run {n})",
                    resource=name,
                    hint="wait for it to end",
                )
            self.db.change_sql(
                "UPDATE run SET state = 'interrupted', ended_at = heartbeat, error = 'the process ended' WHERE n = ?",
                (n,),
            )

    def quantiles(self, dataset: str, every: int) -> list[str]:
        """Every so-many-th key of the dataset's rows, in byte order: where a listing of it may be divided."""
        given, found = {**self.source(dataset), "skip": every - 1}, [""]
        while rows := self.db.query("key_after", {**given, "after": found[-1]}):
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
        with self.db.transaction():
            if not self.db.change("advance", given):
                raise Conflict(f"run {run} was taken over by another process", resource=str(run))
            if missing:
                self.db.change_many("note_missing", [(run, key) for key in missing])

    def is_run_of(self, dataset: str, run: int) -> bool:
        """Whether there is such a run, and it is this dataset's."""
        return bool(
            self.db.sql(
                "SELECT 1 FROM run WHERE n = ? AND dataset = ?", (run, self.source(dataset)["dataset"])
            )
        )

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
        self.db.change("forget_missing", {"run": run, "keys": json.dumps(list(keys))})

    def pair_moves(self, run: int) -> int:
        """Find a new key for missing ones, where the pair is unambiguous: same size, same content hash.

        Returns how many pairs `moves` will give. Both sides stay in the catalog, none in memory.
        """
        ((dataset, origin, driver),) = self.db.sql(
            "SELECT r.dataset, r.origin, d.driver FROM run r JOIN dataset d ON d.n = r.dataset WHERE r.n = ?",
            (run,),
        )
        given = {"dataset": dataset, "driver": driver, "run": run, "origin": origin}
        with self.db.transaction():
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
        with self.db.transaction():
            self.db.change("end_run", given)
            if state in ("done", "refused"):
                self.db.change("drop_missing", {"run": run})

    def runs(self, dataset: str | None = None, *, limit: int = 20) -> list[Run]:
        """Runs, newest first."""
        number = self.source(dataset)["dataset"] if dataset else None
        return self._runs("WHERE ?1 IS NULL OR r.dataset = ?1 ORDER BY r.n DESC LIMIT ?2", (number, limit))

    def _runs(self, where: str, values: Sequence[Any]) -> list[Run]:
        rows = self.db.sql(
            "SELECT r.n, d.name, r.state, r.holder, r.started_at, r.ended_at, r.cursor, r.report, r.error, r.origin, r.ranges"
            f" FROM run r JOIN dataset d ON d.n = r.dataset {where}",
            values,
        )
        return [
            Run(
                number=n, dataset=name, state=state, holder=_holder_name(holder), started_at=_iso(started),
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
        with self.db.transaction():
            return sum(self.db.change("release", {"dataset": number, "key": key}) for key in keys)

    def restore(self, dataset: str, key: str) -> bool:
        """Bring back an item that a person deleted while its object stayed; returns whether there was one."""
        return bool(self.db.change("restore", {**self.source(dataset), "key": key}))

    def empty_trash(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """Forget trashed items (None: all) with annotations and metadata, for good; returns how many."""
        source = self.source(dataset)
        if keys is None:
            where, values = "", {}
        else:
            where, values = (
                " AND key IN (SELECT value FROM json_each(:keys))",
                {"keys": json.dumps(list(keys))},
            )
        with self.db.transaction():
            rows = self.db.sql(
                "SELECT n FROM item WHERE dataset = :dataset AND driver = :driver AND removed_at IS NOT NULL"
                f" AND created_at IS NOT NULL{where}",
                {**source, **values},
            )
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
        (pages,), (page_size,), (free,) = (
            self.db.sql(f"PRAGMA {name}")[0] for name in ("page_count", "page_size", "freelist_count")
        )
        items, trash, tombstones = self.db.sql(
            "SELECT count(*) FILTER (WHERE removed_at IS NULL),"
            " count(*) FILTER (WHERE removed_at IS NOT NULL AND created_at IS NOT NULL),"
            " count(*) FILTER (WHERE created_at IS NULL) FROM item"
        )[0]
        ((annotations,),) = self.db.sql("SELECT count(*) FROM annotation")
        return {
            "catalog": str(self.db.path),
            "schema": self.db.sql("PRAGMA user_version")[0][0],
            "bytes": pages * page_size,
            "free_bytes": free * page_size,
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
            with self.db.transaction():
                rows = self.db.query("trashed_before", {"time": now - trash_days * 86400})
                self._forget([n for (n,) in rows])
            if not rows:
                break
            forgotten += len(rows)
        self.db.change("vacuum_annotations", {"time": now - trash_days * 86400})
        tombstones = self.db.change("vacuum_tombstones", {"time": now - tombstone_days * 86400})
        wanted = {digest for (digest,) in self.db.query("files_wanted")}
        files = Files(Path(f"{self.db.path}.files")).collect(wanted, before=time.time() - _FILE_SECONDS)
        before = self.stats()["bytes"]
        self.db.sql("VACUUM")
        self.db.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return {
            "expired": expired, "trash": forgotten, "tombstones": tombstones, "files": files,
            "bytes": before - self.stats()["bytes"],
        }  # fmt: skip

    # -- small things ----------------------------------------------------------------------------

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def source(self, dataset: str) -> dict[str, int]:
        """The numbers that stand for a dataset and its driver in every row."""
        if dataset not in self._sources:
            rows = self.db.sql("SELECT n, driver FROM dataset WHERE id = ?", (dataset,))
            if not rows:
                raise NotFound(f"no dataset {dataset!r}", resource=dataset)
            self._sources[dataset] = rows[0][0], rows[0][1] or 0
        number, driver = self._sources[dataset]
        return {"dataset": number, "driver": driver}

    def _read_stamp(self) -> str:
        """Eight digits that make item ids differ from another catalog's."""
        rows = self.db.sql("SELECT value FROM setting WHERE name = 'stamp'")
        if rows:
            stamp: str = rows[0][0]
            return stamp
        self.db.change_sql(
            "INSERT INTO setting (name, value) VALUES ('stamp', ?) ON CONFLICT DO NOTHING",
            (secrets.token_hex(4),),
        )
        return self._read_stamp()


_DRIVER = (
    "SELECT d.id, d.name, d.type, i.name, d.bucket, d.path, d.scope, d.region, d.endpoint, d.storage_class,"
    " d.allow_external_delete, d.options FROM driver d LEFT JOIN integration i ON i.n = d.integration"
)

_DATASET = (
    "SELECT s.id, s.name, s.created_at, d.id, d.name, d.type, i.name, d.bucket, d.path, d.scope, d.region, d.endpoint,"
    " d.storage_class, d.allow_external_delete, d.options FROM dataset s LEFT JOIN driver d ON d.n = s.driver"
    " LEFT JOIN integration i ON i.n = d.integration WHERE CASE WHEN ?1 IS NULL THEN NOT s.system ELSE s.id = ?1 OR s.name = ?1 AND NOT s.system END"
    " ORDER BY s.name, s.n"
)


def _spec(row: Sequence[Any]) -> DriverSpec:
    n_id, name, kind, integration, bucket, path, scope, region, endpoint, storage_class, allow, options = row
    return DriverSpec(
        type=kind, bucket=bucket, path=path, scope=Scope(scope), region=region, endpoint=endpoint,
        storage_class=storage_class, allow_external_delete=bool(allow), options=json.loads(options),
        name=name, id=n_id, integration=integration,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _insert_statement(rows: int, dataset: int, driver: int, run: int, now: int) -> str:
    # Numbers of ours, written out: fewer parameters a row, so more rows fit SQLite's limit.
    one = f"({int(dataset)},{int(driver)},1,{int(run)},{int(now)},{','.join('?' * len(ObjectInfo._fields))})"
    return (
        f"INSERT INTO item (dataset, driver, rev, run, created_at, {', '.join(ObjectInfo._fields)})"
        f" VALUES {','.join([one] * rows)} ON CONFLICT DO NOTHING"
    )


def _bound(batch: Sequence[ObjectInfo]) -> list[Any]:
    """What `_insert_statement` binds. A listing may tell no types; the names do."""
    values: list[Any] = list(chain.from_iterable(batch))
    values[7 :: len(ObjectInfo._fields)] = [
        BY_SUFFIX[found[0].rpartition(".")[2]] if found[7] is None else found[7] for found in batch
    ]
    return values


def _facts(found: ObjectInfo | None, key: str) -> dict[str, Any]:
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


def this_process() -> str:
    """Names this process so that others can tell whether it still lives: host, number, start."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _holder_name(holder: str) -> str:
    host, _, rest = holder.partition(":")
    return f"{host}:{rest.partition(':')[0]}"


def _alive(holder: str) -> bool | None:
    """Whether the process that holds a run lives; None if it is on another host."""
    host, _, rest = holder.partition(":")
    pid, _, started = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and is somebody else's
    # A process number is used again after a while; the start time tells the two apart.
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
