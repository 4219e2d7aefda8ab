"""The embedded catalog on PostgreSQL, for a team: many writers on many hosts."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from syncagent.catalog.base import unchanged_by_stamps
from syncagent.catalog.sql import holders
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.postgres_connection import PostgresConnection
from syncagent.catalog.sql.types import typed
from syncagent.catalog.vault import Vault
from syncagent.digest import Digest
from syncagent.errors import Conflict, InvalidInput
from syncagent.model import ObjectInfo, Report, Row, Settle
from syncagent.pages import ObjectPage, keys_of
from syncagent.retry import retrying

_TYPE, _VERSION = map(ObjectInfo._fields.index, ("content_type", "version"))
# Of an object. The last ones are those that a bucket's objects most often share; see `PostgresConnection.copy`.
_COLUMNS = (*(name for name in ObjectInfo._fields if name != "version"), "version")
_ARRAYS = {name: "bigint[]" if name == "size" else "text[]" for name in _COLUMNS}
_PAGE = 500  # rows that are sent at once: they fit a processor's cache
_LONGEST = 2600  # bytes of a key that an index entry has room for


class PostgresCatalog(SqlCatalog):
    """`Store` in a schema of a PostgreSQL database.

    :param url: ``postgresql://user@host/database``, as libpq takes it.
    :param pool: connections at most, apart from one that holds locks.
    :param folder: what the paths of files beside the catalog begin with; None where there is no place for any.
    """

    sums = True
    """See `Catalog.sums`. On one machine it takes a tenth longer than to read the rows; over a network those stay where they are."""
    span = 20_000  # each comparison and each insert costs a round trip or four, and an index page is split less often

    def __init__(
        self,
        url: str,
        *,
        secret_key: str | None = None,
        secret_key_file: Path | None = None,
        timeout: float = 30.0,
        migrate: bool = True,
        clock: Callable[[], float] = time.time,
        pool: int = 8,
        folder: Path | None = None,
    ) -> None:
        self._connection = PostgresConnection(url, timeout=timeout, migrate=migrate, pool=pool)
        vault = Vault(secret_key, secret_key_file)
        self._token = secrets.token_hex(8)
        try:
            super().__init__(self._connection, vault, folder=folder, clock=clock)
        except BaseException:
            self._connection.close()
            raise

    # -- what the reconciler needs ---------------------------------------------------------------

    def get(self, dataset: str, key: str) -> Row | None:
        """See `Catalog.get`."""
        return super().get(dataset, key) if _fits(key) else None

    def rows(self, dataset: str, keys: Sequence[str]) -> list[Row | None]:
        """See `Catalog.rows`."""
        fitting = [key for key in keys if _fits(key)]
        if len(fitting) == len(keys):
            return super().rows(dataset, keys)
        found = dict(zip(fitting, super().rows(dataset, fitting), strict=True))
        return [found.get(key) for key in keys]

    def scan(
        self, dataset: str, *, after: str | None = None, until: str | None = None, limit: int | None = None
    ) -> Iterator[Row]:
        """See `Catalog.scan`."""
        return super().scan(dataset, after=_bound(after), until=_bound(until), limit=limit)

    def stamps(
        self, dataset: str, *, after: str | None, until: str, limit: int
    ) -> list[tuple[str, str | None]]:
        """See `Catalog.stamps`. One statement."""
        return super().stamps(dataset, after=_bound(after), until=_bound(until) or "", limit=limit)

    def unchanged(self, dataset: str, objects: Sequence[ObjectInfo], *, after: str | None) -> bool | None:
        """See `Catalog.unchanged`. What cannot be held is not there."""
        if not _fit_all(keys := keys_of(objects)) and not all(map(_fits, keys)):
            return unchanged_by_stamps(self, dataset, objects, after)
        return super().unchanged(dataset, objects, after=_bound(after))

    def digest_page(
        self, dataset: str, *, after: str | None, until: str | None, limit: int
    ) -> tuple[Digest, str | None]:
        """See `SqlCatalog.digest_page`."""
        return super().digest_page(dataset, after=_bound(after), until=_bound(until), limit=limit)

    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """See `Catalog.insert_new`. One transaction.

        By COPY straight into the table, which no other way comes near. It knows no conflicts: where a key has a row by now,
        which is rare, its transaction is taken back and done again with a look at each key.
        """
        keys = keys_of(found)
        left = [] if _fit_all(keys) else [key for key in keys if not _fits(key)]
        if left:
            found = [one for one in found if _fits(one.key)]
        if not found:
            return left
        # In the order of the keys: of two who insert the same ones, one waits for the other, and not each for each.
        if list(keys_of(found)) != sorted(keys_of(found)):
            found = sorted(found, key=_key)
        source = self.source(dataset)
        common = {**source, "rev": 1, "run": run, "created_at": self.now()}
        try:
            with self.db.transaction(alone=False):
                self._write_behind()
                pages = (_columns(found[at : at + _PAGE]) for at in range(0, len(found), _PAGE))
                self._connection.copy("item", _COLUMNS, pages, common)
                self._tell_new(common, found)
        except Conflict:
            known = retrying(self._insert_others)(common, found)
            return [key for key in keys if key in known] + left
        return left

    def _insert_others(self, common: Mapping[str, int], found: Sequence[ObjectInfo]) -> set[str]:
        """Insert those without a row; returns the keys that have one."""
        with self.db.transaction(alone=False):
            given = {**common, **dict(zip(_COLUMNS, map(list, _columns(found)), strict=True))}
            made = {key for (key,) in self.db.sql(_INSERT_OTHERS, given)}
            self._tell_new(common, found)
        return set(keys_of(found)) - made

    def _write_behind(self) -> None:
        """Not wait until this transaction is on the disk: what a crash takes the next sweep finds again.

        Of two commits the later is never there without the earlier, so that no run says more than was written.
        """
        self.db.sql("SELECT set_config('synchronous_commit', 'off', true)")

    def _tell_new(self, common: Mapping[str, int], found: Sequence[ObjectInfo]) -> None:
        """Put what this transaction has inserted for a sweep into the outbox, if the dataset has a webhook."""
        if common["run"] and self.db.sql("SELECT 1 FROM webhook WHERE dataset = %(dataset)s", common):
            self.db.change_sql(_TELL_NEW, {**common, "first": found[0].key, "last": found[-1].key})

    def settling(
        self, dataset: str, key: str, found: ObjectInfo | None, expect_rev: int
    ) -> tuple[str, dict[str, Any]]:
        """See `SqlCatalog.settling`.

        :raises InvalidInput: no text of PostgreSQL, or no entry of an index, holds such a key.
        """
        if not _fits(key):
            raise InvalidInput(
                f"{_told(key)[:80]!r} is a key that PostgreSQL cannot hold",
                resource=_told(key),
                hint=f"rename the object: no NUL, at most {_LONGEST} bytes",
            )
        return super().settling(dataset, key, found, expect_rev)

    def settle_many(self, dataset: str, settles: Sequence[Settle]) -> list[Row | None]:
        """See `Catalog.settle_many`. One transaction.

        First the new keys, in order; then it takes the rows that nobody holds. What somebody holds comes too late, as does
        a key that cannot be held: `settle` tells why.
        """
        done: list[Row | None] = [None] * len(settles)
        order = sorted(range(len(settles)), key=lambda at: settles[at].key)
        new = [at for at in order if not settles[at].expect_rev and _fits(settles[at].key)]
        old = [at for at in order if settles[at].expect_rev and _fits(settles[at].key)]
        with self.db.transaction(alone=False):
            self._settle_all(dataset, settles, new, done)
            if old:
                given = {**self.source(dataset), "keys": [settles[at].key for at in old]}
                free = {key for (key,) in self.db.sql(_HOLD, given)}
                self._settle_all(dataset, settles, [at for at in old if settles[at].key in free], done)
        return done

    def _settle_all(
        self, dataset: str, settles: Sequence[Settle], wanted: Sequence[int], done: list[Row | None]
    ) -> None:
        statements = [self.settling(dataset, *settles[at]) for at in wanted]
        for at, rows in zip(wanted, self._connection.query_each(statements), strict=True):
            done[at] = Row._make(rows[0]) if rows else None

    # -- what the databases do in their own ways -------------------------------------------------

    def presence(self) -> str:
        """See `SqlCatalog.presence`. As long as it is there it has a lock, on a connection of its own."""
        locks = self._connection.locks
        key = self._connection.key("presence", self._token)
        if not locks.has(key):
            locks.take(key)
        return f"{holders.this_process()}:{self._token}"

    def departed(self, holder: str) -> bool | None:
        """See `SqlCatalog.departed`."""
        alive = holders.alive(holder)
        token = holder.rpartition(":")[2] if holder.count(":") > 2 else ""
        if not token:
            return None if alive is None else not alive
        if self._connection.locks.free(self._connection.key("presence", token)):
            return not alive  # its connection may just have broken: a process of this host is asked itself
        # It is connected; whether it still does anything, its heartbeat tells.
        return None if alive is None else False

    def absent(self, holder: str | None) -> bool:
        """See `SqlCatalog.absent`."""
        token = (holder or "").rpartition(":")[2]
        return token != self._token and self._connection.locks.free(self._connection.key("presence", token))

    def heartbeat(self, run: int) -> None:
        """See `Store.heartbeat`."""
        self.presence()
        super().heartbeat(run)

    def advance(
        self,
        run: int,
        cursor: str | None,
        missing: Sequence[str],
        report: Report,
        ranges: Any = None,
    ) -> None:
        """See `Store.advance`."""
        with self.db.transaction(alone=False):
            self._write_behind()
            super().advance(run, _bound(cursor), missing, report, ranges)

    def quarantine(self, dataset: str, key: str, error: Exception) -> None:
        """See `Store.quarantine`. A key that no text can hold is told with its characters written out."""
        super().quarantine(dataset, _told(key), error)

    def release(self, dataset: str, keys: Sequence[str] | None = None) -> int:
        """See `Store.release`."""
        return super().release(dataset, None if keys is None else [_told(key) for key in keys])

    @contextlib.contextmanager
    def range_lock(self, dataset: str, after: str | None, until: str | None) -> Generator[bool]:
        """Whether a range of a dataset's keys is this worker's alone, until the end of the block.

        Of workers that ask for the same bounds at the same time one is told True. The lock ends with this process, or when its
        connection breaks: `holds_range` tells. Two ranges that overlap and differ do not exclude each other.

        :param after: exclusive lower bound; :param until: inclusive upper bound; None for the ends.
        """
        key = self._range_key(dataset, after, until)
        taken = self._connection.locks.take(key)
        try:
            yield taken
        finally:
            if taken:
                self._connection.locks.release(key)

    def holds_range(self, dataset: str, after: str | None, until: str | None) -> bool:
        """Whether this process still has the lock of `range_lock`."""
        return self._connection.locks.has(self._range_key(dataset, after, until))

    def _range_key(self, dataset: str, after: str | None, until: str | None) -> int:
        number = self.source(dataset)["dataset"]
        return self._connection.key("range", number, after is None, after or "", until is None, until or "")

    def sizes(self) -> dict[str, Any]:
        """See `SqlCatalog.sizes`."""
        ((size,),) = self.db.sql(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
            " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'S')"
        )
        return {"schema": self._connection.version, "bytes": size, "free_bytes": 0}

    def reclaim(self) -> None:
        """See `SqlCatalog.reclaim`. Within the tables: to give it back to the disk would lock everybody out."""
        self._connection.vacuum()


# Those of some rows that nobody holds; until the end of the transaction they are ours.
_HOLD = (
    "SELECT key FROM item WHERE dataset = %(dataset)s AND driver = %(driver)s AND key = ANY(CAST(%(keys)s AS text[]))"
    " ORDER BY key FOR NO KEY UPDATE SKIP LOCKED"
)
# What this transaction inserted between two keys.
_TELL_NEW = """
INSERT INTO outbox (dataset, item, what, key, at)
SELECT i.dataset, i.n, 'created', i.key, extract(epoch FROM now())::bigint
FROM item i
WHERE i.dataset = %(dataset)s AND i.driver = %(driver)s AND i.key >= %(first)s AND i.key <= %(last)s
  AND i.xmin = pg_current_xact_id()::xid
