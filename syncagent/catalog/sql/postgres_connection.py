"""Connections to PostgreSQL: a small pool, transactions by thread, one more connection that holds locks.

Nothing here relies on what a session remembers, so that a pooler in transaction mode (PgBouncer) may stand in between: no
prepared statements, no session's settings, no temporary tables. What must last is in a transaction that stays open.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from syncagent.catalog.sql.database import Parameters
from syncagent.catalog.sql.dialects import POSTGRES, Dialect
from syncagent.catalog.sql.statements import migrations, queries, split
from syncagent.errors import AccessDenied, ConfigError, Conflict, InvalidInput, SyncAgentError, Transient
from syncagent.retry import retrying

logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())  # what it warns of is raised here

# What libpq does not do by itself: a host that is gone is noticed within a minute. The URL may say otherwise.
_DEFAULTS = {
    "application_name": "syncagent",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_CONNECT_SECONDS = 10.0  # that a connection may take at least
_FRESH_SECONDS = 1.0  # so long after its last use a connection is taken to be sound
_BUSY_SECONDS = 600  # longer than a statement of ours takes
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_OLDEST = 13_00_00
Row = tuple[Any, ...]
Client = psycopg.Connection[Row]


class PostgresConnection:
    """`Database` on a PostgreSQL server.

    :param url: as libpq takes it; what it leaves out comes from PG… variables, the service file and the password file.
    :param timeout: seconds to wait for another's lock, and for a connection.
    :param pool: connections at most, apart from the one that holds locks.
    """

    dialect: Dialect = POSTGRES
    last_text: Any = "\U0010ffff" * 1100  # longer than a key may be

    def __init__(self, url: str, *, timeout: float, migrate: bool, pool: int) -> None:
        self.statements = 0
        self._timeout = timeout
        self._queries = queries("postgres")
        self._thread = threading.local()
        self._locks: dict[int | None, int] = {}
        self._conninfo = _conninfo(url)
        self.name = shown(self._conninfo)
        self.locks = Locks(self)
        # At first without the pool, which would try again where a password is wrong.
        with self.connection() as client:
            self._prepare(client, migrate)
        self._pool: ConnectionPool[Client] = ConnectionPool(
            self._conninfo,
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=0,
            max_size=pool,
            max_idle=60,
            timeout=max(timeout, _CONNECT_SECONDS),
            num_workers=1,
            configure=self._configure,
            check=_check,
            open=False,
            name="syncagent",
        )
        with self.translated():
            self._pool.open()

    # -- connections -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def connection(self) -> Generator[Client]:
        """A connection of one's own, closed at the end."""
        with self.translated():
            client = self.connect()
        try:
            with self.translated():
                yield client
        finally:
            client.close()

    def connect(self) -> Client:
        """A connection outside of the pool. Errors are psycopg's own."""
        client = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        try:
            self._configure(client)
        except BaseException:
            client.close()
            raise
        return client

    def _configure(self, client: Client) -> None:
        client.adapters.register_loader("jsonb", TextLoader)  # as SQLite gives it
        # A safety net: behind a pooler another session may have it. Nothing else is asked of a session.
        with client.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false)"
                " WHERE current_setting('statement_timeout') = '0'",
                (f"{max(1, int(self._timeout * 1000))}ms", f"{_BUSY_SECONDS}s"),
            )
        _used(client)

    @contextlib.contextmanager
    def translated(self) -> Generator[None]:
        """The one place where PostgreSQL's errors become ours."""
        try:
            yield
        except (psycopg.Error, PoolTimeout, PoolClosed) as error:
            raise _translate(error, self.name) from error
        except UnicodeEncodeError as error:
            raise InvalidInput("half a pair of surrogates is no text", hint="name it otherwise") from error

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        """The connection of this thread's transaction, or any."""
        mine: Client | None = getattr(self._thread, "client", None)
        if mine is not None:
            with self.translated():
                yield mine
            return
        with self.translated(), self._pool.connection() as client:
            try:
                yield client
            finally:
                _used(client)

    # -- transactions ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, dataset: int | None = None, *, alone: bool = True) -> Iterator[None]:
        """See `Database.transaction`."""
        if getattr(self._thread, "client", None) is not None:
            if alone:
                self._hold(dataset)
            yield
            return
        with self._client() as client, client.transaction():
            self._thread.client, self._thread.held = client, set[int | None]()
            try:
                if alone:
                    self._hold(dataset)
                yield
            finally:
                self._thread.client = None

    def _hold(self, dataset: int | None) -> None:
        """Wait until nobody else reads and writes here. A statement of its own: those that follow see what he wrote."""
        if dataset in self._thread.held:
            return
        with self.translated():
            self._thread.client.execute("SELECT pg_advisory_xact_lock(%s)", (self.key("alone", dataset),))
        self._thread.held.add(dataset)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has one open."""
        return getattr(self._thread, "client", None) is not None

    def key(self, *names: object) -> int:
        """The number of an advisory lock. Catalogs in other schemas of the database have other numbers."""
        told = "\0".join(map(str, (self.stamp, *names))).encode(errors="surrogatepass")
        return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), signed=True)

    # -- statements ------------------------------------------------------------------------------

    def query(self, name: str, parameters: Parameters = ()) -> list[Row]:
        """See `Database.query`."""
        return self.sql(self._queries[name], parameters)

    def look(self, name: str, parameters: Parameters = ()) -> list[Row]:
        """See `Database.look`. Each thread has its connection."""
        return self.query(name, parameters)

    def sql(self, statement: str, parameters: Parameters = ()) -> list[Row]:
        """See `Database.sql`. What only reads is asked again where the connection broke."""
        if self.in_transaction:
            return self._sql(statement, parameters)
        return retrying(self._sql)(statement, parameters)

    def _sql(self, statement: str, parameters: Parameters) -> list[Row]:
        with self._client() as client, client.cursor() as cursor:
            self.statements += 1
            return cursor.execute(statement, parameters).fetchall()

    def change(self, name: str, parameters: Parameters = ()) -> int:
        """See `Database.change`."""
        return self.change_sql(self._queries[name], parameters)

    def change_sql(self, statement: LiteralString, parameters: Parameters = ()) -> int:
        """See `Database.change_sql`."""
        with self._client() as client, client.cursor() as cursor:
            self.statements += 1
            return cursor.execute(statement, parameters).rowcount

    def change_many(self, name: str, parameters: Iterable[Parameters]) -> None:
        """See `Database.change_many`. Sent at once, in one transaction."""
        given = list(parameters)
        if not given:
            return
        with self.transaction(alone=False), self._client() as client, client.cursor() as cursor:
            self.statements += 1
            cursor.executemany(self._queries[name], given)

    def query_each(self, statements: Sequence[tuple[str, Parameters]]) -> list[list[Row]]:
        """The rows of each of some named statements, which are all sent before the first answer is read."""
        with self._client() as client, client.pipeline():
            self.statements += len(statements)
            cursors = []
            for name, parameters in statements:
                cursors.append(client.cursor())
                cursors[-1].execute(self._queries[name], parameters)
            return [cursor.fetchall() for cursor in cursors]

    def vacuum(self) -> None:
        """Give the space of removed rows back to the tables, and their empty ends to the disk."""
        with self.connection() as client:
            client.execute("SELECT set_config('statement_timeout', '0', false)")
            names = client.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
            ).fetchall()
            for (name,) in names:
                client.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(name)))

    def insert(self, name: str, parameters: Parameters) -> int:
        """See `Database.insert`."""
        with self._client() as client, client.cursor() as cursor:
            self.statements += 1
            row = cursor.execute(self._queries[name], parameters).fetchone()
            return int(row[0]) if row else 0

    def copy(
        self,
        table: str,
        names: Sequence[str],
        pages: Iterable[Sequence[Sequence[Any]]],
        common: Mapping[str, int],
    ) -> None:
        """Write rows into a table by COPY.

        As text, which is put together by columns: to hand over row by row, in binary, took three times as long here. The server
        works on a page while the next one is made.

        :param pages: numbers or texts, by column; least is to do where the last ones are the same in each row.
        :param common: what all rows have.
        """
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, (*names, *common)))
        )
        tail = "".join(f"\t{value}" for value in common.values()) + "\n"
        with self._client() as client, client.cursor() as cursor:
            self.statements += 1
            with cursor.copy(statement) as copy:
                for columns in pages:
                    copy.write(_copied(columns, tail))

    def array(self, values: Iterable[Any]) -> list[Any]:
        """See `Database.array`."""
        return list(values)

    def ping(self) -> None:
        """See `Database.ping`."""
        self._sql("SELECT 1", ())

    def close(self) -> None:
        """See `Database.close`."""
        self.locks.close()
        if not self._pool.closed:
            self._pool.close()

    # -- schema ----------------------------------------------------------------------------------

    def _prepare(self, client: Client, migrate: bool) -> None:
        if client.info.server_version < _OLDEST:
            raise ConfigError(
                f"{self.name} runs PostgreSQL {client.info.parameter_status('server_version')}",
                resource=self.name,
                hint="13 or later is needed",
            )
        if client.info.encoding != "utf-8":
            client.execute("SET client_encoding TO 'UTF8'")
        version, known = schema_version(client), len(migrations("postgres"))
        if version > known:
            raise ConfigError(
                f"{self.name} was written by a newer syncagent (schema {version}, this one knows {known})",
                resource=self.name,
                hint="upgrade syncagent",
            )
        if version < known and not migrate:
            raise ConfigError(
                f"{self.name} has schema {version}, this syncagent needs {known}",
                resource=self.name,
                hint="run 'syncagent catalog migrate'",
            )
        if version < known:
            apply(client, migrations("postgres"))
        ((self.stamp,),) = client.execute("SELECT value FROM setting WHERE name = 'stamp'").fetchall()

    @property
    def version(self) -> int:
        """Of the schema."""
        with self._client() as client:
            return schema_version(client)


class Locks:
    """Advisory locks that last: in a transaction that stays open, on a connection of its own, opened on first use.

    They end with the connection: when this process dies, or the server. A pooler in transaction mode keeps the connection
    for as long as the transaction. Used from many threads.
    """

    def __init__(self, database: PostgresConnection) -> None:
        self._database = database
        self._mutex = threading.Lock()
        self._client: Client | None = None
        self._held: set[int] = set()
        self._generation = 0

    def take(self, key: int) -> bool:
        """Take a lock, if nobody has it. One that this process has is taken only once."""
        with self._mutex, self._database.translated():
            self._sound()
            if key in self._held:
                return False
            if self._ask("SELECT pg_try_advisory_lock(%s)", key):
                self._held.add(key)
                return True
            return False

    def has(self, key: int) -> bool:
        """Whether this process still has a lock: they are gone where the connection broke."""
        with self._mutex, self._database.translated():
            self._sound()
            return key in self._held

    def release(self, key: int) -> None:
        """Let others take it. Not to have it is fine."""
        with self._mutex, contextlib.suppress(psycopg.Error):
            if key in self._held:
                self._held.discard(key)
                self._ask("SELECT pg_advisory_unlock(%s)", key)

    def free(self, key: int) -> bool:
        """Whether no process has a lock."""
        with self._mutex, self._database.translated():
            self._sound()
            if key in self._held:
                return False
            if self._ask("SELECT pg_try_advisory_lock(%s)", key):
                self._ask("SELECT pg_advisory_unlock(%s)", key)
                return True
            return False

    def close(self) -> None:
        """Release all of them."""
        with self._mutex:
            self._held.clear()
            if self._client is not None:
                with contextlib.suppress(psycopg.Error):
                    self._client.execute("SELECT pg_advisory_unlock_all()")
                self._client.close()
                self._client = None

    def _ask(self, statement: LiteralString, key: int) -> bool:
        assert self._client is not None  # noqa: S101  # after `_sound`
        row = self._client.execute(statement, (key,)).fetchone()
        return bool(row and row[0])

    def _sound(self) -> None:
        """See that the connection stands. If it does not, a new one holds nothing."""
        if self._client is not None:
            try:
                self._client.execute("SELECT 1")
            except psycopg.Error:
                self._client.close()
                self._client = None
        if self._client is None:
            self._held.clear()
            client = self._database.connect()
            try:
                client.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                client.execute("SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
                if client.info.server_version >= 17_00_00:
                    client.execute("SELECT set_config('transaction_timeout', '0', true)")
            except BaseException:
                client.close()
                raise
            self._client = client


def apply(client: Client, scripts: Sequence[str]) -> int:
    """Apply the migrations that are missing, one transaction each; returns how many were applied.

    Processes that open a new catalog at the same time wait for each other.
    """
    applied = 0
    for number, script in enumerate(scripts, start=1):
        with client.transaction():
            # By schema: catalogs beside each other do not wait for each other.
            client.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('syncagent ' || current_schema(), 0))"
            )
            if schema_version(client) >= number:
                continue  # another process was faster
            for statement in split(script):
                client.execute(statement)
            if number == 1:
                client.execute(
                    "INSERT INTO setting (name, value) SELECT 'stamp', substr(md5(gen_random_uuid()::text), 1, 8)"
                )
            client.execute(
                "INSERT INTO setting (name, value) VALUES ('schema', %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (str(number),),
            )
            applied += 1
    return applied


def schema_version(client: Client) -> int:
    """How many migrations a schema has had; 0 for a new one."""
    ((there,),) = client.execute("SELECT to_regclass('setting') IS NOT NULL").fetchall()
    if not there:
        return 0
    rows = client.execute("SELECT value FROM setting WHERE name = 'schema'").fetchall()
    return int(rows[0][0]) if rows else 0


def shown(conninfo: str) -> str:
    """A catalog's address for people: no password, no user, no key."""
    told = conninfo_to_dict(conninfo)
    host, port = str(told.get("host") or told.get("hostaddr") or ""), told.get("port")
    where = "" if host.startswith("/") else host + (f":{port}" if port else "")
    service = told.get("service")
    return f"postgresql://{where}/{told.get('dbname') or (f'?service={service}' if service else '')}"


