"""What a worker of a cluster does: list a range, compare it with the catalog, write.

It opens bucket and catalog itself. The catalog's address comes with the order, without a password, unless this worker's own settings name one;
everything secret comes from the worker's environment, and an integration from the catalog.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from syncagent import __version__
from syncagent.agent import Agent
from syncagent.catalog.base import Ranges, Run
from syncagent.catalog.sql.postgres import PostgresCatalog
from syncagent.cluster.base import Order
from syncagent.config import load
from syncagent.errors import ConfigError, Conflict, SyncAgentError, packed
from syncagent.model import Report
from syncagent.reconcile import Reconciler

_HINT = 2000  # keys of the catalog between two points where a listing may be split
_KEEP = 30.0  # seconds that what a task opened is kept for the next one
_WAIT = 30.0  # seconds for another worker that has the same range


def work(order: Order, tell: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """Do an order of `Spread`'s. An error that was expected is part of the answer.

    :return: `left` (ranges), `report` (its counts) and `error` (None, or as `packed` makes it).
    """
    report, left = Report(), [(order["after"], order["until"])]
    error = None
    try:
        _check_version(order["version"])
        until = time.monotonic() + order["seconds"]

        def record(ranges: Ranges) -> bool:
            left[:] = ranges
            going = tell({"left": list(ranges), "report": asdict(report)})
            return going and time.monotonic() < until

        _sweep(order, report, record)
    except SyncAgentError as failure:
        error = packed(failure)
    return {"left": left, "report": asdict(report), "error": error}


def _check_version(wanted: str) -> None:
    if __version__ != wanted:
        raise ConfigError(
            f"a worker has syncagent {__version__}, and this is {wanted}",
            resource="syncagent",
            hint=f"install syncagent=={wanted} on all workers",
        )


def _sweep(order: Order, report: Report, record: Callable[[Ranges], bool]) -> None:
    after, until = order["after"], order["until"]
    with _KEPT.opened(order) as (catalog, reconciler):
        dataset = reconciler.dataset
        run = _running(catalog, dataset.id, order["run"])
        hints = catalog.quantiles(dataset.id, _HINT, after=after, until=until)

        def note(missing: Sequence[str], left: Ranges) -> bool:
            catalog.note_missing(run.number, missing)
            return record(left)

        with _alone(catalog, dataset.id, after, until):
            reconciler.sweep_part(run, (after, until), report, note, hints=hints)


class _Opened:
    """Catalog and bucket of one sweep."""

    def __init__(self, order: Order) -> None:
        self.run = order["stamp"], order["run"]
        given = {name: order[name] for name in ("listers", "workers", "catalog_pool")}
        settings = load(processes=0, **given)
        if "catalog" not in settings.model_fields_set:
            settings = load(processes=0, catalog=order["catalog"], **given)
        self._agent = Agent(settings)
        try:
            catalog = self._agent.catalog
            if not isinstance(catalog, PostgresCatalog) or catalog.stamp != order["stamp"]:
                raise ConfigError(
                    "a worker's settings name another catalog than the one that is swept",
                    resource=settings.catalog.partition("://")[0],
                    hint="give the workers the same SYNCAGENT_CATALOG, or none",
                )
            self.catalog = catalog
            self.reconciler = self._agent.reconciler(catalog.dataset(order["dataset"]))
        except BaseException:
            self._agent.close()
            raise

    def close(self) -> None:
        self._agent.close()


class _Kept:
    """What the last task opened: a tenth of a short task's time. Another sweep's is never used, and nothing is kept for long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[_Opened] = []
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def opened(self, order: Order) -> Iterator[tuple[PostgresCatalog, Reconciler]]:
        """For one task alone. What failed is not used again."""
        found = self._take((order["stamp"], order["run"])) or _Opened(order)
        try:
            yield found.catalog, found.reconciler
        except BaseException:
            found.close()
            raise
        with self._lock:
            self._free.append(found)
            self._timer = threading.Timer(_KEEP, self._take, [None])
            self._timer.daemon = True
            self._timer.start()

    def _take(self, run: tuple[str, int] | None) -> _Opened | None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            free, self._free = self._free, []
            same = [one for one in free if one.run == run]
            self._free = same[1:]
        for one in free:
            if one not in same:
                one.close()
        return same[0] if same else None


_KEPT = _Kept()


def _running(catalog: PostgresCatalog, dataset: str, number: int) -> Run:
    for run in catalog.runs(dataset, limit=1):
        if (run.number, run.state) == (number, "running"):
            return run
    raise Conflict(f"run {number} is over", resource=str(number), hint="start another sweep")


@contextlib.contextmanager
def _alone(catalog: PostgresCatalog, dataset: str, after: str | None, until: str | None) -> Any:
    """Wait for a worker that is lost to the scheduler, and still has the range. To do it twice is no harm but waste."""
    deadline = time.monotonic() + _WAIT
    while True:
        with catalog.range_lock(dataset, after, until) as mine:
            if mine or time.monotonic() >= deadline:
                yield
                return
        time.sleep(0.5)
