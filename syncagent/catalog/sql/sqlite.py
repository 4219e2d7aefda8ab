"""The embedded catalog on SQLite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

from syncagent.catalog.sql import holders
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.connection import Connection
from syncagent.catalog.sql.types import typed
from syncagent.catalog.vault import Vault
from syncagent.model import ObjectInfo
from syncagent.pages import ObjectPage

# Rows a statement: one call into SQLite inserts them all, without Python's lock. What is left goes in smaller ones, as a
# statement of a thousand rows takes 0.8 MB, and Python keeps the last 128 that differ.
_INSERT = (1000, 100, 10, 1)
_MANY = 1000  # new items of a batch of which there may be many more
_WIDTH = len(ObjectInfo._fields)
_OFTEN_SHARED = ObjectInfo._fields.index("version")  # the first of the fields that are worth a look
_Form = tuple[int, ...]


class SqliteCatalog(SqlCatalog):
    """`Store` in one SQLite file. One object may be used from many threads, one file by many processes."""

    def __init__(
        self,
        path: Path,
        *,
        secret_key: str | None = None,
        secret_key_file: Path | None = None,
        timeout: float = 30.0,
        migrate: bool = True,
        clock: Callable[[], float] = time.time,
        folder: Path | None = None,
    ) -> None:
        """:param folder: what the paths of files beside the catalog begin with; default `path`."""
        self._file = Connection(path, timeout=timeout, migrate=migrate)
        vault = Vault(secret_key, secret_key_file or path.with_name(path.name + ".key"))
        super().__init__(self._file, vault, folder=folder or path, clock=clock)

    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """See `Catalog.insert_new`. One transaction."""
        source = self.source(dataset)
        now = self.now()
        known: list[str] = []
        with self.db.transaction():
            # Numbers grow, and nobody else writes in this transaction: rows up to here were there before.
            ((last,),) = self.db.sql("SELECT coalesce(max(n), 0) FROM item")
            for keys, shared, values in _batches(ObjectPage.of(found), now):
                statement = _insert_statement(len(keys), shared, source["dataset"], source["driver"], run)
                written = self._file.change_sql(statement, values)
                if written != len(keys):
                    odd = [key for key in keys if "\0" in key]  # where `json_each` ends a text
                    plain = [key for key in keys if "\0" not in key] if odd else keys
                    given = {**source, "last": last}
                    known += [key for (key,) in self.db.sql(_KNOWN, {**given, "keys": self.db.array(plain)})]
                    known += [key for key in odd if self.db.sql(_KNOWN_ONE, {**given, "key": key})]
        if len(found) >= _MANY:
            self._file.copy_behind()
        return known

    def webhooks_changed(self) -> None:
        """See `SqlCatalog.webhooks_changed`."""
        self._file.tell_created()

    def presence(self) -> str:
        """See `SqlCatalog.presence`."""
        return holders.this_process()

    def departed(self, holder: str) -> bool | None:
        """See `SqlCatalog.departed`."""
        alive = holders.alive(holder)
        return None if alive is None else not alive

    def absent(self, holder: str | None) -> bool:
        """See `SqlCatalog.absent`. A file has one server at a time."""
        return True

    def sizes(self) -> dict[str, Any]:
        """See `SqlCatalog.sizes`."""
        (pages,), (page_size,), (free,), (version,) = (
            self.db.sql(f"PRAGMA {name}")[0]
            for name in ("page_count", "page_size", "freelist_count", "user_version")
        )
        return {"schema": version, "bytes": pages * page_size, "free_bytes": free * page_size}

    def reclaim(self) -> None:
        """See `SqlCatalog.reclaim`."""
        # It copies everything into a temporary file, which must not be in memory, as a query's are.
        self.db.sql("PRAGMA temp_store=FILE")
        try:
            self.db.sql("VACUUM")
        finally:
            self.db.sql("PRAGMA temp_store=MEMORY")
        self.db.sql("PRAGMA wal_checkpoint(TRUNCATE)")


# Those of some keys that had a row before the transaction.
_KNOWN = (
    "SELECT key FROM item WHERE dataset = :dataset AND driver = :driver AND n <= :last"
    " AND key IN (SELECT value FROM json_each(:keys)) ORDER BY key"
)

_KNOWN_ONE = "SELECT 1 FROM item WHERE dataset = :dataset AND driver = :driver AND n <= :last AND key = :key"


def _batches(page: ObjectPage, now: int) -> Iterator[tuple[Sequence[str], _Form, list[Any]]]:
    """What each statement inserts: keys, the statement's form, and what is bound.

    SQLite copies each value that is bound, which takes longer than to write it: what rows share is bound once.
    """
    page = typed(page)
    keys = page.column(0)
    columns = [page.column(at) for at in range(_WIDTH)]
    form: list[int] = []
    once: list[Any] = [now]
    each: list[Sequence[Any]] = []
    for at, column in enumerate(columns):
        same = next((n for n, earlier in enumerate(columns[:at]) if earlier is column), None)
        shared = page.shared(at) if at >= _OFTEN_SHARED else None
        if same is not None:
            form.append(form[same])
        elif shared is not None:
            once.append(shared[0])
            form.append(-len(once))
        else:
            each.append(column)
            form.append(len(each))
    start = 0
    for size in _INSERT:
        while len(page) - start >= size:
            end = start + size
            values = [*once, *repeat(None, size * len(each))]
            for at, column in enumerate(each, len(once)):
                values[at :: len(each)] = column[start:end]
            yield keys[start:end], (len(once), len(each), *form), values
            start = end


@lru_cache(maxsize=64)
def _insert_statement(rows: int, form: _Form, dataset: int, driver: int, run: int) -> str:
    """Inserts some objects.

    :param form: how many values are bound once, and how many for each row; then for each field of `ObjectInfo` which of them
        it is: from 1 on, of a row's own; from -1 on downwards, of all rows'.
    """
    # Numbers of ours that stay, written out.
    once, each, *fields = form
    shared = [f"?{-field}" if field < 0 else "" for field in fields]
    lines = [
        ",".join(one or f"?{start + field}" for one, field in zip(shared, fields, strict=True))
        for start in (once + row * each for row in range(rows))
    ]
    common = f"({int(dataset)},{int(driver)},1,{int(run)},?1,"
    return (
        f"INSERT INTO item (dataset, driver, rev, run, created_at, {', '.join(ObjectInfo._fields)})"
        f" VALUES {','.join(f'{common}{line})' for line in lines)} ON CONFLICT DO NOTHING"
    )