def without_password(url: str) -> str:
    """A catalog's URL as another machine may be told it: it brings its own password, by ``PGPASSWORD`` or a password file."""
    told = conninfo_to_dict(_conninfo(url))
    kept = {name: str(value) for name, value in told.items() if "password" not in name and value is not None}
    return f"postgresql:///?{urlencode(kept, quote_via=quote)}"


def _conninfo(url: str) -> str:
    try:
        told = conninfo_to_dict(url)
        # What a service file says counts more than our own wishes, which libpq could not tell from the user's.
        wishes = {} if told.get("service") else {n: v for n, v in _DEFAULTS.items() if n not in told}
        return make_conninfo(url, **wishes)
    except psycopg.ProgrammingError:
        # libpq's words repeat the URL, and with it the password.
        raise ConfigError(
            "the catalog's URL is none that PostgreSQL's clients understand",
            hint="write postgresql://user@host/database, special characters as %XX",
        ) from None


def _copied(columns: Sequence[Sequence[Any]], tail: str) -> str:
    """Rows as COPY takes them.

    :param tail: the end of each.
    """
    rows, each = len(columns[0]), list(columns)
    while len(each) > 1 and _all_same(each[-1]):  # often so: a bucket's objects have one storage class
        tail = f"\t{_word(each.pop()[0])}{tail}"
    try:
        texts = [map(int.__repr__, one) if isinstance(one[0], int) else one for one in each]
        text = "\n".join(map("\t".join, zip(*texts, strict=True)))
    except TypeError:  # there is a null
        text = ""
    # As many separators as there have to be: no value holds one.
    plain = text.count("\t") == rows * (len(each) - 1) and text.count("\n") == rows - 1
    if not text or not plain or "\\" in text or "\r" in text:
        words = ["\t".join(map(_word, row)) for row in zip(*each, strict=True)]
        return "".join([f"{word}{tail}" for word in words])
    return text.replace("\n", tail) + tail


