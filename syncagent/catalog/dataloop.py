"""The catalog behind a server of ours, as `Catalog`: what `Reconciler.settle`, `plan` and `check` need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from syncagent.catalog.rest import Session
from syncagent.errors import Conflict, NotFound, Unsupported
from syncagent.model import ObjectInfo, Row

_BATCH = 5000


class DataloopCatalog:
    """`Catalog` over HTTP. Compare-and-set happens at the server, so it converges as the embedded one does.

    :raises Unsupported: at the first call, if the server does not offer the reconciler's operations.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._offered = False

    def __repr__(self) -> str:
        return f"<DataloopCatalog {self._session.gate}>"

    def close(self) -> None:
        """See `Catalog.close`."""
        self._session.close()

    def get(self, dataset: str, key: str) -> Row | None:
        """See `Catalog.get`."""
        (row,) = self._call(dataset, "get", keys=[key])["rows"]
        return None if row is None else Row._make(row)

    def scan(
        self, dataset: str, *, after: str | None = None, until: str | None = None, limit: int | None = None
    ) -> Iterator[Row]:
        """See `Catalog.scan`. One request for 5,000 rows."""
        left = limit
        while left is None or left > 0:
            page = _BATCH if left is None else min(_BATCH, left)
            rows = self._call(dataset, "scan", after=after, until=until, limit=page)["rows"]
            yield from map(Row._make, rows)
            if len(rows) < page:
                return
            after = rows[-1][0]
            left = None if left is None else left - len(rows)

    def stamps(
        self, dataset: str, *, after: str | None, until: str, limit: int
    ) -> list[tuple[str, str | None]]:
        """See `Catalog.stamps`."""
        found: list[tuple[str, str | None]] = []
        while limit > 0:
            page = min(_BATCH, limit)
            told = self._call(dataset, "stamps", after=after, until=until, limit=page)["stamps"]
            found += map(tuple, told)
            if len(told) < page:
                break
            after, limit = told[-1][0], limit - len(told)
        return found

    def insert_new(self, dataset: str, found: Sequence[ObjectInfo], *, run: int = 0) -> list[str]:
        """See `Catalog.insert_new`. One request for 5,000 objects.

        A request whose answer was lost is sent again, and then tells its own keys as known: they are settled,
        which is right, and slower. `run` stays here: the server pairs no moves of a sweep that it does not run.
        """
        known: list[str] = []
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            known += self._call(dataset, "insert", found=batch)["known"]
        return known

    def settle(self, dataset: str, key: str, found: ObjectInfo | None, *, expect_rev: int) -> Row:
        """See `Catalog.settle`. An answer that was lost ends in `Conflict`, and so in another look."""
        one = {"key": key, "found": found, "expectRev": expect_rev}
        (row,) = self._call(dataset, "settle", settles=[one])["rows"]
        if row is None:
            raise Conflict(f"{key!r} was settled by somebody else meanwhile", resource=key)
        return Row._make(row)

    def _call(self, dataset: str, operation: str, **body: Any) -> Any:
        if not self._offered:
            self._discover()
        return self._session.post(f"/syncagent/datasets/{dataset}/{operation}", body)

    def _discover(self) -> None:
        try:
            told = self._session.get("/syncagent")
        except NotFound as error:
            raise Unsupported(
                f"{self._session.gate} does not offer the reconciler's operations",
                resource=self._session.gate,
                hint="point it at a 'syncagent serve'",
            ) from error
        if not isinstance(told, dict) or told.get("version") != 1:
            raise Unsupported(
                f"{self._session.gate} offers them in another version", hint="upgrade the older of the two"
            )
        self._offered = True
