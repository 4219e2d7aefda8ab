"""What the daemon tells of itself, for Prometheus and for ``syncagent status``."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Total

from syncagent.drivers.queues import Depth
from syncagent.handlers.deliveries import Taken
from syncagent.model import Report

_LAG = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600)
_MOST_NAMES = 60
_WORK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counts since the process began. Used from many threads."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._queues: dict[str, dict[str, Any]] = {}
        self._sweeps: dict[str, dict[str, Any]] = {}
        self._asked: Counter[tuple[str, int, str]] = Counter()
        self._names: set[str] = set()
        self.started = time.time()
        self.events = Total("syncagent_events", "Events by kind.", ["queue", "kind"], registry=registry)
        self.ignored = Total(
            "syncagent_events_ignored",
            "Events on which no item depends.",
            ["queue", "name"],
            registry=registry,
        )
        self.keys = Total(
            "syncagent_keys_settled",
            "Keys by what settling them did.",
            ["source", "action"],
            registry=registry,
        )
        self.messages = Total(
            "syncagent_messages", "Messages by what became of them.", ["queue", "result"], registry=registry
        )
        self.errors = Total("syncagent_errors", "Errors by kind.", ["where", "kind"], registry=registry)
        self.lag = Histogram(
            "syncagent_event_lag_seconds", "From the oldest event of a batch to the catalog.", ["queue"],
            registry=registry, buckets=_LAG,
        )  # fmt: skip
        self.work = Histogram(
            "syncagent_message_seconds", "From a message received to the catalog.", ["queue"], registry=registry,
            buckets=_WORK,
        )  # fmt: skip
        self.depth = Gauge(
            "syncagent_queue_messages", "Messages, as the queue tells.", ["queue", "state"], registry=registry
        )
        self.held = Gauge("syncagent_queue_held", "Messages in our hands.", ["queue"], registry=registry)
        self.oldest = Gauge(
            "syncagent_queue_oldest_seconds", "Age of the oldest message in our hands, 0 for none.", ["queue"],
            registry=registry,
        )  # fmt: skip
        self.drift = Gauge(
            "syncagent_drift", "Keys that the last sweep had to repair.", ["dataset"], registry=registry
        )
        self.drifted = Total(
            "syncagent_drift_keys", "Keys that sweeps had to repair.", ["dataset"], registry=registry
        )
        self.sweeps = Total(
            "syncagent_sweeps", "Sweeps by how they ended.", ["dataset", "state"], registry=registry
        )
        self.sweeping = Gauge(
            "syncagent_sweep_objects", "Objects listed by the sweep that runs, or ran last.", ["dataset"],
            registry=registry,
        )  # fmt: skip
        self.rate = Gauge(
            "syncagent_sweep_objects_per_second",
            "Of the sweep that runs, or ran last.",
            ["dataset"],
            registry=registry,
        )
        self.swept_at = Gauge(
            "syncagent_sweep_last_success_timestamp_seconds", "When the last sweep ended well.", ["dataset"],
            registry=registry,
        )  # fmt: skip
        self.requests = Total(
            "syncagent_bucket_requests", "Requests to buckets.", ["dataset", "kind"], registry=registry
        )
        self.cost = Total(
            "syncagent_bucket_cost_dollars",
            "What the requests cost, by list prices.",
            ["dataset"],
            registry=registry,
        )
        self.webhooks = Total(
            "syncagent_webhook_events",
            "Events for webhooks by what became of them.",
            ["dataset", "result"],
            registry=registry,
        )
        self.dead = Gauge(
            "syncagent_dead_letters", "Messages that were given up, and kept.", registry=registry
        )

    def batch(self, queue: str, taken: Taken, waits: list[float]) -> None:
        """Note a batch of messages.

        :param waits: for each that is done, the seconds since it was received.
        """
        for kind, count in taken.events.items():
            self.events.labels(queue, kind).inc(count)
        for name, count in taken.ignored.items():
            self.ignored.labels(queue, self._name(name)).inc(count)
        for action, count in (taken.settled.counts if taken.settled else Counter[str]()).items():
            self.keys.labels("event", action).inc(count)
        for reason in taken.errors.values():
            self.errors.labels(queue, type(reason).__name__).inc()
        for wait in waits:
            self.work.labels(queue).observe(wait)
        if taken.oldest is not None:
            self.lag.labels(queue).observe(max(0.0, time.time() - taken.oldest))

    def _name(self, name: str) -> str:
        """Events name themselves: whoever writes into a queue must not fill our memory."""
        with self._lock:
            if len(self._names) < _MOST_NAMES:
                self._names.add(name)
            return name if name in self._names else "other"

    def queue(self, queue: str, **told: Any) -> None:
        """Note something about a queue, for `status`."""
        with self._lock:
            self._queues.setdefault(queue, {}).update(told)

    def queue_depth(self, queue: str, depth: Depth) -> None:
        """Note what a queue tells of itself."""
        for state, count in (("waiting", depth.waiting), ("in_flight", depth.in_flight)):
            if count is not None:
                self.depth.labels(queue, state).set(count)
        self.queue(queue, waiting=depth.waiting, in_flight=depth.in_flight)

    def swept(self, dataset: str, state: str, report: Report | None, drift: int | None) -> None:
        """Note a sweep that ended. :param drift: None where it was the dataset's first."""
        self.sweeps.labels(dataset, state).inc()
        if report is not None:
            self.progress(dataset, report)
            for action in ("added", "changed", "moved", "removed", "failed"):
                self.keys.labels("sweep", action).inc(getattr(report, action))
            if report.cost:
                self.cost.labels(dataset).inc(report.cost)
            for kind, count in report.requests.items():
                self.requests.labels(dataset, kind).inc(count)
        if drift is not None:
            self.drift.labels(dataset).set(drift)
            self.drifted.labels(dataset).inc(drift)
        if state == "done":
            self.swept_at.labels(dataset).set_to_current_time()
        self.sweep(dataset, state=state, **({} if drift is None else {"drift": drift}))

    def progress(self, dataset: str, report: Report) -> None:
        """Note how far a sweep is."""
        self.sweeping.labels(dataset).set(report.listed)
        self.rate.labels(dataset).set(report.listed / report.seconds if report.seconds else 0)

    def sweep(self, dataset: str, **told: Any) -> None:
        """Note something about a dataset's sweeps, for `status`."""
        with self._lock:
            self._sweeps.setdefault(dataset, {}).update(told)

    def asked(
        self, dataset: str, client: int, requests: Mapping[str, int], prices: Mapping[str, float]
    ) -> None:
        """Note how many requests of each kind one of a bucket's clients has sent in all.

        Whoever sends fewer than before is another client, and has begun anew.
        """
        with self._lock:
            for kind, count in requests.items():
                before = self._asked[dataset, client, kind]
                more = count - before if count >= before else count
                self._asked[dataset, client, kind] = count
                if more:
                    self.requests.labels(dataset, kind).inc(more)
                    if prices.get(kind):
                        self.cost.labels(dataset).inc(more * prices[kind] / 1000)

    def forget(self) -> None:
        """What was told for `status` is of other settings. The counts go on."""
        with self._lock:
            self._queues.clear()
            self._sweeps.clear()

    def told(self, dataset: str, result: str, count: int) -> None:
        """Note what became of some events for a webhook."""
        self.webhooks.labels(dataset, result).inc(count)

    def text(self) -> bytes:
        """For Prometheus."""
        return generate_latest(self.registry)

    def status(self) -> dict[str, Any]:
        """For a person."""
        with self._lock:
            return {
                "started_at": self.started,
                "queues": {name: dict(told) for name, told in self._queues.items()},
                "sweeps": {name: dict(told) for name, told in self._sweeps.items()},
            }