def _all_same(values: Sequence[Any]) -> bool:
    return bool(values[0] == values[-1]) and values.count(values[0]) == len(values)


def _word(value: Any) -> str:
    if value is None:
        return "\\N"
    return value.translate(_ESCAPES) if isinstance(value, str) else str(value)


def _used(client: Client) -> None:
    client.used = time.monotonic()  # type: ignore[attr-defined]  # ours


def _check(client: Client) -> None:
    """Called when a connection is taken: raises if it is not sound any more."""
    if time.monotonic() - getattr(client, "used", 0.0) > _FRESH_SECONDS:
        ConnectionPool.check_connection(client)


_STATES: dict[str, tuple[type[SyncAgentError], str, str]] = {
    "28": (AccessDenied, "refused the login", "check user, password and pg_hba.conf"),
    "3D": (ConfigError, "has no such database", "make it with createdb"),
    "3F": (ConfigError, "has no such schema", "make it with CREATE SCHEMA"),
    "42501": (AccessDenied, "lets this user not do that", "docs/postgresql.md tells which rights are needed"),
    "25006": (
        AccessDenied,
        "is read-only",
        "name the primary server, or add target_session_attrs=read-write",
    ),
    "53100": (Transient, "has a full disk", "make room and run it again"),
    "53300": (Transient, "has no connection left", "lower catalog_pool, or raise max_connections"),
    "53": (Transient, "has no room left", "try again later"),
    "57014": (Transient, "took too long", "try again later"),
    "55P03": (Transient, "is locked by another process", "try again when it is done"),
    "40": (Transient, "gave another process the right of way", "try again"),
    "08": (Transient, "is out of reach", "check that it runs"),
    "57": (Transient, "is being stopped", "try again when it runs"),
    "58": (Transient, "has trouble with its disk", "check the server's log"),
    "54000": (InvalidInput, "has no room for so long a name", "shorten it"),
    "22021": (InvalidInput, "cannot hold a text with a NUL character", "take it out"),
    "22P05": (InvalidInput, "cannot hold a text with a NUL character", "take it out"),
    "22P02": (InvalidInput, "cannot hold this value", "half a pair of surrogates is no text"),
    "22003": (InvalidInput, "has no room for so large a number", "take a smaller one"),
}


