"""Catalogs by URL: ``sqlite:///file.db``, a file's path, ``postgresql://user@host/database``, ``dataloop+https://host``."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from syncagent.catalog.base import Catalog, Dataset, Item, Quarantined, Run, Store
from syncagent.config import home
from syncagent.errors import ConfigError

__all__ = ["Catalog", "Dataset", "Item", "Quarantined", "Run", "Store", "open_catalog"]


def open_catalog(
    url: str,
    *,
    secret_key: str | None = None,
    secret_key_file: Path | None = None,
    timeout: float = 30.0,
    migrate: bool = True,
    username: str | None = None,
    password: SecretStr | None = None,
    dataset_id: str | None = None,
    pool: int = 8,
    files: Path | None = None,
) -> Store:
    """Open a catalog, creating it and bringing its schema up to date.

    :param secret_key: Fernet key that seals integrations; else from `secret_key_file`, else from
        a file beside the catalog that is made on first use with mode 0600. PostgreSQL has no such place.
    :param timeout: seconds to wait for another process's write.
    :param migrate: False leaves an older schema as it is and raises instead.
    :param username: with `password`, the account at a server; an embedded catalog needs none.
    :param dataset_id: the one dataset of a server to work on; None for all that the account may see.
    :param pool: connections to PostgreSQL at most.
    :param files: folder for bytes that belong to no bucket; default beside the catalog. PostgreSQL has no such place.
    :raises ConfigError: unknown scheme, no catalog file, or a schema newer than this syncagent.
    :raises AccessDenied: the file may not be read or written.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "sqlite", f"/{url}"
    if scheme in {"dataloop+https", "dataloop+http"}:
        return _remote(url.removeprefix("dataloop+"), username, password, dataset_id)
    folder = None if files is None else files / "catalog"
    if scheme in {"postgresql", "postgres"}:
        try:
            from syncagent.catalog.sql.postgres import PostgresCatalog
        except ModuleNotFoundError as error:
            if error.name not in {"psycopg", "psycopg_pool"}:
                raise
            raise ConfigError(
                "a catalog on PostgreSQL needs the package psycopg", hint="pip install 'syncagent[postgres]'"
            ) from error
        return PostgresCatalog(
            url, secret_key=secret_key, secret_key_file=secret_key_file, timeout=timeout, migrate=migrate,
            pool=pool, folder=folder,
        )  # fmt: skip
    if scheme != "sqlite":
        raise ConfigError(
            f"unknown catalog {scheme}://",
            resource=f"{scheme}://",
            hint="use sqlite:///file.db, postgresql://host/database or dataloop+https://host",
        )
    from syncagent.catalog.sql.sqlite import SqliteCatalog

    path = Path(rest.removeprefix("/")).expanduser()
    if not path.name:
        raise ConfigError("the catalog's URL names no file", hint="write sqlite:///catalog.db")
    return SqliteCatalog(
        path, secret_key=secret_key, secret_key_file=secret_key_file, timeout=timeout, migrate=migrate,
        folder=folder,
    )  # fmt: skip


def _remote(url: str, username: str | None, password: SecretStr | None, dataset_id: str | None) -> Store:
    from syncagent.catalog.rest import Session

    if not username or not password:
        raise ConfigError(
            "the catalog's server needs an account", hint="set DTLPY_USERNAME and DTLPY_PASSWORD"
        )
    session = Session(url, username, password)
    try:
        from syncagent.catalog.served import ServedCatalog, is_served

        if is_served(session):
            return ServedCatalog(session, only=dataset_id)
    except BaseException:
        session.close()
        raise
    from syncagent.catalog.dataloop import DataloopCatalog

    name = session.gate.partition("://")[2].replace(":", "-")
    return DataloopCatalog(session, only=dataset_id, journal=home() / f"journal-{name}.db")
