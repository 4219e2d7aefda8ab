"""Sweeps datasets on their schedules, and says how much the events had missed."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from syncagent.daemon.metrics import Metrics
from syncagent.daemon.schedule import Schedule
from syncagent.errors import Conflict, SyncAgentError
from syncagent.model import Report
from syncagent.tracing import span

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.catalog import Dataset

_log = logging.getLogger("syncagent.daemon")
_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 60.0  # after a sweep that failed, or that somebody else does


class _Stopped(BaseException):
    """The daemon ends, as by Ctrl-C: the sweep goes on next time."""


@dataclass(slots=True)
class Plan:
    """How one dataset is swept."""

    name: str
    schedule: Schedule
    max_deletes: int | None = None
    drift_warning: int = 100
    followed: bool = False
    """Whether events should tell of its changes: then what a sweep finds is drift."""
    not_before: float = 0.0
    now: bool = False
    """Sweep at once, whatever the schedule says: nobody watched for a while."""


class Sweeper:
    """One thread that sweeps one dataset after the other: a listing uses a whole core."""

    def __init__(self, agent: Agent, plans: list[Plan], metrics: Metrics) -> None:
        self._agent, self._plans, self._metrics = agent, plans, metrics
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="syncagent-sweep", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def soon(self, names: Sequence[str]) -> None:
        """Sweep some datasets at once, whatever their schedules say."""
        for plan in self._plans:
            if plan.name in names and plan.schedule.text != "off":
                plan.now, plan.not_before = True, 0.0

    def ask_to_stop(self) -> None:
        """Begin no more, and end soon."""
        self._stopping.set()

    def stop(self, seconds: float) -> bool:
        """End, the sweep that runs too: it goes on next time where it was. Whether it ended in time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for plan in self._plans:
                if self._stopping.is_set():
                    return
                try:
                    self._if_due(plan)
                except SyncAgentError as reason:
                    plan.not_before = time.time() + _AGAIN_SECONDS
                    self._metrics.errors.labels(plan.name, type(reason).__name__).inc()
                    _log.warning("%s: no sweep for now: %s", plan.name, reason)
                except Exception as bug:
                    plan.not_before = time.time() + _AGAIN_SECONDS
                    self._metrics.errors.labels(plan.name, type(bug).__name__).inc()
                    _log.exception("sweeping %s failed", plan.name)
            self._stopping.wait(_LOOK_SECONDS)

    def _if_due(self, plan: Plan) -> None:
        now = time.time()
        if now < plan.not_before:
            return
        dataset = self._agent.catalog.dataset(plan.name)
        past = self._agent.catalog.runs(dataset.id, limit=20)
        ended = [run for run in past if run.state in {"done", "refused"}]
        due = now if plan.now else plan.schedule.next(_unix(ended[0].started_at) if ended else None, now)
        self._metrics.sweep(plan.name, next_at=due)
        if due is None or due > now:
            # Until then nothing has to be asked, unless the clock is set.
            plan.not_before = min(due or now + _AGAIN_SECONDS, now + _AGAIN_SECONDS)
            return
        wanted, plan.not_before, plan.now = plan.now, 0.0, False
        swept = False
        try:
            swept = self._sweep(plan, dataset, first=not any(run.state == "done" for run in ended))
        finally:
            if not swept:  # the schedule alone would put it off for a day
                plan.now = plan.now or wanted

    def _sweep(self, plan: Plan, dataset: Dataset, *, first: bool) -> bool:
        """Whether it went to its end."""
        began, last = time.monotonic(), Report()

        def on_progress(report: Report) -> None:
            nonlocal last
            last = report
            report.seconds = time.monotonic() - began
            self._metrics.progress(plan.name, report)
            if self._stopping.is_set():
                raise _Stopped

        limit = plan.max_deletes if plan.max_deletes is not None else self._agent.settings.max_deletes
        self._metrics.sweep(plan.name, state="running")
        reconciler = self._agent.reconciler(dataset)
        try:
            with span("syncagent.sweep", dataset=plan.name) as note:
                report = reconciler.sweep(max_deletes=limit, on_progress=on_progress)
                note(listed=report.listed, differences=report.drift, failed=report.failed)
        except _Stopped:
            self._metrics.swept(plan.name, "interrupted", None, None)
            return False
        except Conflict as other:
            self._metrics.sweep(plan.name, state="elsewhere")
            plan.not_before = time.time() + _AGAIN_SECONDS
            _log.info("%s: %s", plan.name, other)
            return False
        except SyncAgentError:
            self._metrics.swept(plan.name, "failed", last, None)
            raise
        finally:
            self._agent.shut(reconciler.bucket)
        drift = None if first else report.drift
        self._metrics.swept(plan.name, "refused" if report.refused else "done", report, drift)
        if report.refused:
            _log.error("%s: nothing was removed: %s; look with 'syncagent plan'", plan.name, report.refused)
        if drift is not None and plan.followed and drift > plan.drift_warning:
            _log.warning(
                "%s: drift: %d keys differed that no event told of, more than %d: check the bucket's notifications",
                plan.name, drift, plan.drift_warning,
            )  # fmt: skip
        _log.info(
            "sweep", extra={"fields": {"dataset": plan.name, "run": report.run, "drift": drift, "listed": report.listed, "seconds": round(report.seconds, 1), "failed": report.failed}},
        )  # fmt: skip
        self._after(dataset)
        return True

    def _after(self, dataset: Dataset) -> None:
        """What follows a sweep: the dataset's own files, and media facts where they are wanted."""
        self._agent.follow(dataset)
        if self._agent.catalog.labels.settings(dataset.id).get("probe"):
            self._agent.probe(dataset)


def _unix(stamp: str) -> float:
    with contextlib.suppress(ValueError):
        at = datetime.fromisoformat(stamp)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return 0.0