def _translate(error: Exception, name: str) -> SyncAgentError:
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, errors.UniqueViolation | errors.ForeignKeyViolation):
        return Conflict(
            f"somebody else wrote to the catalog {name} meanwhile", resource=name, hint="try again"
        )
    for length in (5, 2):
        if state[:length] in _STATES:
            kind, what, hint = _STATES[state[:length]]
            return kind(f"the catalog {name} {what}", resource=name, hint=hint)
    if isinstance(error, psycopg.DataError) and not state and "NUL" in str(error):
        kind, what, hint = _STATES["22021"]
        return kind(f"the catalog {name} {what}", resource=name, hint=hint)
    if isinstance(error, PoolTimeout):
        return Transient(
            f"no connection to the catalog {name} was free",
            resource=name,
            hint="try again, or raise catalog_pool",
        )
    if isinstance(error, psycopg.OperationalError | PoolClosed) and not state:
        return _unreached(error, name)
    return SyncAgentError(f"the catalog {name} failed: {state or type(error).__name__}", resource=name)


def _unreached(error: Exception, name: str) -> SyncAgentError:
    """Failures to connect have no SQLSTATE, only libpq's words. Those may hold a user's name, and are not repeated."""
    told = str(error)
    for words, state in (
        ("password authentication failed", "28"), ("no password supplied", "28"), ("no pg_hba.conf entry", "28"),
        ("authentication failed", "28"), ("does not exist", "3D"), ("too many clients", "53300"),
        ("remaining connection slots", "53300"), ("session is read-only", "25006"), ("certificate", "28"),
        ("server does not support SSL", "28"),
    ):  # fmt: skip
        if words in told:
            kind, what, hint = _STATES[state]
            if words == "does not exist" and "role" in told:
                kind, what, hint = _STATES["28"]
            if words in ("certificate", "server does not support SSL"):
                what, hint = (
                    "has no certificate that sslmode accepts",
                    "check sslmode and sslrootcert in its URL",
                )
            return kind(f"the catalog {name} {what}", resource=name, hint=hint)
    if "definition of service" in told:
        return ConfigError("the catalog's service is in no service file", hint="check PGSERVICEFILE")
    return Transient(f"the catalog {name} is out of reach", resource=name, hint="check that it runs")


__all__ = [
    "Locks",
    "PostgresConnection",
    "TransactionStatus",
    "apply",
    "schema_version",
    "shown",
    "without_password",
]
