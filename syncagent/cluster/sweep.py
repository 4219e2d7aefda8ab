"""The side of a clustered sweep that keeps its progress: which ranges there are, who has one, what was counted."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from syncagent import __version__
from syncagent.catalog.base import Ranges, Run
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.cluster.base import Done, Engine, Event, Failed, Lost, Told
from syncagent.cluster.work import work
from syncagent.config import Settings
from syncagent.errors import ConfigError, SyncAgentError, Transient, unpacked
from syncagent.model import Report
from syncagent.reconcile import Reconciler

_LONG, _SHORT = 10.0, 2.0  # seconds of a task; the short ones while there are not enough ranges for all
_PARTS = 8  # ranges for each worker, where the catalog knows how to divide
_HINT = 2000  # keys of a range, at least
_LOSSES = 3  # workers that may die of one range
_ADVANCE = 1.0  # seconds
_NOBODY = 60.0  # seconds to wait for a first worker, or for another one
_SILENT = 600.0  # seconds in which a task tells nothing, after which it is taken for lost: a busy store may take minutes
_GOODBYE = 20.0  # seconds for tasks under way, when the sweep ends before they do


@dataclass(slots=True)
class _Part:
    """A range, and what went wrong with it so far."""

    after: str | None
    until: str | None
    failures: int = 0


@dataclass(slots=True)
class _Task:
    """A range that a worker has."""

    part: _Part
    left: Ranges
    report: Report = field(default_factory=Report)
    heard: float = field(default_factory=time.monotonic)


class Spread:
    """`Elsewhere`, by a cluster: one range a task, a few seconds each; what a task has left comes back, split.

    So no worker waits long for another, and nobody has to know the keys: a first sweep begins with one task.

    :param engine: closed by whoever opened it.
    :raises ConfigError: neither catalog nor bucket is one that several machines work on.
    """

    def __init__(self, engine: Engine, reconciler: Reconciler, settings: Settings) -> None:
        check(reconciler)
        self._engine, self._of = engine, reconciler
        self._order = {
            "version": __version__,
            "catalog": _without_password(settings.catalog),
            "stamp": reconciler.catalog.stamp,  # type: ignore[attr-defined]  # `check` has seen what it is
            "dataset": reconciler.dataset.name,
            "listers": settings.listers,
            "workers": settings.workers,
            "catalog_pool": settings.catalog_pool,
        }

    def __call__(self, run: Run, advance: Callable[[Ranges, Report], None]) -> None:
        """Have the cluster do what a run has left; see `Elsewhere`.

        :raises Transient: the scheduler is gone, or all workers are, or one range killed several.
        :raises SyncAgentError: what a worker raised.
        """
        _Sweeping(self._engine, {**self._order, "run": run.number}, self._ranges(run), advance).follow()

    def _ranges(self, run: Run) -> Ranges:
        if run.ranges is not None:
            return run.ranges
        if run.cursor is not None:
            return [(run.cursor, None)]
        catalog, dataset = self._of.catalog, self._of.dataset.id
        wanted = _PARTS * max(1, self._engine.slots())
        points = catalog.quantiles(dataset, max(_HINT, catalog.count(dataset) // wanted))
        return list(zip([None, *points], [*points, None], strict=True))


class _Sweeping:
    """The state of one clustered listing."""

    def __init__(
        self,
        engine: Engine,
        order: Mapping[str, Any],
        ranges: Ranges,
        advance: Callable[[Ranges, Report], None],
    ) -> None:
        self._engine, self._order, self._advance = engine, order, advance
        self._waiting = deque(_Part(after, until) for after, until in ranges)
        self._tasks: dict[str, _Task] = {}
        self._numbers = itertools.count(1)
        self._done = Report()

    def follow(self) -> None:
        """Until nothing is left."""
        advanced = seen = time.monotonic()
        try:
            while self._waiting or self._tasks:
                slots = self._engine.slots()
                now = time.monotonic()
                seen = now if slots else seen
                if now - seen > _NOBODY:
                    raise Transient(
                        f"the cluster {self._engine.name} has no workers",
                        resource=self._engine.name,
                        hint="start some, then run it again: it goes on where it was",
                    )
                while self._waiting and len(self._tasks) < slots:
                    self._submit(slots)
                event = self._engine.next(_ADVANCE)
                if event is not None:
                    self._heed(event)
                for task in [number for number, one in self._tasks.items() if now - one.heard > _SILENT]:
                    self._heed(Lost(task))
                if time.monotonic() - advanced >= _ADVANCE:
                    self._tell()
                    advanced = time.monotonic()
        finally:
            with contextlib.suppress(Transient):  # a scheduler that is gone: what was told counts
                self._wind_up()
            self._tell()

    def _submit(self, slots: int) -> None:
        part = self._waiting.popleft()
        short = len(self._waiting) + len(self._tasks) + 1 < 2 * slots
        task = f"{self._order['run']}-{next(self._numbers)}"
        self._tasks[task] = _Task(part, [(part.after, part.until)])
        self._engine.submit(
            task,
            work,
            {**self._order, "after": part.after, "until": part.until, "seconds": _SHORT if short else _LONG},
        )

    def _heed(self, event: Event) -> None:
        task = self._tasks.get(event.task)
        if task is None:
            return  # of a task that was lost, and is not waited for any more
        if isinstance(event, Told):
            self._note(task, event.what)
            return
        if isinstance(event, Done):
            self._note(task, event.answer)
            error = event.answer["error"]
            self._end(event.task, failed=error is not None)
            if error is not None:
                self._failed(task, unpacked(error))
        elif isinstance(event, Lost):
            self._end(event.task, failed=True)
            self._failed(
                task,
                Transient(
                    f"{_LOSSES} workers were lost with {_shown(task)}",
                    resource=self._engine.name,
                    hint="look at their logs: was it memory? Run it again when that is mended: it goes on where it was",
                ),
            )
        else:
            self._end(event.task, failed=True)
            raise _bug(task, event)

    def _failed(self, task: _Task, error: SyncAgentError) -> None:
        """A passing fault is passed over a few times."""
        if not isinstance(error, Transient) or task.part.failures + 1 >= _LOSSES:
            raise error

    def _note(self, task: _Task, told: Mapping[str, Any]) -> None:
        task.left = [(after, until) for after, until in told["left"]]
        task.report = Report(**told["report"])
        task.heard = time.monotonic()

    def _end(self, number: str, *, failed: bool) -> None:
        """Count what a task did, and put what it has left back."""
        task = self._tasks.pop(number)
        _add(self._done, task.report)
        failures = task.part.failures + 1 if failed else 0
        back = [_Part(after, until, failures) for after, until in task.left]
        if failed:
            self._waiting.extendleft(reversed(back))
        else:
            self._waiting.extend(back)

    def _wind_up(self) -> None:
        """Have tasks under way return, and wait for that a while: what they did and did not tell would be looked at twice."""
        if not self._tasks:
            return
        self._engine.stop()
        deadline = time.monotonic() + _GOODBYE
        while self._tasks and time.monotonic() < deadline:
            event = self._engine.next(_ADVANCE)
            if event is None or (task := self._tasks.get(event.task)) is None:
                continue
            if isinstance(event, Told | Done):
                self._note(task, event.what if isinstance(event, Told) else event.answer)
            if not isinstance(event, Told):
                self._end(event.task, failed=False)

    def _tell(self) -> None:
        counts = Report()
        left = [(part.after, part.until) for part in self._waiting]
        _add(counts, self._done)
        for task in self._tasks.values():
            left += task.left
            _add(counts, task.report)
        self._advance(sorted(left, key=lambda bounds: bounds[0] or ""), counts)


def check(reconciler: Reconciler) -> None:
    """Whether several machines could sweep a dataset.

    :raises ConfigError: they could not, and why.
    """
    from syncagent.catalog.sql.postgres import PostgresCatalog

    if not isinstance(reconciler.catalog, SqlCatalog) or not isinstance(reconciler.catalog, PostgresCatalog):
        raise ConfigError(
            "a cluster's workers all write to the catalog, which only one on PostgreSQL can take",
            resource="catalog",
            hint="give --catalog postgresql://host/database, or leave --cluster out",
        )
    if (why := reconciler.bucket.sequential) is not None:
        raise ConfigError(
            f"{reconciler.bucket.url} cannot be listed by a cluster: {why}",
            resource=reconciler.bucket.url,
            hint="leave --cluster out",
        )


def _without_password(url: str) -> str:
    from syncagent.catalog.sql.postgres_connection import without_password

    return without_password(url)


def _add(to: Report, counts: Report) -> None:
    for name in ("listed", "added", "changed", "same", "failed", "ignored"):
        setattr(to, name, getattr(to, name) + getattr(counts, name))
    for kind, number in counts.requests.items():
        to.requests[kind] = to.requests.get(kind, 0) + number


def _shown(task: _Task) -> str:
    after, until = task.part.after, task.part.until
    return f"the range after {after!r} up to {until!r}" if until is not None else f"the range after {after!r}"


def _bug(task: _Task, event: Failed) -> SyncAgentError:
    error = event.error
    if isinstance(error, ModuleNotFoundError):
        return ConfigError(
            f"a worker of the cluster has no {error.name}",
            resource=error.name,
            hint=f"install 'syncagent[s3,postgres]=={__version__}' on all workers, with the extra of the store",
        )
    made = SyncAgentError(
        f"{_shown(task)} failed on a worker: {type(error).__name__}", hint="-v shows where; please report it"
    )
    made.__cause__ = error
    return made
