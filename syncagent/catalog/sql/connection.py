"""One SQLite connection, shared by threads, with its errors translated in one place."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from syncagent.catalog.sql.database import Parameters
from syncagent.catalog.sql.dialects import SQLITE, Dialect
from syncagent.catalog.sql.statements import migrations, named, queries
from syncagent.catalog.sql.types import mimetype
from syncagent.digest import Summing
from syncagent.errors import AccessDenied, ConfigError, SyncAgentError, Transient

_LOG = 1000  # pages of the log after which a writer copies them into the file itself
_LONG_LOG = 4000  # the same while a thread copies them
_IDLE = 1.0  # seconds without a large batch after which that thread ends
_GOODBYE = 60.0  # seconds for what it is copying
_PRAGMAS = """
PRAGMA synchronous=NORMAL;
PRAGMA cache_size=-16000;
PRAGMA foreign_keys=ON;
PRAGMA temp_store=MEMORY;
"""


class Connection:
    """`Database` in a file. WAL, one writer; readers in other processes are not held up."""

    dialect: Dialect = SQLITE
    last_text: Any = b""  # bytes come after every text

    def __init__(self, path: Path, *, timeout: float, migrate: bool) -> None:
        self.path = path
        self.name = str(path)
        self._timeout = timeout
        self.statements = 0
        self._lock = threading.RLock()
        self._queries = queries("sqlite")
        with self.translated():
            _touch(path)
            self._db = self._connected()
            try:
                self._prepare(migrate)
            except BaseException:
                self._db.close()
                raise
        self._looking = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._copier: threading.Thread | None = None
        self._more: SimpleQueue[bool] = SimpleQueue()

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
        db.create_function("mimetype", 1, mimetype, deterministic=True)
        db.create_aggregate("summed", 2, Summing)  # type: ignore[arg-type]  # typeshed has those of one number
        return db

    def _prepare(self, migrate: bool) -> None:
        version = self._version()
        known = len(migrations())
        if version > known:
            raise ConfigError(
                f"{self.path} was written by a newer syncagent (schema {version}, this one knows {known})",
                resource=str(self.path),
                hint="upgrade syncagent",
            )
        if version < known and not migrate:
            raise ConfigError(
                f"{self.path} has schema {version}, this syncagent needs {known}",
                resource=str(self.path),
                hint="run 'syncagent catalog migrate'",
            )
        if version == 0:
            self._db.execute("PRAGMA page_size=8192")
        self._write_ahead(needed=version < known)
        self._db.executescript(_PRAGMAS)
        if version < known:
            self.migrate()

    def _write_ahead(self, *, needed: bool) -> None:
        """Set the journal's mode, which the file remembers."""
        until = time.monotonic() + self._timeout
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if not needed:
                    return  # a read-only catalog can still be read
                # SQLite does not wait for others here, who may be making the same new file.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _version(self) -> int:
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        return version

    def migrate(self) -> int:
        """Apply what is missing, one transaction each; returns how many were applied."""
        applied = 0
        for number, script in enumerate(migrations(), start=1):
            with self.transaction():
                if self._version() >= number:
                    continue  # another process was faster
                for statement in _split(script):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={number}")
                applied += 1
                if number == len(migrations()):
                    self.tell_created()
        return applied

    def tell_created(self) -> None:
        """Have new items told to the outbox, if a dataset has a webhook now: what does it costs every new row."""
        told = self._db.execute("SELECT EXISTS (SELECT 1 FROM webhook)").fetchone()[0]
        self._db.execute(named("telling.sqlite")["item_created" if told else "no_item_created"])

    @contextlib.contextmanager
    def translated(self) -> Generator[None]:
        """The one place where SQLite's errors become ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise _translate(error, str(self.path)) from error

    @contextlib.contextmanager
    def transaction(self, dataset: int | None = None, *, alone: bool = True) -> Generator[None]:
        """See `Database.transaction`. There is no other writer meanwhile, whatever the dataset."""
        with self._lock, self.translated():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def copy_behind(self) -> None:
        """Have another thread copy the log into the file, after one of many large batches: that costs a seventh of writing them.

        It waits for nobody, and nobody for it. What it cannot do a later commit does.
        """
        # There may be no room for a thread.
        with self._lock, contextlib.suppress(sqlite3.Error, RuntimeError):
            if self._copier is None:
                copier = threading.Thread(target=self._copy, name="syncagent-log", daemon=True)
                copier.start()
                self._copier = copier
                self._db.execute(f"PRAGMA wal_autocheckpoint={_LONG_LOG}")
            self._more.put(True)

    def _copy(self) -> None:
        try:
            with contextlib.suppress(sqlite3.Error, Empty), contextlib.closing(self._connected()) as db:
                db.execute("PRAGMA synchronous=NORMAL")
                while self._more.get(timeout=_IDLE):
                    if self._more.empty():  # one copy is enough for all of them
                        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            with self._lock, contextlib.suppress(sqlite3.Error):
                self._copier = None
                self._db.execute(f"PRAGMA wal_autocheckpoint={_LOG}")

    def query(self, name: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of a named statement."""
        return self.sql(self._queries[name], parameters)

    def look(self, name: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """See `Database.look`. While another thread writes, a second connection reads what is committed."""
        if self._lock.acquire(blocking=False):
            try:
                return self.query(name, parameters)
            finally:
                self._lock.release()
        with self._looking, self.translated():
            self.statements += 1
            if self._reader is None:
                self._reader = self._connected()
                self._reader.execute("PRAGMA query_only=ON")
            return self._reader.execute(self._queries[name], parameters).fetchall()

    def sql(self, statement: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement made for a batch."""
        with self._lock, self.translated():
            self.statements += 1
            return self._db.execute(statement, parameters).fetchall()

    def change(self, name: str, parameters: Parameters = ()) -> int:
        """Run a named statement; returns how many rows it wrote."""
        return self.change_sql(self._queries[name], parameters)

    def change_sql(self, statement: str, parameters: Parameters = ()) -> int:
        """Run a statement made for a batch; returns how many rows it wrote."""
        with self._lock, self.translated():
            self.statements += 1
            return self._db.execute(statement, parameters).rowcount

    def insert(self, name: str, parameters: Parameters) -> int:
        """Insert one row; returns its number."""
        with self._lock, self.translated():
            self.statements += 1
            rows = self._db.execute(self._queries[name], parameters).fetchall()
            return int(rows[0][0]) if rows else 0

    def change_many(self, name: str, parameters: Iterable[Parameters]) -> None:
        """Run a named statement for each of `parameters`."""
        with self._lock, self.translated():
            self.statements += 1
            self._db.executemany(self._queries[name], parameters)

    def array(self, values: Iterable[Any]) -> str:
        """See `Database.array`."""
        return json.dumps(list(values))

    def ping(self) -> None:
        """See `Database.ping`."""
        self.sql("SELECT 1")

    def close(self) -> None:
        """Close; twice is fine."""
        copier = self._copier
        if copier is not None:
            self._more.put(False)
            copier.join(_GOODBYE)
        with self._lock, self._looking:
            self._db.close()
            if self._reader is not None:
                self._reader.close()


def _touch(path: Path) -> None:
    """Make the file if there is none: item names and labels are nobody else's business."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except PermissionError as error:
        raise AccessDenied(f"not allowed to open {path}", resource=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}", resource=str(path)) from error


def _split(script: str) -> list[str]:
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def _translate(error: sqlite3.Error, path: str) -> SyncAgentError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Transient(
            f"the catalog {path} is locked by another process",
            resource=path,
            hint="try again when it is done",
        )
    if name.startswith("SQLITE_FULL"):
        return Transient(
            f"the disk that holds the catalog {path} is full",
            resource=path,
            hint="make room and run it again",
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return AccessDenied(
            f"the catalog {path} is read-only",
            resource=path,
            hint="check the file's and folder's permissions",
        )
    if name.startswith("SQLITE_CANTOPEN"):
        return AccessDenied(f"cannot open the catalog {path}", resource=path, hint="check the folder")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return ConfigError(
            f"{path} is not a sound SQLite file", resource=path, hint="name another file, or restore a backup"
        )
    if name.startswith("SQLITE_IOERR"):
        return Transient(f"the disk that holds {path} failed", resource=path, hint="check the disk")
    return SyncAgentError(f"the catalog {path} failed: {name or type(error).__name__}", resource=path)
