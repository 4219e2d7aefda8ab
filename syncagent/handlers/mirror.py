"""What every front door does with events: settle the keys that they name, in every dataset that mirrors them."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from syncagent.catalog import Dataset
from syncagent.errors import SyncAgentError, Transient
from syncagent.handlers.events import Event, Kind
from syncagent.model import Outcome

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.drivers import Bucket
    from syncagent.reconcile import Reconciler

_KNOWN_SECONDS = 1.0  # that the table of datasets is believed: a new dataset misses no event
# The same, where settings name the one dataset that there can be. What it does not seem to mirror is still looked up each second:
# at worst a dataset that was moved to another bucket or path gets events of the old one for a minute, and a sweep mends that.
_NAMED_SECONDS = 60.0
_QUARANTINE_SECONDS = 60.0
_BATCH = 1000


@dataclass(slots=True)
class Settled:
    """What became of some events."""

    errors: list[SyncAgentError | None] = field(default_factory=list)
    """For each event, why it is not done; None: it is, or no dataset is concerned."""
    outcomes: list[tuple[Dataset, Outcome]] = field(default_factory=list)
    """Each key once for each dataset, however many events named it."""
    failed: list[tuple[int, Dataset, str, SyncAgentError]] = field(default_factory=list)
    """The event's number, and the key, or the prefix, that it is not done for."""
    outside: int = 0
    """Events at places that no dataset mirrors."""

    @property
    def counts(self) -> Counter[str]:
        """Keys by what settling them did: ``added``, ``changed``, ``removed``, ``same``."""
        return Counter(outcome.action.name.lower() for _, outcome in self.outcomes)


