"""Webhooks of datasets, and the outbox of what they are to be told. Shares the catalog's connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from syncagent.catalog.base import Item
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Items
from syncagent.errors import NotFound

_TAKEN_SECONDS = 120  # longer than a request may take


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom to tell of one dataset's items."""

    dataset: str
    """Its name."""
    url: str
    sealed: bytes = field(repr=False)
    """The secret; `Webhooks.secret` opens it."""
    private: bool
    """Whether it may be on a private network."""
    waiting: int = 0
    """What is still to be told."""
    failures: int = 0
    """In a row."""
    dropped: int = 0
    """Given up."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Telling:
    """One thing to tell."""

    n: int
    dataset_id: str
    item: Item | None
    """As it is now; None where it is gone for good."""
    item_id: str
    what: str
    key: str
    source: str | None
    at: int
    """Unix seconds."""
    attempts: int = 0
    """How often the receiver refused it."""


class Webhooks:
    """Webhooks by dataset, and their outbox."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog, self._db = catalog, catalog.db

    def put(self, dataset: str, url: str, secret: str, *, private: bool = False) -> None:
        """Tell a URL of a dataset's items from now on, in place of another.

        :param dataset: its name. :raises NotFound: no such dataset.
        """
        number = self._number(dataset)
        given = {
            "dataset": number, "url": url, "sealed": self._catalog.vault.seal({"secret": secret}),
            "private": int(private), "now": self._catalog.now(),
        }  # fmt: skip
        with self._db.transaction():
            self._db.change("put_webhook", given)
            self._catalog.webhooks_changed()

    def remove(self, dataset: str) -> None:
        """Tell nobody any more, also not what waits.

        :raises NotFound: no such dataset, or it has no webhook.
        """
        number = self._number(dataset)
        with self._db.transaction():
            if not self._db.change("remove_webhook", {"dataset": number}):
                raise NotFound(f"dataset {dataset!r} has no webhook", resource=dataset)
            self._db.change("empty_outbox", {"dataset": number})
            self._catalog.webhooks_changed()

    def secret(self, hook: Webhook) -> str:
        """What it signs with, or a reference to that.

        :raises AccessDenied: it was sealed with another key.
        """
        return self._catalog.vault.open(hook.sealed, f"webhook of {hook.dataset}")["secret"]

    def all(self) -> list[Webhook]:
        """All, by the dataset's name."""
        return [
            Webhook(name, url, sealed, bool(private), waiting, failures, dropped, error)
            for name, url, sealed, private, waiting, failures, dropped, error in self._db.query("webhooks")
        ]  # fmt: skip

    def get(self, dataset: str) -> Webhook:
        """One. :raises NotFound: the dataset has none."""
        for one in self.all():
            if one.dataset == dataset:
                return one
        raise NotFound(f"dataset {dataset!r} has no webhook", resource=dataset)

    def take(self, dataset: str, most: int) -> list[Telling]:
        """What is to be told next, oldest first; ours for two minutes, also where several processes tell.

        Nothing while the webhook rests after a failure.
        """
        now, number = self._catalog.now(), self._number(dataset)
        given = {"dataset": number, "now": now, "until": now + _TAKEN_SECONDS, "most": most}
        with self._db.transaction(number):
            rows = sorted(self._db.query("take_outbox", given))
        items = Items(self._catalog)
        known = {item.id: item for item in items.numbered([item for _, item, *_ in rows])}
        id = self._catalog.dataset(dataset).id
        return [
            Telling(n, id, known.get(public), public, what, key, source, at, attempts)
            for n, item, what, key, source, at, attempts in rows
            for public in [self._catalog.public_id(item)]
        ]

    def told(self, dataset: str, numbers: Sequence[int]) -> None:
        """It went well: forget them."""
        with self._db.transaction():
            self._db.change_many("told", [{"n": n} for n in numbers])
            self._db.change("webhook_well", {"dataset": self._number(dataset)})

    def release(self, numbers: Sequence[int]) -> None:
        """They were not told, and nobody is to blame."""
        with self._db.transaction():
            self._db.change_many("release_outbox", [{"n": n} for n in numbers])

    def refused(self, dataset: str, telling: Telling, error: str, after: int, before: int) -> bool:
        """The receiver does not want one of them: it is told again, and holds up its own item only; whether it was given up.

        :param after: seconds until then; :param before: what is older than this is given up, in Unix seconds.
        """
        old = telling.at < before
        with self._db.transaction():
            if old:
                self._db.change("told", {"n": telling.n})
            else:
                self._db.change("refuse_outbox", {"n": telling.n, "retry_at": self._catalog.now() + after})
            given = {"dataset": self._number(dataset), "error": error, "dropped": int(old)}
            self._db.change("webhook_refused", given)
        return old

    def failed(self, dataset: str, numbers: Sequence[int], error: str, after: int, before: int) -> int:
        """It did not: they are told again; returns how many were given up.

        :param after: seconds that the webhook rests; :param before: what is older than this is given up, in Unix seconds.
        """
        number = self._number(dataset)
        with self._db.transaction():
            self._db.change_many("release_outbox", [{"n": n} for n in numbers])
            dropped = self._db.change("drop_outbox", {"dataset": number, "before": before})
            given: dict[str, Any] = {
                "dataset": number, "error": error, "retry_at": self._catalog.now() + after, "dropped": dropped,
            }  # fmt: skip
            self._db.change("webhook_failed", given)
        return dropped

    def _number(self, dataset: str) -> int:
        number: int = self._catalog.source(self._catalog.dataset(dataset).id)["dataset"]
        return number
