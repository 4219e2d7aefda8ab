"""Catalogs by URL: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a file's path."""

from __future__ import annotations

from pathlib import Path

from syncagent.catalog.base import Catalog, Dataset, Item, Quarantined, Run, Store
from syncagent.errors import ConfigError

__all__ = ["Catalog", "Dataset", "Item", "Quarantined", "Run", "Store", "open_catalog"]


def open_catalog(
    url: str,
    *,
    secret_key: str | None = None,
    secret_key_file: Path | None = None,
    timeout: float = 30.0,
    migrate: bool = True,
) -> Store:
    """Open a catalog, creating it and bringing its schema up to date.

    :param secret_key: Fernet key that seals integrations; else from `secret_key_file`, else from
        a file beside the catalog that is made on first use with mode 0600.
    :param timeout: seconds to wait for another process's write.
    :param migrate: False leaves an older schema as it is and raises instead.
    :raises ConfigError: unknown scheme, no catalog file, or a schema newer than this syncagent.
    :raises AccessDenied: the file may not be read or written.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "sqlite", f"/{url}"
    if scheme != "sqlite":
        raise ConfigError(
            f"unknown catalog {scheme}://", resource=url.partition("?")[0], hint="use sqlite:///file.db"
        )
    from syncagent.catalog.sql.sqlite import SqliteCatalog

    path = Path(rest.removeprefix("/")).expanduser()
    if not path.name:
        raise ConfigError("the catalog's URL names no file", hint="write sqlite:///catalog.db")
    return SqliteCatalog(
        path, secret_key=secret_key, secret_key_file=secret_key_file, timeout=timeout, migrate=migrate
    )
