"""Commands: long jobs that a client asks after."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Json
from syncagent.catalog.wire import time
from syncagent.errors import NotFound

FINAL = frozenset({"success", "failed", "timeout", "canceled", "aborted"})


class Commands:
    """Commands by id. Statuses are the platform's words."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._db = catalog.db

    def create(self, kind: str, *, by: str, spec: Mapping[str, Any]) -> Json:
        """A command that is in progress."""
        n_id = secrets.token_hex(12)
        given = {
            "id": n_id,
            "type": kind,
            "by": by,
            "spec": json.dumps(dict(spec)),
            "now": self._catalog.now(),
            "holder": self._catalog.presence(),
        }
        self._db.change("create_command", given)
        return self.get(n_id)

    def get(self, command: str) -> Json:
        """One command.

        :raises NotFound: there is none.
        """
        for row in self._db.query("command", {"id": command}):
            return _json(row)
        raise NotFound(f"no command {command!r}", resource=command)

    def list(self, by: str) -> list[Json]:
        """The newest hundred that somebody started."""
        return [_json(row) for row in self._db.query("commands_of", {"by": by})]

    def advance(self, command: str, progress: int) -> bool:
        """Say how far it is, in percent; returns whether it is still wanted."""
        given = {"id": command, "progress": progress, "now": self._catalog.now()}
        return bool(self._db.change("advance_command", given))

    def end(
        self, command: str, status: str, *, spec: Mapping[str, Any] | None = None, error: str | None = None
    ) -> Json:
        """End it, unless it has ended. `spec` is laid over what it was made with."""
        with self._db.transaction():
            told = {**self.get(command)["spec"], **(spec or {})}
            given = {
                "id": command, "status": status, "spec": json.dumps(told), "error": error, "now": self._catalog.now()
            }  # fmt: skip
            self._db.change("end_command", given)
        return self.get(command)

    def abandon(self) -> int:
        """Fail what a process that is gone had begun; returns how many."""
        gone = [n_id for n_id, holder in self._db.query("commands_held") if self._catalog.absent(holder)]
        now = self._catalog.now()
        return sum(self._db.change("abandon_command", {"id": n_id, "now": now}) for n_id in gone)


def _json(row: Sequence[Any]) -> Json:
    n_id, kind, creator, status, progress, spec, error, created, updated = row
    return {
        "id": n_id,
        "type": kind,
        "creator": creator,
        "status": status,
        "progress": progress,
        "spec": json.loads(spec),
        "error": error,
        "createdAt": time(created),
        "updatedAt": time(updated),
    }
