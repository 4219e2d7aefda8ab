"""One event, whatever envelope it came in. The parsers are in `s3_events`, `gcs_events` and `azure_events`.

An event says where to look, never what happened: nothing in it but the place is believed. Its kind and its
time are for people and for metrics.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from syncagent.errors import InvalidInput

Json = dict[str, Any]
_DEPTH = 6  # envelopes in envelopes: a redriven message of a queue behind a topic has four


class Kind(enum.Enum):
    """What an event claims to be about."""

    CREATED = "created"
    REMOVED = "removed"
    CHANGED = "changed"
    """Neither: a restored, retiered or relabelled object."""
    BELOW = "below"
    """Everything whose key starts with this one: a directory was renamed or deleted."""


class BadEvent(InvalidInput):
    """A payload that is no event of any envelope. It goes to the dead letters: it will not get better."""


@dataclass(frozen=True, slots=True)
class Event:
    """One place to look at."""

    provider: str
    """`DriverSpec.type`: ``s3``, ``gcs``, ``azureblob``, ``file``."""
    bucket: str
    """`DriverSpec.bucket`; ``account/container`` for Azure."""
    key: str
    """The full key inside the bucket, decoded once by its envelope's rule. For `Kind.BELOW` a plain prefix."""
    kind: Kind
    name: str
    """The vendor's word, such as ``ObjectCreated:Put``."""
    at: float | None = None
    """When it happened, in Unix seconds, as the vendor says."""
    id: str = ""
    """The vendor's request or event id, for logs."""
    size: int | None = None
    """Bytes, where the event says so."""

    @property
    def marker(self) -> bool:
        """Whether it says itself that it is about a folder marker, which is no item."""
        return self.kind is Kind.CREATED and self.key.endswith("/") and self.size == 0


@dataclass(slots=True)
class Parsed:
    """What a payload holds."""

    events: list[Event] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """By vendor's name: events that no item depends on, or that nobody knows yet, and tests of the wiring."""

    def add(self, other: Parsed) -> None:
        """Take the other's in."""
        self.events += other.events
        self.ignored.update(other.ignored)


# -- for the parsers -----------------------------------------------------------------------------


def decoded(body: str | bytes | Mapping[str, Any] | list[Any], where: str) -> Any:
    """JSON of a body that may be JSON already.

    :raises BadEvent: it is none. Payloads are never quoted: keys are people's own.
    """
    if not isinstance(body, str | bytes | bytearray):
        return body
    try:
        return json.loads(body.removeprefix("\ufeff") if isinstance(body, str) else body)
    except (ValueError, RecursionError):
        raise BadEvent(f"{where} is not JSON", resource=where) from None


def text(told: Any, name: str, where: str) -> str:
    """A text that must be there.

    :raises BadEvent: it is not.
    """
    value = told.get(name) if isinstance(told, Mapping) else None
    if not isinstance(value, str) or not value:
        raise BadEvent(f"{where} has no {name}", resource=where)
    return value


def part(told: Any, name: str, where: str) -> Json:
    """An object that must be there.

    :raises BadEvent: it is not.
    """
    value = told.get(name) if isinstance(told, Mapping) else None
    if not isinstance(value, dict):
        raise BadEvent(f"{where} has no {name}", resource=where)
    return value


def seconds(told: Any) -> float | None:
    """Unix seconds of an ISO 8601 time; None where there is none, for it only measures lag."""
    try:
        at = datetime.fromisoformat(told)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def whole(told: Any) -> int | None:
    """A number of bytes, told as a number or, by some, as a text."""
    try:
        return int(told)
    except (TypeError, ValueError, OverflowError):
        return None


def deeper(depth: int, where: str) -> int:
    """One envelope further in.

    :raises BadEvent: no real event is wrapped that often.
    """
    if depth >= _DEPTH:
        raise BadEvent(f"{where} is wrapped too often", resource=where)
    return depth + 1
