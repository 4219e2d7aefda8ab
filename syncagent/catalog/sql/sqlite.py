"""The embedded catalog on SQLite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from syncagent.catalog.sql import holders
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.connection import Connection
from syncagent.catalog.sql.types import BY_SUFFIX
from syncagent.catalog.vault import Vault
from syncagent.model import ObjectInfo

# Rows a statement: one call into SQLite inserts them all, without Python's lock. What is left goes in smaller ones, as a
# statement of a thousand rows takes 0.8 MB, and Python keeps the last 128 that differ.
_INSERT = (1000, 100, 10, 1)
_WIDTH = 1 + len(ObjectInfo._fields)  # what is bound of a row


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
            for batch in _batches(found):
                statement = _insert_statement(len(batch), source["dataset"], source["driver"], run)
                written = self._file.change_sql(statement, _bound(batch, now))
                if written != len(batch):
                    given = {**source, "keys": self.db.array(o.key for o in batch), "last": last}
                    known += [key for (key,) in self.db.sql(_KNOWN, given)]
        return known

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


def _batches(found: Sequence[ObjectInfo]) -> Iterator[Sequence[ObjectInfo]]:
    start = 0
    for size in _INSERT:
        while len(found) - start >= size:
            yield found[start : start + size]
            start += size


@lru_cache(maxsize=64)
def _insert_statement(rows: int, dataset: int, driver: int, run: int) -> str:
    # Numbers of ours that stay, written out: fewer parameters a row, so more rows fit SQLite's limit.
    one = f"({int(dataset)},{int(driver)},1,{int(run)},{','.join('?' * _WIDTH)})"
    return (
        f"INSERT INTO item (dataset, driver, rev, run, created_at, {', '.join(ObjectInfo._fields)})"
        f" VALUES {','.join([one] * rows)} ON CONFLICT DO NOTHING"
    )


def _bound(batch: Sequence[ObjectInfo], now: int) -> list[Any]:
    """What `_insert_statement` binds. A listing may tell no types; the names do."""
    values: list[Any] = list(chain.from_iterable(map((now,).__add__, batch)))
    values[8::_WIDTH] = [
        BY_SUFFIX[found[0].rpartition(".")[2]] if found[7] is None else found[7] for found in batch
    ]
    return values
