"""Where the tests' catalogs are: SQLite files, or, with SYNCAGENT_TEST_CATALOG=postgres, schemas of one PostgreSQL server.

A test names a file. The same name is the same catalog, also for another process that is given its URL.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.sqlite import SqliteCatalog

POSTGRES = os.environ.get("SYNCAGENT_TEST_CATALOG") == "postgres"


def url_of(path: Path) -> str:
    """The URL of a catalog."""
    return _schema(path.absolute()) if POSTGRES else f"sqlite:///{path}"


def open_at(path: Path, **options: Any) -> SqlCatalog:
    """A catalog, made if there is none.

    :param options: what both kinds of catalog take: `timeout`, `clock`, `migrate`, `secret_key`.
    """
    if not POSTGRES:
        return SqliteCatalog(path, **options)
    from syncagent.catalog.sql.postgres import PostgresCatalog

    # As settings have them, which the fixtures of this mode set.
    folder, key = Path(os.environ["SYNCAGENT_FILES"]), Path(os.environ["SYNCAGENT_SECRET_KEY_FILE"])
    return PostgresCatalog(url_of(path), secret_key_file=key, folder=folder / "catalog", **options)


def copy_to(path: Path, other: Path) -> None:
    """Make a catalog that holds what another one holds."""
    if not POSTGRES:
        shutil.copy(path, other)
        return
    from tests.rigs.postgres import server

    open_at(other).close()
    server().clone(_name(path), _name(other))


@cache
def _schema(path: Path) -> str:
    from tests.rigs.postgres import server

    return server().schema(_name(path))


def _name(path: Path) -> str:
    return f"t_{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]}"
