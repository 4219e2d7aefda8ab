"""What every front door does with what it was given: parse it, settle what it names, and say what is not done."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from syncagent.errors import AccessDenied, ConfigError, SyncAgentError
from syncagent.handlers.events import BadEvent, Event, Parsed
from syncagent.tracing import span

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.catalog import Dataset
    from syncagent.config import Settings
    from syncagent.handlers.mirror import Mirror, Settled

PLATFORM = "dataloop+https://gate.dataloop.ai"
_REFUSED_SECONDS = 60.0
_IDS = 5  # request ids in a line, to find a batch in the vendor's logs
_log = logging.getLogger("syncagent.handlers")

Delivery = tuple[str, Callable[[], Parsed]]
"""What may fail and be delivered again by itself: the id to tell it by, and what parses it."""


@dataclass(slots=True)
class Taken:
    """What became of some deliveries."""

    errors: dict[str, SyncAgentError] = field(default_factory=dict)
    """By delivery, the first reason why it is not done. A `BadEvent` will not get better."""
    events: Counter[str] = field(default_factory=Counter)
    """By kind."""
    ignored: Counter[str] = field(default_factory=Counter)
    settled: Settled | None = None
    failed: dict[str, list[tuple[Dataset, str]]] = field(default_factory=dict)
    """By delivery, the keys that it is not done for."""
    oldest: float | None = None
    """When the oldest event happened, in Unix seconds."""
    ids: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def record(self, **more: Any) -> dict[str, Any]:
        """What to log: counts, and no key, no payload, no secret."""
        age = None if self.oldest is None else round(max(0.0, time.time() - self.oldest), 3)
        settled = self.settled
        told: dict[str, Any] = {
            **more,
            "events": dict(self.events),
            "ignored": dict(self.ignored),
            "settled": dict(settled.counts) if settled else {},
            "outside": settled.outside if settled else 0,
            "failed": dict(Counter(type(one).__name__ for one in self.errors.values())),
            "oldest_seconds": age,
            "ids": self.ids,
            "seconds": round(self.seconds, 3),
        }
        return {name: value for name, value in told.items() if value not in ({}, [], None)}

    def done(self) -> None:
        """Raise unless all is done, so that all is delivered again. The platform logs it: it tells no key.

        :raises SyncAgentError: the reason.
        """
        for reason in self.errors.values():
            raise type(reason)(without_keys(reason))


def parser(provider: str) -> Callable[[str, Mapping[str, str]], Parsed]:
    """What parses a message of a provider's queue: its body, and its attributes.

    :param provider: `Queue.provider`.
    :raises ConfigError: nobody knows its events.
    """
    match provider:
        case "s3":
            from syncagent.handlers import s3_events

            return lambda body, _: s3_events.parse(body)
        case "gcs":
            from syncagent.handlers import gcs_events

            return gcs_events.parse
        case "azureblob":
            from syncagent.handlers import azure_events

            return lambda body, _: azure_events.parse(body)
        case "file":
            from syncagent.handlers import local_events

            return lambda body, _: local_events.parse(body)
    raise ConfigError(f"nobody knows the events of {provider}", resource=provider)


def take(
    mirror: Mirror, deliveries: Sequence[Delivery], *, left: Callable[[], float] = lambda: math.inf
) -> Taken:
    """Settle everything that some deliveries name. Nothing is raised: what fails is in `Taken.errors`.

    :param left: seconds that remain.
    """
    with span("syncagent.batch", deliveries=len(deliveries)) as note:
        done = _take(mirror, deliveries, left)
        note(events=done.events.total(), failed=len(done.errors), ignored=done.ignored.total())
    return done


def _take(mirror: Mirror, deliveries: Sequence[Delivery], left: Callable[[], float]) -> Taken:
    began, done = time.monotonic(), Taken()
    events: list[Event] = []
    owners: list[str] = []
    for id, parse in deliveries:
        try:
            parsed = parse()
        except SyncAgentError as reason:
            done.errors[id] = reason
            continue
        except Exception:  # a bug of ours must not stop the others
            _log.exception("a payload could not be parsed")
            done.errors[id] = BadEvent("the payload could not be parsed, by a bug of ours; please report it")
            continue
        events += parsed.events
        owners += [id] * len(parsed.events)
        done.ignored.update(parsed.ignored)
    done.events.update(event.kind.value for event in events)
    done.oldest = min((event.at for event in events if event.at is not None), default=None)
    done.ids = list(dict.fromkeys(event.id for event in events if event.id))[:_IDS]
    settled = done.settled = _settled(mirror, events, left)
    for number, dataset, key, _ in settled.failed:
        done.failed.setdefault(owners[number], []).append((dataset, key))
    for owner, why in zip(owners, settled.errors, strict=True):
        if why is not None:
            done.errors.setdefault(owner, why)
    done.seconds = time.monotonic() - began
    return done


def _settled(mirror: Mirror, events: Sequence[Event], left: Callable[[], float]) -> Settled:
    from syncagent.handlers.mirror import Settled

    try:
        return mirror.settle(events, left=left)
    except SyncAgentError as reason:
        return Settled(errors=[reason] * len(events))
    except Exception as bug:
        _log.exception("events could not be settled")
        if len(events) == 1:
            return Settled(errors=[SyncAgentError(f"a bug of ours, {type(bug).__name__}; please report it")])
    done = Settled()
    for event in events:  # one of them is to blame: the others are done
        one = _settled(mirror, [event], left)
        done.failed += [(len(done.errors), dataset, key, why) for _, dataset, key, why in one.failed]
        done.errors += one.errors
        done.outcomes += one.outcomes
        done.outside += one.outside
    return done


class Front:
    """A function's one agent and mirror: made for its first batch, and kept while its process lives."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._made: tuple[Agent, Mirror] | None = None
        self._refused_at = -math.inf

    def take(
        self, deliveries: Sequence[Delivery], *, left: Callable[[], float] = lambda: math.inf, **more: Any
    ) -> Taken:
        """See `take`. Tells one record for a batch.

        :param more: for that record.
        :raises ConfigError: the function's settings are wrong.
        """
        done = take(self.mirror(), deliveries, left=left)
        self._tell(done.record(**more))
        for reason in done.errors.values():
            _log.warning("%s: %s", type(reason).__name__, without_keys(reason))
        if any(isinstance(one, AccessDenied) for one in done.errors.values()):
            self._refused()
        return done

    def mirror(self) -> Mirror:
        """Made from the environment, at first use: a cold start that fails fails its batch, and the next tries again."""
        with self._lock:
            if self._made is None:
                from syncagent.agent import Agent
                from syncagent.handlers.mirror import Mirror

                agent = Agent(settings())
                self._made = agent, Mirror(agent)
            return self._made[1]

    def _refused(self) -> None:
        """Credentials may have been renewed since: all is made anew for the next batch, but not for each."""
        now = time.monotonic()
        if now - self._refused_at > _REFUSED_SECONDS:
            self._refused_at = now
            self.close()

    def close(self) -> None:
        """Forget everything, as when the process ends."""
        with self._lock:
            if self._made is not None:
                self._made[0].close()
            self._made = None