class Mirror:
    """Settles events. One object may be used from many threads, and lives as long as its process.

    :param only: names or ids of the datasets to work on; None: all.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        only: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._only, self._clock = agent, only, clock
        self._lock = threading.Lock()
        self._datasets: dict[tuple[str, str], list[Dataset]] = {}
        self._read_at = -math.inf
        given = agent.settings
        named = given.dataset_id is not None and given.catalog.startswith("dataloop+")  # no other knows it
        self._known_seconds = _NAMED_SECONDS if named else _KNOWN_SECONDS
        self._reconcilers: dict[str, tuple[Dataset, Reconciler]] = {}
        self._quarantined: dict[str, tuple[float, set[str]]] = {}

    def settle(self, events: Sequence[Event], *, left: Callable[[], float] = lambda: math.inf) -> Settled:
        """Settle what events name. What fails is told, not raised, and does not stop the others.

        :param left: seconds that remain; with none left the rest is `Transient`, for another delivery.
        """
        done = Settled(errors=[None] * len(events))
        wanted: dict[tuple[str, str], list[int]] = {}
        below: dict[tuple[str, str], list[int]] = {}
        places: dict[str, Dataset] = {}
        for number, event in enumerate(events):
            if event.marker:
                continue
            try:
                datasets = self._mirroring(event)
            except SyncAgentError as reason:
                done.errors[number] = reason
                continue
            inside = 0
            for dataset in datasets:
                try:
                    key = self._key(dataset, event)
                except SyncAgentError as reason:  # of this dataset's bucket: the others go on
                    inside += 1
                    done.errors[number] = reason
                    continue
                if key is not None:
                    inside += 1
                    places[dataset.id] = dataset
                    of = below if event.kind is Kind.BELOW else wanted
                    of.setdefault((dataset.id, key), []).append(number)
            done.outside += not inside
        for number_of, settle in ((wanted, self._keys), (below, self._below)):
            for name, dataset in places.items():
                keys = [key for known, key in number_of if known == name]
                for key, why in settle(dataset, keys, done, left):
                    for number in number_of[name, key]:
                        done.failed.append((number, dataset, key, why))
                        done.errors[number] = done.errors[number] or why
        return done

    def _keys(
        self, dataset: Dataset, keys: Sequence[str], done: Settled, left: Callable[[], float]
    ) -> list[tuple[str, SyncAgentError]]:
        failed: list[tuple[str, SyncAgentError]] = []
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            try:
                _in_time(left)
                results = self._reconciler(dataset).settle_many(batch)
                pairs = zip(batch, results, strict=True)
                failed += [(key, one) for key, one in pairs if isinstance(one, SyncAgentError)]
                self._settled(dataset, [one for one in results if isinstance(one, Outcome)], done)
            except SyncAgentError as reason:
                failed += [(key, reason) for key in batch]
        return failed

    def _below(
        self, dataset: Dataset, prefixes: Sequence[str], done: Settled, left: Callable[[], float]
    ) -> list[tuple[str, SyncAgentError]]:
        failed: list[tuple[str, SyncAgentError]] = []
        for prefix in prefixes:
            try:
                below = self._reconciler(dataset).settle_below(prefix, on_page=lambda: _in_time(left))
                while results := list(islice(below, _BATCH)):
                    failed += [(prefix, one) for one in results if isinstance(one, SyncAgentError)]
                    self._settled(dataset, [one for one in results if isinstance(one, Outcome)], done)
            except SyncAgentError as reason:
                failed.append((prefix, reason))
        return failed

    def _settled(self, dataset: Dataset, outcomes: Sequence[Outcome], done: Settled) -> None:
        done.outcomes += [(dataset, outcome) for outcome in outcomes]
        if outcomes:
            # What such a file says comes after its own row, and before its event is done.
            self._agent.follow(dataset, [outcome.key for outcome in outcomes])

    # -- which datasets --------------------------------------------------------------------------

    def _key(self, dataset: Dataset, event: Event) -> str | None:
        """The key, or the prefix, as the dataset knows it."""
        if not _near(dataset, event):
            return None  # known without opening the bucket
        bucket = self._reconciler(dataset).bucket
        return bucket.below(event.key) if event.kind is Kind.BELOW else bucket.relative(event.key)

    def _mirroring(self, event: Event) -> list[Dataset]:
        with self._lock:
            age = self._clock() - self._read_at
            if age > self._known_seconds or (
                age > _KNOWN_SECONDS and not any(_near(one, event) for one in self._of(event))
            ):
                self._read()
            return self._of(event)

    def _of(self, event: Event) -> list[Dataset]:
        found = self._datasets.get((event.provider, event.bucket), [])
        if not found and event.provider == "azureblob":
            # The platform's own drivers name a container and no account.
            found = self._datasets.get((event.provider, event.bucket.rpartition("/")[2]), [])
        return found

    def _read(self) -> None:
        datasets: dict[tuple[str, str], list[Dataset]] = {}
        for one in self._agent.catalog.datasets():
            if self._only is None or one.name in self._only or one.id in self._only:
                datasets.setdefault((one.driver.type, one.driver.bucket), []).append(one)
        self._datasets, self._read_at = datasets, self._clock()
        ids = {one.id for of in datasets.values() for one in of}
        for gone in self._reconcilers.keys() - ids:
            self._agent.shut(self._reconcilers.pop(gone)[1].bucket)

    def quarantine(self, dataset: Dataset, key: str, reason: SyncAgentError) -> None:
        """Put a key away that an event could not be settled for.

        :raises SyncAgentError: the catalog could not.
        """
        self._agent.catalog.quarantine(dataset.id, key, reason)
        with self._lock:
            self._quarantined.pop(dataset.id, None)

    def release(self, outcomes: Sequence[tuple[Dataset, Outcome]]) -> None:
        """Take keys out of the quarantine that are settled by now. Asks for its keys once a minute.

        :raises SyncAgentError: the catalog could not.
        """
        for id in {dataset.id for dataset, _ in outcomes}:
            with self._lock:
                read_at, kept = self._quarantined.get(id, (-math.inf, set[str]()))
            if self._clock() - read_at > _QUARANTINE_SECONDS:
                kept = {one.key for one in self._agent.catalog.quarantined(id)}
                with self._lock:
                    self._quarantined[id] = self._clock(), kept
            done = [outcome.key for dataset, outcome in outcomes if dataset.id == id and outcome.key in kept]
            if done:
                self._agent.catalog.release(id, done)
                kept.difference_update(done)

    def forget(self) -> None:
        """Open everything anew at the next event: the table of datasets, and buckets with their credentials."""
        with self._lock:
            known, self._reconcilers, self._read_at = self._reconcilers, {}, -math.inf
        for _, reconciler in known.values():
            self._agent.shut(reconciler.bucket)

    def buckets(self) -> list[tuple[Dataset, Bucket]]:
        """The buckets that are open, to tell what was asked of them."""
        with self._lock:
            return [(dataset, reconciler.bucket) for dataset, reconciler in self._reconcilers.values()]

    def _reconciler(self, dataset: Dataset) -> Reconciler:
        """Kept for as long as the dataset stays what it is: its clients have connections open."""
        with self._lock:
            known = self._reconcilers.get(dataset.id)
            if known is None or known[0] != dataset:
                if known is not None:
                    self._agent.shut(known[1].bucket)
                known = self._reconcilers[dataset.id] = dataset, self._agent.reconciler(dataset)
            return known[1]


def _near(dataset: Dataset, event: Event) -> bool:
    """Whether an event's key, or something below it, may be below the dataset's path."""
    path = dataset.driver.path
    return event.key.startswith(path) or path.startswith(event.key)


def _in_time(left: Callable[[], float]) -> None:
    if left() <= 0:
        raise Transient("no time was left for it", hint="the next delivery goes on")
