"""What the routes hold: the catalog's parts, the datasets' bytes and the jobs that run."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from syncagent.agent import Agent
from syncagent.catalog.sql.accounts import Accounts
from syncagent.catalog.sql.annotations import Annotations
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.commands import Commands
from syncagent.catalog.sql.datasets import Datasets
from syncagent.catalog.sql.items import Items
from syncagent.catalog.sql.recipes import Recipes
from syncagent.errors import ConfigError, Refused, SyncAgentError
from syncagent.ingest.content import Content
from syncagent.ingest.thumbnails import Cache
from syncagent.reconcile import Reconciler

_THUMBNAIL_BYTES = 1 << 30
_log = logging.getLogger(__name__)
Json = dict[str, Any]
Progress = Callable[[int], None]


class Aborted(SyncAgentError):
    """Somebody aborted the command."""


class Platform:
    """One server's view of the catalog. Used from many threads."""

    def __init__(self, agent: Agent) -> None:
        catalog = agent.catalog
        if not isinstance(catalog, SqlCatalog):
            raise ConfigError(
                "only an embedded catalog can be served",
                hint="set SYNCAGENT_CATALOG to a file or to postgresql://…",
            )
        self.agent = agent
        self.catalog = catalog
        self.items = Items(catalog)
        self.annotations = Annotations(catalog)
        self.datasets = Datasets(catalog)
        self.recipes = Recipes(catalog)
        self.accounts = Accounts(catalog)
        self.organization = str(uuid.uuid5(uuid.NAMESPACE_URL, f"syncagent:{catalog.stamp}"))
        self.commands = Commands(catalog)
        self.files = catalog.files
        self.thumbnails = Cache(catalog.beside("thumbnails"), _THUMBNAIL_BYTES)
        self._contents: dict[str, Content] = {}
        self._lock = threading.Lock()
        self._jobs = ThreadPoolExecutor(4, thread_name_prefix="syncagent-command")
        self.commands.abandon()

    def content(self, dataset: str) -> Content:
        """The bytes of a dataset's items."""
        with self._lock:
            if dataset not in self._contents:
                self._contents[dataset] = Content(self.items, self.files, dataset, self.reconciler(dataset))
            return self._contents[dataset]

    def reconciler(self, dataset: str) -> Reconciler | None:
        """What mirrors a dataset's bucket; None if it has no driver."""
        found = self.catalog.dataset(dataset)
        return None if found.driver.type == "none" else self.agent.reconciler(found)

    def forget(self, dataset: str) -> None:
        """Open the dataset's bucket anew, or never again."""
        with self._lock:
            self._contents.pop(dataset, None)

    def forget_all(self) -> None:
        """Open every bucket anew, with what credentials there are by now."""
        with self._lock:
            self._contents.clear()

    def writable(self, dataset: str) -> Json:
        """The dataset, if it is not locked.

        :raises Refused: it is read-only.
        """
        found = self.datasets.get(dataset, counted=False)
        if found["readonly"]:
            raise Refused(f"dataset {found['name']!r} is read-only", resource=dataset, hint="unlock it first")
        return found

    def start(
        self, kind: str, by: str, work: Callable[[Progress], Mapping[str, Any]], *, spec: Mapping[str, Any]
    ) -> Json:
        """Run `work` as a command; what it returns is laid over the command's spec."""
        command = self.commands.create(kind, by=by, spec=spec)
        self._jobs.submit(self._run, command["id"], work)
        return command

    def _run(self, command: str, work: Callable[[Progress], Mapping[str, Any]]) -> None:
        def progress(percent: int) -> None:
            if not self.commands.advance(command, max(0, min(99, percent))):
                raise Aborted("the command was aborted", resource=command)

        try:
            self.commands.end(command, "success", spec=work(progress))
        except Aborted:
            return
        except SyncAgentError as error:
            self.commands.end(command, "failed", error=str(error))
        except Exception:
            _log.exception("command %s failed", command)
            self.commands.end(command, "failed", error="an internal error; the server's log tells more")

    def close(self) -> None:
        """Wait for what runs. Commands that have not begun fail when the next server starts."""
        self._jobs.shutdown(wait=True, cancel_futures=True)