def settings() -> Settings:
    """A function's settings. With the variables of the platform's tutorial alone, the catalog is the platform.

    :raises ConfigError: they are wrong, or name no catalog.
    """
    from syncagent.config import load

    found = load()
    if "catalog" in found.model_fields_set:
        return found
    if not found.dataset_id:
        raise ConfigError(
            "the function has no catalog", resource="SYNCAGENT_CATALOG",
            hint="set DATASET_ID, DTLPY_USERNAME and DTLPY_PASSWORD, or SYNCAGENT_CATALOG",
        )  # fmt: skip
    return load(catalog=PLATFORM)


def to_stdout(record: dict[str, Any]) -> None:
    """One line of JSON, as CloudWatch and Cloud Logging read it."""
    severity = "WARNING" if record.get("failed") else "INFO"
    sys.stdout.write(json.dumps({"severity": severity, "message": "batch", **record}) + "\n")
    sys.stdout.flush()


def to_logging(record: dict[str, Any]) -> None:
    """One line of JSON through `logging`, as Azure's host reads it."""
    level = logging.WARNING if record.get("failed") else logging.INFO
    logging.getLogger("syncagent").log(level, json.dumps({"message": "batch", **record}))


def without_keys(reason: SyncAgentError) -> str:
    """What went wrong, for a log: people's keys stay out of it, however they are written."""
    told = str(reason)
    if reason.resource and not isinstance(reason, BadEvent):
        for written in (reason.resource, repr(reason.resource)[1:-1], ascii(reason.resource)[1:-1]):
            told = told.replace(written, "…")
    return told
