"""Datasets as the platform knows them: in projects, with metadata, with or without a driver."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Json, merged
from syncagent.catalog.wire import time
from syncagent.errors import AlreadyExists, ConfigError, NotFound

BINARIES = "Binaries"
"""The name of each project's hidden dataset for outputs, icons and saved filters."""


class Datasets:
    """Datasets by id and by name in a project."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._db = catalog.db

    def create(
        self,
        project: str,
        name: str,
        *,
        by: str,
        driver: str | None = None,
        data: Mapping[str, Any] | None = None,
        system: bool = False,
    ) -> Json:
        """Make an empty dataset.

        :param project: id of the project; :param driver: id of its driver, or None.
        :raises AlreadyExists: the project has one of this name.
        :raises NotFound: no such project, or the project has no such driver.
        """
        if not name or "\0" in name:
            raise ConfigError("a dataset needs a name")
        n_id, now = secrets.token_hex(12), self._catalog.now()
        with self._db.transaction():
            number = self._project(project)
            given = {
                "id": n_id, "name": name, "now": now, "by": by, "system": int(system), "project": number,
                "driver": None if driver is None else self._driver(driver, number),
                "data": json.dumps(dict(data or {})),
            }  # fmt: skip
            if not self._db.change("create_dataset", given):
                raise AlreadyExists(
                    f"there is a dataset {name!r} already", resource=name, hint="choose another name"
                )
        return self.get(n_id)

    def binaries(self, project: str) -> Json:
        """The project's hidden dataset, made on first use."""
        for found in self.of(projects=[project], name=BINARIES, system=True):
            return found
        try:
            return self.create(project, BINARIES, by="syncagent", system=True)
        except AlreadyExists:  # by another process, meanwhile
            return self.binaries(project)

    def get(self, dataset: str, *, counted: bool = True) -> Json:
        """One dataset.

        :param counted: count its items and annotations, which takes a walk over them; else the counts are None.
        :raises NotFound: there is none.
        """
        for row in self._db.query("dataset_by_id", {"id": dataset, "counted": counted}):
            return self._json(row)
        raise NotFound(f"no dataset {dataset!r}", resource=dataset)

    def of(
        self, *, projects: Sequence[str] | None = None, name: str | None = None, system: bool = False
    ) -> list[Json]:
        """Datasets of some projects (None: of all), by name."""
        given = {
            "everywhere": projects is None,
            "projects": self._db.array(projects or ()),
            "name": name,
            "system": system,
        }
        return [self._json(row) for row in self._db.query("datasets_of", given)]

    def change(
        self, dataset: str, *, name: str | None = None, readonly: bool | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Json:  # fmt: skip
        """Rename, lock, merge metadata.

        :raises AlreadyExists: the project has another one of this name.
        """
        with self._db.transaction():
            old = self.get(dataset, counted=False)
            if name not in (None, old["name"]) and self.of(projects=old["projects"], name=name, system=True):
                raise AlreadyExists(f"there is a dataset {name!r} already", resource=name)
            kept = {part: old[part] for part in ("metadata", "expirationOptions") if old.get(part)}
            given = {
                "id": dataset, "name": name or old["name"], "now": self._catalog.now(),
                "readonly": int(old["readonly"] if readonly is None else readonly),
                "data": json.dumps(merged(kept, data or {})),
            }  # fmt: skip
            self._db.change("change_dataset", given)
        return self.get(dataset)

    def folders(self, dataset: str) -> list[str]:
        """Every directory that holds an item, however deep, and those that people made; sorted, without ``/``."""
        rows = self._db.query("folders", self._catalog.source(dataset))
        found: set[str] = set()
        for (key,) in rows:
            folder = key
            while folder and folder not in found:
                found.add(folder)
                folder = folder.rpartition("/")[0]
        return sorted(found)

    def _driver(self, driver: str, project: int) -> int:
        # Another project's bucket, and the credentials behind it, are not this one's to open.
        for number, owner in self._db.query("driver_by_id", {"id": driver}):
            if owner == project:
                return int(number)
        raise NotFound(f"no driver {driver!r}", resource=driver)

    def _project(self, public_id: str) -> int:
        rows = self._db.query("project_by_id", {"id": public_id})
        if not rows:
            raise NotFound(f"no project {public_id!r}", resource=public_id)
        number: int = rows[0][0]
        return number

    def _json(self, row: Sequence[Any]) -> Json:
        (
            n_id,
            name,
            project,
            driver,
            creator,
            created,
            updated,
            readonly,
            system,
            data,
            items,
            annotated,
            labels,
        ) = row
        told = json.loads(data)
        metadata = told.get("metadata") or {}
        metadata.setdefault("system", {}).setdefault("recipes", [])
        return {
            "id": n_id,
            "name": name,
            "projects": [project],
            "driver": driver,
            "creator": creator,
            "createdAt": time(created),
            "updatedAt": time(created if updated is None else updated),
            "readonly": bool(readonly),
            "system": bool(system),
            "metadata": metadata,
            "expirationOptions": told.get("expirationOptions"),
            "itemsCount": items,
            "annotated": annotated,
            "annotationsCount": labels,
        }