ORDER BY i.n
"""
# Objects that have no row; their keys.
_INSERT_OTHERS = f"""
INSERT INTO item (dataset, driver, rev, run, created_at, {", ".join(_COLUMNS)})
SELECT %(dataset)s, %(driver)s, %(rev)s, %(run)s, %(created_at)s, o.*
FROM unnest({", ".join(f"CAST(%({name})s AS {kind})" for name, kind in _ARRAYS.items())}) AS o
ON CONFLICT DO NOTHING RETURNING key
"""


def _key(found: ObjectInfo) -> str:
    return found.key


def _columns(found: Sequence[ObjectInfo]) -> list[Sequence[Any]]:
    """Some objects as `_COLUMNS`."""
    page = typed(ObjectPage.of(found))
    columns = [page.column(at) for at in range(len(_COLUMNS))]
    columns.append(columns.pop(_VERSION))
    return columns


def _fit_all(keys: Sequence[str]) -> bool:
    """Whether all of some keys certainly fit; quick, for the many that do."""
    return (
        max(map(len, keys), default=0) <= _LONGEST and (text := "".join(keys)).isascii() and "\0" not in text
    )


def _fits(key: str) -> bool:
    """Whether PostgreSQL can hold a key: a text of UTF-8 without NUL, that an entry of an index has room for."""
    if "\0" in key or len(key) > _LONGEST:
        return False
    if key.isascii():
        return True
    try:
        return len(key.encode()) <= _LONGEST
    except UnicodeEncodeError:
        return False


def _bound(key: str | None) -> str | None:
    """A bound of the same keys, for one that may hold a NUL: nothing that can be held lies between the two."""
    return key if key is None or "\0" not in key else key.partition("\0")[0]


def _told(key: str) -> str:
    if _fits(key):
        return key
    return key.encode(errors="backslashreplace").decode().replace("\0", "\\x00")[: _LONGEST // 4]
