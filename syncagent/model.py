"""The small frozen values that travel between drivers, reconciler and catalog."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class ObjectInfo(NamedTuple):
    """One object as its store tells it, by `list` or by `stat`.

    A named tuple, because forty million of them are made: pages of them are compared and
    bound to SQL as they are.
    """

    key: str
    """As stored: opaque Unicode, never normalised, split or joined."""
    fingerprint: str
    """Identifies one *write* of the object; `list` and `stat` give the same one."""
    size: int
    """Bytes."""
    modified: str
    """UTC, ISO 8601 to the second or finer, ending in ``Z``."""
    etag: str | None = None
    """Without quotes."""
    version: str | None = None
    """Generation or version id, where the store names each write."""
    content_id: str | None = None
    """Equal `content_id` and `size` mean equal bytes; None where the store does not say."""
    content_type: str | None = None
    """None where a listing does not tell it."""
    storage_class: str | None = None


class Row(NamedTuple):
    """What the catalog knows of one key. `fingerprint` is None for a tombstone."""

    key: str
    fingerprint: str | None
    rev: int
    """Grows by one on every settle; 0 is never stored and means "no row yet"."""
    item: int
    """The item's number in the catalog; 0 for a tombstone of a key that never was an item."""
    size: int
    content_id: str | None


class Settle(NamedTuple):
    """What the bucket holds at a key, looked at after its row had revision `expect_rev` (0: no row)."""

    key: str
    found: ObjectInfo | None
    expect_rev: int


class Action(enum.Enum):
    """What settling a key did (or would do). The value is the symbol that every command prints."""

    ADDED = "+"
    CHANGED = "*"
    REMOVED = "-"
    MOVED = ">"
    SAME = "="
    FAILED = "!"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One key, and what became of it."""

    key: str
    action: Action
    size: int | None = None
    source: str | None = None
    """The old key, for a move."""
    error: str | None = None


@dataclass(slots=True)
class Report:
    """Counts of one sweep (or plan, or check). Sizes in objects, `seconds` of wall time."""

    dataset: str = ""
    run: int = 0
    listed: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    same: int = 0
    failed: int = 0
    ignored: int = 0
    """Folder markers and keys outside the driver's path."""
    refused: str | None = None
    """Why removals were held back, or None."""
    resumed_after: str | None = None
    requests: dict[str, int] = field(default_factory=dict)
    cost: float | None = None
    """Estimated price of the requests in US dollars; None where the provider is not known."""
    seconds: float = 0.0

    @property
    def drift(self) -> int:
        """How many keys differed between bucket and catalog."""
        return self.added + self.changed + self.moved + self.removed


@dataclass(frozen=True, slots=True)
class Integration:
    """Credentials by name. `options` never appear in a repr.

    :param type: ``s3``, ``aws-sts``, ``gcs`` or ``azureblob``.
    :param options: the platform's own option names (``key``, ``secret``, ``content``, ``clientId`` …).
    """

    name: str
    type: str
    options: Mapping[str, str] = field(repr=False, default_factory=dict)
    id: str = ""


class Scope(enum.Enum):
    """How a driver's path selects keys."""

    FOLDER = "folder"
    """Keys below the folder: ``train`` never selects ``training/``."""
    PREFIX = "prefix"
    """Keys that start with the text: ``train`` selects ``training/`` as well."""


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """Where a bucket is: what a URL says, and what the catalog stores as a *driver*.

    Never holds a secret: credentials come from an `Integration` or from the SDK's own chain.
    """

    type: str
    """``s3``, ``gcs``, ``azureblob``, ``file`` or ``memory``, or a third party's scheme."""
    bucket: str
    """Bucket; ``account/container`` for Azure; an absolute folder for ``file``."""
    path: str = ""
    """Inside the bucket; without a trailing slash for a folder."""
    scope: Scope = Scope.FOLDER
    region: str | None = None
    endpoint: str | None = None
    storage_class: str | None = None
    allow_external_delete: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    """The driver's own parameters, such as ``requester_pays``."""
    name: str = ""
    id: str = ""
    integration: str | None = None
    """Name of the integration, or None for the SDK's default credentials."""

    def same_objects(self, other: DriverSpec) -> bool:
        """Whether both select the same objects, whatever the credentials, the region and the policy."""
        return (self.type, self.bucket, self.path, self.scope, self.endpoint) == (
            other.type, other.bucket, other.path, other.scope, other.endpoint,
        )  # fmt: skip
